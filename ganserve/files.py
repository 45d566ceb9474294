"""Files that are whole from the moment they have their name, and on the disk when a function returns."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from pathlib import Path

PARTIAL = ".partial"


def read(path: Path, most: int) -> bytes:
    """The content of a plain file of at most ``most`` bytes.

    A pipe or a device would keep its reader waiting, or feed it without end.

    Raises:
        OSError: it cannot be read, or is no such file; ``strerror`` says why.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file")
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"it has {found.st_size} bytes; at most {most} are read")
        return file.read()


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
