"""The files of a set, in a folder or a ZIP: each one's path, and how to read it."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

HEAD_BYTES = 32
# More is no picture, whatever it says.
MAX_BYTES = 1 << 30
_MACHINES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "$recycle.bin"})
_MACHINES |= {"__macosx", "@eadir", "system volume information", "__pycache__"}
_UNICODE_PATH = 0x7075


class SetError(ValueError):
    """A set that cannot be read as labelled or unlabelled pictures; the message says what would be right."""


@dataclass(frozen=True)
class Entry:
    """One file: its path with slashes, below the set's root, and how to read it; ``mark`` is its size and time, or
    whatever else changes with its content."""

    name: str
    read: Callable[[], bytes] = field(repr=False, compare=False)
    head: Callable[[], bytes] = field(repr=False, compare=False)
    mark: tuple[int, int] = (0, 0)


def clutter(name: str) -> bool:
    """What is hidden, or what machines leave unasked, anywhere in a path."""
    return any(part.startswith(".") or part.lower() in _MACHINES for part in name.split("/"))


def shown(name: str) -> str:
    """A file's name as text that can be printed and sent: bytes of no known encoding are written out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def folder_entries(folder: Path) -> list[Entry]:
    """The files below a folder, by name; links are followed, but never round in a circle, and hidden folders are not
    entered.

    Raises:
        SetError: a folder in it cannot be read.
    """
    found = []
    # Paths stay texts here: objects of them would take as long as decoding small pictures.
    root = os.path.join(folder, "")
    for place, folders, names in os.walk(root, followlinks=True, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not clutter(name) and not _circles(place, name))
        for name in sorted(names):
            path = os.path.join(place, name)
            below = shown(path[len(root) :].replace(os.sep, "/"))
            try:
                told = os.stat(path)
            except OSError:  # a link to nothing: whoever reads it says so by its name
                found.append(Entry(below, partial(_content, path), bytes))
                continue
            if stat.S_ISREG(told.st_mode):
                mark = (told.st_size, told.st_mtime_ns)
                found.append(Entry(below, partial(_content, path), partial(_content, path, HEAD_BYTES), mark))
    return found


def _unreadable(error: OSError) -> None:
    raise SetError(f"folder {shown(str(error.filename))!r} cannot be read: {error.strerror}") from error


def _circles(place: str, name: str) -> bool:
    path = os.path.join(place, name)
    if not os.path.islink(path):
        return False
    real, above = os.path.realpath(path), os.path.realpath(place)
    return real == above or above.startswith(real.rstrip(os.sep) + os.sep)


def _content(path: str, size: int = -1) -> bytes:
    with open(path, "rb") as file:
        return file.read(size)


def archive_entries(archive: Path | IO[bytes], *, max_bytes: int = MAX_BYTES) -> list[Entry]:
    """The files in a ZIP, by name; it stays open for as long as one of them is kept.

    Reading one raises OSError where it is encrypted, damaged, or larger than ``max_bytes``.

    Raises:
        SetError: it is no sound ZIP, or holds a name whose encoding cannot be known, or one outside of it.
    """
    try:
        opened = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise SetError(f"it is not a sound ZIP: {error}") from error
    return sorted(_members(opened, max_bytes), key=lambda entry: entry.name)


def _members(opened: zipfile.ZipFile, max_bytes: int) -> Iterator[Entry]:
    for info in opened.infolist():
        name = archive_name(info)
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in name.split("/")[0]:
            raise SetError(f"{name!r} leads out of the ZIP: paths in it must be relative and without ..")
        if name.endswith("/") or clutter(name):
            continue
        whole = partial(_member, opened, info, min(info.file_size, max_bytes), info.file_size > max_bytes)
        yield Entry(str(path), whole, partial(_member, opened, info, HEAD_BYTES, False), (info.file_size, info.CRC))


def _member(opened: zipfile.ZipFile, info: zipfile.ZipInfo, size: int, too_large: bool) -> bytes:
    if too_large:
        raise OSError(f"it has {info.file_size:,} bytes, more than any picture")
    try:
        with opened.open(info) as file:
            content = file.read(size)
            # What is read to its end is held to its checksum.
            if size == info.file_size and file.read(1):
                raise zipfile.BadZipFile("it is longer than it says")
            return content
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise OSError(f"it cannot be unpacked: {error}") from error


def archive_name(info: zipfile.ZipInfo) -> str:
    """A member's path with slashes, in the encoding that it was written in; folders end in one.

    Raises:
        SetError: the encoding cannot be known.
    """
    name = info.orig_filename
    if not info.flag_bits & 0x800 and not name.isascii():
        raw = name.encode("cp437")
        name = _told_in_unicode(info.extra, raw) or _as_utf8(raw, name)
    return name.replace("\\", "/")


def _told_in_unicode(extra: bytes, raw: bytes) -> str | None:
    """The name by Info-ZIP's extra field, which holds for the very name it was made of (its CRC)."""
    while len(extra) >= 4:
        kind, size = (int.from_bytes(extra[at : at + 2], "little") for at in (0, 2))
        if kind == _UNICODE_PATH and size > 5 and int.from_bytes(extra[5:9], "little") == zlib.crc32(raw):
            return extra[9 : 4 + size].decode("utf-8", "replace")
        extra = extra[4 + size :]
    return None


def _as_utf8(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SetError(
            f"the encoding of the name {name!r} cannot be known: rename it, or zip the set with a program that writes "
            "names in UTF-8"
        ) from error
