"""The files of a set, each one's path and how to read it; those of a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ganserve import kinds

_MACHINES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "$recycle.bin"})
_MACHINES |= {"__macosx", "@eadir", "system volume information", "__pycache__", "lost+found"}
# What NAS and older systems call what was thrown away, and small copies.
_MACHINES |= {"#recycle", "@recycle", "recycler", "recycled", "#snapshot", "@__thumb", "thumbs.db:encryptable"}
# Folders in which tools keep pictures of their own.
_TOOLS = frozenset({".ipynb_checkpoints", ".thumbnails", ".thumb", ".thumbs", ".cache", ".trashes", ".picasaoriginals"})


class SetError(ValueError):
    """A set that cannot be read as labelled or unlabelled pictures; the message says what would be right."""


@dataclass(frozen=True)
class Entry:
    """One file: its path with slashes, below the set's root, and how to read it; ``mark`` is its size and times, or
    whatever else changes with its content."""

    name: str
    read: Callable[[], bytes] = field(repr=False, compare=False)
    head: Callable[[], bytes] = field(repr=False, compare=False)
    mark: tuple[int, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Which entries are pictures, and what their places say."""

    pictures: tuple[Entry, ...]
    labels: tuple[int, ...] | None  # of each picture
    classes: tuple[str, ...]
    splits: tuple[str, ...] | None  # of each picture
    skipped: tuple[tuple[str, int], ...] = ()  # why, and how many
    notices: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()  # columns of metadata among which that of labels cannot be told


def clutter(name: str) -> bool:
    """What is hidden, or what machines leave unasked, anywhere in a path."""
    return any(part.startswith(".") or part.lower() in _MACHINES for part in name.split("/"))


def hidden_above(parts: Sequence[str]) -> str | None:
    """The hidden folder that a file lies in, which may be a class, such as ``.net``; None for those of tools."""
    *above, folder, _ = ("", *parts)
    hidden = folder.startswith(".") and folder.lower() not in _TOOLS and not clutter("/".join(above))
    return "/".join((*above[1:], folder)) if hidden and not parts[-1].startswith(".") else None


def shown(name: str) -> str:
    """A file's name as text that can be printed and sent: bytes of no known encoding are written out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def folder_files(folder: Path) -> Iterator[tuple[str, str]]:
    """The files below a folder, by name, each with its path below it, with slashes; links are followed, but never round
    in a circle, and hidden folders are not entered.

    Raises:
        SetError: a folder in it cannot be read.
    """
    # Paths stay texts here: objects of them would take as long as decoding small pictures.
    root = os.path.join(folder, "")
    for place, folders, names in os.walk(root, followlinks=True, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not clutter(name) and not _circles(place, name))
        for name in sorted(names):
            path = os.path.join(place, name)
            yield path, shown(path[len(root) :].replace(os.sep, "/"))


def folder_entries(folder: Path) -> list[Entry]:
    """The files below a folder as :func:`folder_files` finds them. Raises SetError."""
    found = []
    for path, below in folder_files(folder):
        try:
            told = os.stat(path)
        except OSError:  # a link to nothing: whoever reads it says so by its name
            found.append(Entry(below, partial(_content, path), bytes))
            continue
        if stat.S_ISREG(told.st_mode):
            mark = mark_of(told)
            found.append(Entry(below, partial(_content, path), partial(_content, path, kinds.HEAD_BYTES), mark))
    return found


def said(error: Exception) -> str:
    """An error's words, without the number and the path of one of files."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def mark_of(told: os.stat_result) -> tuple[int, ...]:
    """What changes with a file's content: its size, and its times, of which nobody sets the last one back."""
    return told.st_size, told.st_mtime_ns, told.st_ctime_ns


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
