"""A repository of tiny models."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganserve.repository import Repository
from tests.tiny import publish


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """``digits``, conditional, and ``plain``, unconditional and in colour; the former is the default by name."""
    made = Repository(tmp_path / "models")
    publish(made, "digits", seed=1)
    publish(made, "plain", seed=2, conditional=False, channels=3)
    return made
