"""Whole numbers by name, of this process or added up over all that share a folder.

Each process has a file of its own, mapped into memory, and adds to that alone; who reads takes the files of all. What
a process that has ended counted stays. A file is the number of bytes in use (int64), then for each name: its length
(int64), the name in UTF-8 padded to eight bytes, a count (int64), and a sum (int64), all little-endian.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_WORD = struct.Struct("<q")
_PAIR = struct.Struct("<qq")
# A file grows by doubling; what is not used takes no room on the disk.
_FIRST_BYTES = 1 << 16


class Figures:
    """Pairs of a count and a sum. Not locked: callers see to that.

    Args:
        folder: that of all processes; None for one that is alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._values: dict[str, list[int]] = {}
        self._places: dict[str, int] = {}
        self._used = _WORD.size
        self._map: mmap.mmap | None = None
        if folder is not None:
            # Ids of processes come again.
            self._path = folder / f"{os.getpid()}-{os.urandom(8).hex()}"
            self._grow(_FIRST_BYTES)

    def add(self, name: str, count: int, total: int) -> None:
        """Add to both."""
        value = self._values.get(name)
        if value is None:
            value = self._values[name] = [0, 0]
            self._place(name)
        value[0] += count
        value[1] += total
        if self._map is not None:
            _PAIR.pack_into(self._map, self._places[name], *value)

    def all(self) -> dict[str, list[tuple[int, int]]]:
        """The pairs of each name, one for each process that has it."""
        found: dict[str, list[tuple[int, int]]] = {}
        if self.folder is None:
            return {name: [(count, total)] for name, (count, total) in self._values.items()}
        for path in self.folder.iterdir():
            for name, count, total in _read(path.read_bytes()):
                found.setdefault(name, []).append((count, total))
        return found

    def _place(self, name: str) -> None:
        """Make room for a name at the end of the file."""
        if self._map is None:
            return
        key = name.encode()
        padded = key.ljust(-(-len(key) // 8) * 8, b"\0")
        end = self._used + _WORD.size + len(padded) + _PAIR.size
        if end > len(self._map):
            self._grow(2 * len(self._map))
        _WORD.pack_into(self._map, self._used, len(key))
        start = self._used + _WORD.size
        self._map[start : start + len(padded)] = padded
        self._places[name] = start + len(padded)
        # Last, so that nobody reads half a record.
        self._used = end
        _WORD.pack_into(self._map, 0, end)

    def _grow(self, size: int) -> None:
        with open(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)


def _read(content: bytes) -> Iterator[tuple[str, int, int]]:
    at, end = _WORD.size, _WORD.unpack_from(content)[0] if content else 0
    while at < end:
        length = _WORD.unpack_from(content, at)[0]
        start = at + _WORD.size
        at = start + -(-length // 8) * 8
        yield content[start : start + length].decode(), *_PAIR.unpack_from(content, at)
        at += _PAIR.size
