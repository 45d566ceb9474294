"""The models that an admin has unloaded: the same for all processes of a service, and for those that start later.

A file a name in a folder that they share, and beside them a count of changes in memory that they share too: a look at
that costs a request nothing, and the folder is read again only when it has moved.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_COUNT_BYTES = 8
# No name of a model begins so.
_COUNT = ".changes"


class Unloaded:
    """A set of names. Used on the event loop only.

    Args:
        folder: where the processes of a service keep it; None for one that is alone.
        follow: called with each name that came in, by whomever, as soon as this process sees it.
    """

    def __init__(self, folder: Path | None = None, follow: Callable[[str], None] | None = None) -> None:
        self.folder, self._follow = folder, follow
        self._names: set[str] = set()
        self._count: mmap.mmap | None = None
        self._seen = b""
        if folder is not None:
            with open(os.open(folder / _COUNT, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
                file.truncate(_COUNT_BYTES)
                self._count = mmap.mmap(file.fileno(), _COUNT_BYTES)

    def __contains__(self, name: object) -> bool:
        self.look()
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        self.look()
        return iter(self._names)

    def add(self, name: str) -> None:
        """Unload a model, in every process."""
        if self.folder is None:
            self._change(self._names | {name})
            return
        with self._changing():
            (self.folder / name).touch()
        self.look()

    def discard(self, name: str) -> None:
        """Let a model be loaded again, in every process."""
        if self.folder is None:
            self._names.discard(name)
            return
        with self._changing():
            (self.folder / name).unlink(missing_ok=True)
        self.look()

    def look(self) -> None:
        """See what other processes have changed."""
        if self._count is None or self.folder is None or (now := self._count[:]) == self._seen:
            return
        # Noted before the folder is read: what comes meanwhile is seen the next time.
        self._seen = now
        self._change({name for name in os.listdir(self.folder) if name != _COUNT})

    def _change(self, names: set[str]) -> None:
        new, self._names = names - self._names, names
        if self._follow is not None:
            for name in new:
                self._follow(name)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        import fcntl

        assert self.folder is not None
        assert self._count is not None
        with open(self.folder / _COUNT, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
            self._count[:] = (int.from_bytes(self._count[:], "little") + 1).to_bytes(_COUNT_BYTES, "little")
