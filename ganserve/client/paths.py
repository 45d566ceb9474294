"""Paths of the service with names in them: whatever a name holds, it stays one part of the path."""

from __future__ import annotations

from urllib.parse import quote


def model_path(name: str) -> str:
    """A model."""
    return f"/models/{_part(name)}"


def version_path(name: str, version: int) -> str:
    """A version's card."""
    return f"{model_path(name)}/{version}"


def job_path(job: str) -> str:
    """A job."""
    return f"/jobs/{_part(job)}"


def dataset_path(name: str) -> str:
    """An uploaded data set."""
    return f"/datasets/{_part(name)}"


def _part(name: str) -> str:
    # A part of dots alone would be taken for a step up.
    return quote(name, safe="").replace(".", "%2E") if set(name) <= {"."} else quote(name, safe="")
