"""The model that comes with the package: the flagship's live version, as the build took it from ``models/``.

Where there are no models yet, the service copies it to the place where models are kept: an address of it then outlives
the first job that publishes another version, and the next upgrade of the package.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path

from ganserve import files
from ganserve.settings import PREFERRED

# In an installed package, and in a clone.
_HOMES = (Path(__file__).with_name("models"), Path(__file__).parents[1] / "models")
_POINTER = "live.json"


def folder() -> Path | None:
    """The model's folder in a repository's layout; None where the package was built without it."""
    return next((home / PREFERRED for home in _HOMES if (home / PREFERRED / _POINTER).is_file()), None)


def settle(models: Path) -> int | None:
    """Make ``models`` a repository of the shipped model, all of it or nothing; the version that it has.

    Returns:
        None, and nothing has changed, where something stands there, or there is no shipped model.

    Raises:
        OSError: it cannot be written.
    """
    source = folder()
    if source is None or os.path.lexists(models):
        return None
    pointer = json.loads((source / _POINTER).read_text(encoding="utf-8"))
    version = pointer["version"]
    # The version before it stays behind, so there is none to roll back to.
    told = json.dumps({**pointer, "previous": None}, indent=1) + "\n"
    models.parent.mkdir(parents=True, exist_ok=True)
    staging = models.with_name(f".staging-{uuid.uuid4().hex}")
    try:
        _copy(source / str(version), staging / PREFERRED / str(version))
        for name in (".highest", "config.pbtxt"):
            files.write(staging / PREFERRED / name, (source / name).read_bytes())
        files.write(staging / PREFERRED / _POINTER, told.encode())
        files.sync_folder(staging / PREFERRED)
        try:
            os.rename(staging, models)
        except OSError:
            if not os.path.lexists(models):
                raise
            # Another service was first.
            return None
        files.sync_folder(models.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return int(version)


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        files.write(target / path.name, path.read_bytes())
    files.sync_folder(target)
