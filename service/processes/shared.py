"""The folder that the processes of one service share while it runs, made by their parent and gone with it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "GANSERVE_PROCESSES_DIR"
# Read by prometheus_client when it is imported.
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def sharing() -> Iterator[Path]:
    """Make the folder, and tell processes that are started from here on of it."""
    with tempfile.TemporaryDirectory(prefix="ganserve-") as name:
        folder = Path(name)
        (folder / "metrics").mkdir()
        os.environ[VARIABLE], os.environ[METRICS_VARIABLE] = name, str(folder / "metrics")
        yield folder


def place(name: str) -> Path | None:
    """A folder of that name in the shared one; None for a process that shares nothing."""
    if not (shared := os.environ.get(VARIABLE)):
        return None
    folder = Path(shared) / name
    folder.mkdir(exist_ok=True)
    return folder
