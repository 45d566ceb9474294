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
    import fcntl

    with tempfile.TemporaryDirectory(prefix="ganserve-") as name:
        folder = Path(name)
        held = os.open(folder, os.O_RDONLY)
        # Where folders for temporary files are swept, what is locked is passed over (systemd-tmpfiles).
        fcntl.flock(held, fcntl.LOCK_SH)
        (folder / "metrics").mkdir()
        os.environ[VARIABLE], os.environ[METRICS_VARIABLE] = name, str(folder / "metrics")
        try:
            yield folder
        finally:
            os.close(held)


def place(name: str) -> Path | None:
    """A folder of that name in the shared one; None for a process that shares nothing."""
    if not (shared := os.environ.get(VARIABLE)):
        return None
    folder = Path(shared) / name
    folder.mkdir(exist_ok=True)
    return folder
