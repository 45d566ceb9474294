"""``parquet``: the columns of Hugging Face's images and labels. Needs pyarrow."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganserve import marks
from service.datasets.span import Span

GROUP_ROWS = 1000
GROUP_BYTES = 8 << 20
TEXTS = ("address", "digital_source_type")


class ParquetWriter:
    """Columns ``image`` (struct of bytes and path, as Hugging Face's Image) and ``label`` (ClassLabel).

    Without classes there is no label column. The path is the row's number. ``address`` names the row and
    ``digital_source_type`` is the mark; the file's metadata holds both of the whole.
    """

    length: int | None = None

    def __init__(self, span: Span) -> None:
        import pyarrow
        import pyarrow.parquet

        self._arrow, self.span = pyarrow, span
        card = span.card
        features: dict[str, Any] = {"image": {"_type": "Image"}}
        fields = [("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))]
        if card.conditional:
            features["label"] = {"names": list(card.classes), "_type": "ClassLabel"}
            fields.append(("label", pyarrow.int64()))
        for name in TEXTS:
            features[name] = {"dtype": "string", "_type": "Value"}
            fields.append((name, pyarrow.string()))
        self._schema = pyarrow.schema(
            fields,
            metadata={
                "huggingface": json.dumps({"info": {"features": features}}),
                "ganserve": json.dumps(span.told()),
            },
        )
        self._sink = _Sink()
        self._file = pyarrow.parquet.ParquetWriter(
            self._sink,
            self._schema,
            compression="none",
            # One value, and values that differ at their ends: neither costs more than a few bytes a row.
            use_dictionary=["digital_source_type"],
            column_encoding={"address": "DELTA_BYTE_ARRAY"},
            write_statistics=False,
        )
        shape = card.image
        size = shape.height * shape.width * shape.channels
        self._group = max(1, min(GROUP_ROWS, GROUP_BYTES // size))
        self._pngs: list[bytes] = []
        self._at = span.offset

    def head(self) -> Iterator[bytes]:
        """The mark."""
        yield self._sink.drain()

    def prepare(self, start: int, images: NDArray[np.uint8]) -> list[bytes]:
        """PNGs."""
        return [marks.row(pixels) for pixels in images]

    def add(self, prepared: list[bytes]) -> bytes:
        """The row groups that are full."""
        self._pngs += prepared
        while len(self._pngs) >= self._group:
            self._write(self._group)
        return self._sink.drain()

    def tail(self) -> Iterator[bytes]:
        """The last row group and the footer."""
        if self._pngs:
            self._write(len(self._pngs))
        self._file.close()
        yield self._sink.drain()

    def _write(self, count: int) -> None:
        arrow = self._arrow
        pngs, self._pngs = self._pngs[:count], self._pngs[count:]
        _, labels = self.span.rows(self._at, count)
        paths = [f"{row:09d}.png" for row in range(self._at, self._at + count)]
        kind = self._schema.field("image").type
        pair = [arrow.array(pngs, arrow.binary()), arrow.array(paths, arrow.string())]
        columns = [arrow.StructArray.from_arrays(pair, fields=list(kind))]
        if labels is not None:
            columns.append(arrow.array(labels, arrow.int64()))
        texts = {
            "address": self.span.addresses(self._at, count),
            "digital_source_type": [marks.SOURCE_TYPE] * count,
        }
        columns += [arrow.array(texts[name]) for name in TEXTS]
        self._file.write_table(arrow.Table.from_arrays(columns, schema=self._schema), row_group_size=count)
        self._at += count


class _Sink(io.RawIOBase):
    """Bytes written since they were last taken."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._parts.append(content)
        self._at += len(content)
        return len(content)

    def tell(self) -> int:
        return self._at

    def drain(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
