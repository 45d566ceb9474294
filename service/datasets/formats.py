"""The formats of data sets: each is one file beside this one, and its row in the table.

A writer holds one row group at most, whatever the number of rows; the zip also keeps thirteen bytes a row for its
directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.datasets.npz import NpzWriter
from service.datasets.parquet import ParquetWriter
from service.datasets.span import Span
from service.datasets.tar import TarWriter
from service.datasets.zip import ZipWriter

Images = NDArray[np.uint8]
Format = Literal["tar", "parquet", "npz", "zip"]

# Raise it when the bytes of a format change: it is part of every entity tag.
LAYOUT = "2"


class Writer(Protocol):
    """A file that is written front to back.

    Attributes:
        length: bytes of the whole file, where they are known in advance.
    """

    length: int | None

    def head(self) -> Iterator[bytes]:
        """What comes before the first image."""

    def prepare(self, start: int, images: Images) -> Any:
        """The dear part of encoding the rows from ``start`` on; without state, so parts go side by side."""

    def add(self, prepared: Any) -> bytes:
        """The next bytes; called in the order of the rows."""

    def tail(self) -> Iterator[bytes]:
        """What comes after the last image."""


class Kind(NamedTuple):
    """A format: its media type, its writer, and the package that its bytes also depend on."""

    media: str
    writer: Callable[[Span], Writer]
    package: str | None = None


FORMATS: dict[Format, Kind] = {
    "tar": Kind("application/x-tar", TarWriter),
    "parquet": Kind("application/vnd.apache.parquet", ParquetWriter, "pyarrow"),
    "npz": Kind("application/x-npz", NpzWriter),
    "zip": Kind("application/zip", ZipWriter),
}


def writer(form: Format, span: Span) -> Writer:
    """The writer of a format. Raises ImportError for parquet without pyarrow."""
    return FORMATS[form].writer(span)
