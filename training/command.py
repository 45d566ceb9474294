"""What the commands share: a bad input is one sentence on standard error and exit status 2, never a traceback."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from typing import Protocol

from ganserve.card import RepositoryError
from ganserve.events import BAD_INPUT
from ganserve.place import Place, place


class Main(Protocol):
    """A command: its arguments (None: those of the process) to its exit status."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Do it."""


def refuse(error: BaseException | str) -> int:
    """Say it in one line; the exit status of bad input."""
    # Names of files may be no UTF-8.
    said = str(error).encode(errors="backslashreplace").decode()
    print(f"error: {' '.join(said.split()) or type(error).__name__}", file=sys.stderr)
    return BAD_INPUT


def ends(main: Main) -> Main:
    """A command's ``main`` whose errors about what it was given, and about files, end it with one sentence."""

    @functools.wraps(main)
    def ended(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except (OSError, ValueError, RepositoryError) as error:
            return refuse(error)

    return ended


def positive(text: str) -> int:
    """An option's whole number from 1 up."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1 up")
    return value


def where(text: str) -> Place:
    """An option's place: a folder, or the URL of an object store."""
    try:
        return place(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def version_of(text: str) -> tuple[str, int | None]:
    """``NAME`` or ``NAME:VERSION``. Raises ValueError for a version that is no number from 1 up."""
    name, colon, version = text.partition(":")
    if not colon:
        return name, None
    if not (version.isascii() and version.isdecimal() and int(version)):
        raise ValueError(f"{text!r} names no version: expected NAME:VERSION, such as {name or 'mnist-projgan'}:1")
    return name, int(version)
