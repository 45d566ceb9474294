"""What each process of a service can serve, so that one that cannot serve what its siblings do gets no connection."""

from __future__ import annotations

import json
import os
from collections.abc import Set
from pathlib import Path


class Siblings:
    """This process among the processes of its service.

    Args:
        folder: theirs, where each has a file by its process id.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._told: Set[str] | None = None
        self._mine = folder / str(os.getpid())

    def tell(self, served: Set[str]) -> None:
        """Let the others know the models that can be served here."""
        if served == self._told:
            return
        written = self._mine.with_suffix(".new")
        written.write_text(json.dumps(sorted(served)))
        os.replace(written, self._mine)
        self._told = frozenset(served)

    def missing(self, served: Set[str]) -> set[str]:
        """Models that a living sibling serves and this process cannot."""
        found: set[str] = set()
        for path in self.folder.iterdir():
            if path != self._mine and path.name.isdecimal() and _lives(int(path.name)):
                try:
                    found.update(json.loads(path.read_text()))
                except FileNotFoundError:
                    continue
        return found - served

    @staticmethod
    def forget(folder: Path, process: int) -> None:
        """Drop what a process had told that is no more."""
        (folder / str(process)).unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
