"""``zip``: a folder a class, one PNG a row."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ganserve import marks
from service.datasets.archive import Archive
from service.datasets.span import Span

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


class ZipWriter:
    """A folder a class, one PNG a row: ``seven/000000042.png``; or without classes no folder. The comment holds
    the address and the mark; that of each entry, the mark's last word.
    """

    length: int | None = None

    def __init__(self, span: Span) -> None:
        self.span = span
        self._folders = [f"{name}/" for name in folder_names(span.card.classes)] if span.card.conditional else []
        self._zip = Archive(comment=marks.SOURCE_TYPE.rpartition("/")[2].encode())
        self._row = span.offset

    def head(self) -> Iterator[bytes]:
        """Nothing."""
        return iter(())

    def prepare(self, start: int, images: NDArray[np.uint8]) -> list[tuple[bytes, bytes, int]]:
        """Name, PNG and checksum of each row."""
        pngs = [marks.row(pixels) for pixels in images]
        names = self._names(start, len(images))
        return [(name, png, zlib.crc32(png)) for name, png in zip(names, pngs, strict=True)]

    def add(self, prepared: list[tuple[bytes, bytes, int]]) -> bytes:
        """The entries."""
        return b"".join(self._zip.whole(name, png, crc) for name, png, crc in prepared)

    def tail(self) -> Iterator[bytes]:
        """The directory."""
        names = (name for start, count in self.span.blocks() for name in self._names(start, count))
        yield from self._zip.directory(names, json.dumps(self.span.told(), ensure_ascii=False).encode())

    def _names(self, start: int, count: int) -> list[bytes]:
        _, labels = self.span.rows(start, count)
        if labels is None:
            return [f"{row:09d}.png".encode() for row in range(start, start + count)]
        return [
            f"{self._folders[label]}{start + index:09d}.png".encode() for index, label in enumerate(labels.tolist())
        ]


def folder_names(classes: list[str]) -> list[str]:
    """A folder for each class: its name, where file systems take it; never two alike, in any case of letters."""
    found: list[str] = []
    taken: set[str] = set()
    for index, name in enumerate(classes):
        folder = _FORBIDDEN.sub("_", name).strip(" .") or str(index)
        if folder.casefold() in taken:
            folder = f"{folder}_{index}"
        while folder.casefold() in taken:
            folder += "_"
        taken.add(folder.casefold())
        found.append(folder)
    return found
