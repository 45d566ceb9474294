"""``npz``: numpy's arrays."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ganserve import encode
from service.datasets.archive import Archive
from service.datasets.span import Span


class NpzWriter:
    """Arrays ``labels`` int64 [n] (-1 without classes), ``seeds`` uint64 [n] and ``images`` uint8 [n, h, w, c].

    Before them the mark, and ``address``, text: the rows in JSON.
    """

    def __init__(self, span: Span) -> None:
        self.span = span
        shape = span.card.image
        n = span.n
        self._arrays: list[tuple[str, bytes, int]] = []
        for name, dtype, dimensions in (
            ("labels", np.dtype(np.int64), (n,)),
            ("seeds", np.dtype(np.uint64), (n,)),
            ("images", np.dtype(np.uint8), (n, shape.height, shape.width, shape.channels)),
        ):
            header = io.BytesIO()
            described = {
                "descr": np.lib.format.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": dimensions,
            }
            np.lib.format.write_array_header_1_0(header, described)
            size = len(header.getvalue()) + int(np.prod(dimensions, dtype=object)) * dtype.itemsize
            self._arrays.append((f"{name}.npy", header.getvalue(), size))
        told = encode.npy(np.asarray(json.dumps(span.told(), ensure_ascii=False)))
        self._texts = {"address.npy": told, **encode.MARK_ARRAYS}
        self._zip = Archive()
        self._names = [name.encode() for name in (*self._texts, *(name for name, _, _ in self._arrays))]
        sizes = [*map(len, self._texts.values()), *(size for _, _, size in self._arrays)]
        self.length: int | None = Archive.length(self._names, sizes)

    def head(self) -> Iterator[bytes]:
        """All but the pixels."""
        for name, content in self._texts.items():
            yield self._zip.begin(name.encode(), len(content)) + self._zip.feed(content) + self._zip.end()
        for name, pick in (("labels.npy", self._labels), ("seeds.npy", self._seeds)):
            yield self._begin(name)
            for start, count in self.span.blocks():
                yield self._zip.feed(pick(start, count))
            yield self._zip.end()
        yield self._begin("images.npy")

    def prepare(self, start: int, images: NDArray[np.uint8]) -> bytes:
        """The pixels."""
        return images.tobytes()

    def add(self, prepared: bytes) -> bytes:
        """The same."""
        return self._zip.feed(prepared)

    def tail(self) -> Iterator[bytes]:
        """The directory."""
        yield self._zip.end()
        yield from self._zip.directory(iter(self._names), b"")

    def _begin(self, name: str) -> bytes:
        header, size = next((header, size) for found, header, size in self._arrays if found == name)
        return self._zip.begin(name.encode(), size) + self._zip.feed(header)

    def _labels(self, start: int, count: int) -> bytes:
        labels = self.span.rows(start, count)[1]
        return (labels if labels is not None else np.full(count, -1, np.int64)).astype("<i8").tobytes()

    def _seeds(self, start: int, count: int) -> bytes:
        return self.span.rows(start, count)[0].astype("<u8").tobytes()
