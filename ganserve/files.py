"""Files that are whole from the moment they have their name, and on the disk when a function returns."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

PARTIAL = ".partial"
# With less left, not even a small file is sure to be written.
FULL_BYTES = 1 << 16


def unwritable(folder: Path) -> str:
    """Why files cannot be made in a folder, or the folder in the nearest one that is there; empty where they can."""
    try:
        there = next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))
        if not there.is_dir():
            return "a file stands in its place"
        found = os.statvfs(there)
        if os.access(there, os.W_OK | os.X_OK):
            free = found.f_frsize * (found.f_bfree if os.geteuid() == 0 else found.f_bavail)
            # Some file systems count nothing.
            return "the disk is full" if found.f_blocks and free < FULL_BYTES else ""
        return "read-only file system" if found.f_flag & os.ST_RDONLY else "permission denied"
    except OSError as error:
        return (error.strerror or str(error)).lower()


def write(path: Path, content: bytes) -> None:
    """A new file, synced; its name may be seen before its content is whole."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes) -> None:
    """Write beside the file, then rename: whoever reads sees the old content or the new, a crash leaves either.

    Makes the folders above it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        write(staged, content)
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy(source: Path, target: Path) -> None:
    """A copy that is whole from the moment it has its name; makes the folders above it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        shutil.copyfile(source, staged)
        os.replace(staged, target)
    finally:
        staged.unlink(missing_ok=True)
