"""A data set is a range of addresses: rows of a model and version as tar, parquet, npz or zip, written as they come.

Row ``i`` of a data set that begins at seed ``s`` has seed ``(s + i) mod 2**53``; its label follows from ``i`` or from
its seed. So any part of a data set can be made without the rest, and equal requests give equal bytes. A writer holds
one row group at most, whatever the number of rows; the zip also keeps thirteen bytes a row for its directory.
"""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ganserve import png
from ganserve.card import ModelCard
from ganserve.latents import MAX_SEED, consecutive, philox4x32_10

Format = Literal["tar", "parquet", "npz", "zip"]
Images = NDArray[np.uint8]

# Raise it when the bytes of a format change: it is part of every entity tag.
LAYOUT = "1"
GROUP_ROWS = 1000
GROUP_BYTES = 8 << 20
_BLOCK_ROWS = 4096
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


@dataclass(frozen=True)
class Span:
    """Rows ``offset`` to ``offset + n`` of the data set of a model that begins at ``seed``.

    Attributes:
        balanced: the classes in turn; else each row's class is drawn from its seed.
    """

    card: ModelCard
    seed: int
    offset: int
    n: int
    balanced: bool

    def rows(self, start: int, count: int) -> tuple[NDArray[np.uint64], NDArray[np.int64] | None]:
        """Seeds uint64 [count] and labels int64 [count] (None without classes) of the rows from ``start`` on."""
        seeds = consecutive((self.seed + start) % MAX_SEED, count)
        classes = len(self.card.classes)
        if not self.card.conditional:
            return seeds, None
        if self.balanced:
            return seeds, (start % classes + np.arange(count, dtype=np.int64)) % classes
        return seeds, drawn_labels(seeds, classes)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """The rows as (start, count), some thousand at a time."""
        for start in range(self.offset, self.offset + self.n, _BLOCK_ROWS):
            yield start, min(_BLOCK_ROWS, self.offset + self.n - start)

    def told(self) -> dict[str, Any]:
        """What names the rows, for the inside of a file."""
        return {
            "model": self.card.name,
            "version": self.card.version,
            "latent_recipe": self.card.latent_recipe,
            "seed": self.seed,
            "offset": self.offset,
            "n": self.n,
            "balanced": self.balanced,
        }


def drawn_labels(seeds: NDArray[np.uint64], classes: int) -> NDArray[np.int64]:
    """A class drawn from each seed alone: int64 [n]. Word 0 of Philox at counter (0, 0, 0, 1), times classes / 2**32.

    Latents never reach that counter, so label and latent are independent.
    """
    key = np.stack([seeds & np.uint64(0xFFFFFFFF), seeds >> np.uint64(32)], axis=-1).astype(np.uint32)
    words = philox4x32_10(np.array([[0, 0, 0, 1]], np.uint32), key)[..., 0]
    return ((words.astype(np.uint64) * np.uint64(classes)) >> np.uint64(32)).astype(np.int64)


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


def writer(form: Format, span: Span) -> Writer:
    """The writer of a format. Raises ImportError for parquet without pyarrow."""
    kinds: dict[Format, Callable[[Span], Writer]] = {
        "tar": TarWriter,
        "parquet": ParquetWriter,
        "npz": NpzWriter,
        "zip": ZipWriter,
    }
    return kinds[form](span)


class TarWriter:
    """A WebDataset shard: ``000000042.png``, ``.cls`` and ``.json`` for row 42.

    Without its last 1024 bytes (the end mark) a shard can be joined to the next one, byte for byte.
    """

    length: int | None = None

    def __init__(self, span: Span) -> None:
        self.span = span

    def head(self) -> Iterator[bytes]:
        """Nothing."""
        return iter(())

    def prepare(self, start: int, images: Images) -> bytes:
        """The members of the rows."""
        card = self.span.card
        seeds, labels = self.span.rows(start, len(images))
        parts: list[bytes] = []
        for index, (pixels, seed) in enumerate(zip(images, seeds.tolist(), strict=True)):
            key = f"{start + index:09d}"
            meta: dict[str, Any] = {"model": card.name, "version": card.version, "seed": seed}
            members = [("png", png.encode(pixels))]
            where = "-"
            if labels is not None:
                label = int(labels[index])
                where = str(label)
                members.append(("cls", where.encode()))
                meta |= {"label": label, "class": card.classes[label]}
            meta["address"] = f"/images/{card.name}/{card.version}/{where}/{seed}.png"
            members.append(("json", json.dumps(meta, ensure_ascii=False).encode()))
            for suffix, content in members:
                header = _tar_header(f"{key}.{suffix}".encode(), len(content))
                parts += [header, content, bytes(-len(content) % tarfile.BLOCKSIZE)]
        return b"".join(parts)

    def add(self, prepared: bytes) -> bytes:
        """As prepared."""
        return prepared

    def tail(self) -> Iterator[bytes]:
        """Two empty blocks."""
        yield bytes(2 * tarfile.BLOCKSIZE)


_EMPTY_HEADER = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)


def _tar_header(name: bytes, size: int) -> bytes:
    """What ``tarfile.TarInfo.tobuf`` gives, ten times as fast: of three members a row it would cost twice the PNG."""
    header = bytearray(_EMPTY_HEADER)
    header[: len(name)] = name
    header[124:136] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    return bytes(header)


class ParquetWriter:
    """Columns ``image`` (struct of bytes and path, as Hugging Face's Image) and ``label`` (ClassLabel).

    Without classes there is no label column. The path is the row's number; the file's metadata holds the address.
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
        self._schema = pyarrow.schema(
            fields,
            metadata={
                "huggingface": json.dumps({"info": {"features": features}}),
                "ganserve": json.dumps(span.told()),
            },
        )
        self._sink = _Sink()
        self._file = pyarrow.parquet.ParquetWriter(
            self._sink, self._schema, compression="none", use_dictionary=False, write_statistics=False
        )
        shape = card.image
        size = shape.height * shape.width * shape.channels
        self._group = max(1, min(GROUP_ROWS, GROUP_BYTES // size))
        self._pngs: list[bytes] = []
        self._at = span.offset

    def head(self) -> Iterator[bytes]:
        """The mark."""
        yield self._sink.drain()

    def prepare(self, start: int, images: Images) -> list[bytes]:
        """PNGs."""
        return [png.encode(pixels) for pixels in images]

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
        self._file.write_table(arrow.Table.from_arrays(columns, schema=self._schema), row_group_size=count)
        self._at += count


class NpzWriter:
    """Arrays ``labels`` int64 [n] (-1 without classes), ``seeds`` uint64 [n] and ``images`` uint8 [n, h, w, c]."""

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
        self._zip = _Zip()
        names = [name.encode() for name, _, _ in self._arrays]
        sizes = [size for _, _, size in self._arrays]
        self.length: int | None = _Zip.length(names, sizes)

    def head(self) -> Iterator[bytes]:
        """All but the pixels."""
        for name, pick in (("labels.npy", self._labels), ("seeds.npy", self._seeds)):
            yield self._begin(name)
            for start, count in self.span.blocks():
                yield self._zip.feed(pick(start, count))
            yield self._zip.end()
        yield self._begin("images.npy")

    def prepare(self, start: int, images: Images) -> bytes:
        """The pixels."""
        return images.tobytes()

    def add(self, prepared: bytes) -> bytes:
        """The same."""
        return self._zip.feed(prepared)

    def tail(self) -> Iterator[bytes]:
        """The directory."""
        yield self._zip.end()
        names = [name.encode() for name, _, _ in self._arrays]
        yield from self._zip.directory(iter(names), b"")

    def _begin(self, name: str) -> bytes:
        header, size = next((header, size) for found, header, size in self._arrays if found == name)
        return self._zip.begin(name.encode(), size) + self._zip.feed(header)

    def _labels(self, start: int, count: int) -> bytes:
        labels = self.span.rows(start, count)[1]
        return (labels if labels is not None else np.full(count, -1, np.int64)).astype("<i8").tobytes()

    def _seeds(self, start: int, count: int) -> bytes:
        return self.span.rows(start, count)[0].astype("<u8").tobytes()


class ZipWriter:
    """A folder a class, one PNG a row: ``seven/000000042.png``; or without classes no folder. The comment holds
    the address.
    """

    length: int | None = None

    def __init__(self, span: Span) -> None:
        self.span = span
        self._folders = [f"{name}/" for name in folder_names(span.card.classes)] if span.card.conditional else []
        self._zip = _Zip()
        self._row = span.offset

    def head(self) -> Iterator[bytes]:
        """Nothing."""
        return iter(())

    def prepare(self, start: int, images: Images) -> list[tuple[bytes, bytes, int]]:
        """Name, PNG and checksum of each row."""
        pngs = [png.encode(pixels) for pixels in images]
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


class _Zip:
    """Stored entries without the time of day, of which size and checksum alone are kept.

    zipfile keeps some 500 bytes an entry, and hides the sizes of all entries from readers that stream; so this writes
    the format itself (PKWARE's APPNOTE 6.3, sections 4.3 and 4.5.3).
    """

    _MOST = 0xFFFFFFFF
    _UTF8, _DESCRIBED_AFTER = 0x0800, 0x0008
    _DATE = 0x0021  # the first day of 1980, the earliest there is
    _MODE = 0o100644 << 16

    def __init__(self) -> None:
        self._sizes = array("Q")
        self._checksums = array("I")
        self._flags = array("B")
        self._at = 0
        self._size = self._crc = 0

    def whole(self, name: bytes, content: bytes, crc: int) -> bytes:
        """An entry of which everything is known; under 4 GiB."""
        header = self._local(name, 0, crc, len(content))
        self._note(crc, len(content), after=False)
        self._at += len(header) + len(content)
        return header + content

    def begin(self, name: bytes, size: int) -> bytes:
        """The start of an entry of ``size`` bytes, whose checksum is not known yet."""
        header = self._local(name, self._DESCRIBED_AFTER, 0, size)
        self._size, self._crc = size, 0
        self._at += len(header)
        return header

    def feed(self, content: bytes) -> bytes:
        """The next bytes of that entry."""
        self._crc = zlib.crc32(content, self._crc)
        self._at += len(content)
        return content

    def end(self) -> bytes:
        """The end of that entry."""
        form = "<4sLQQ" if self._size >= self._MOST else "<4sLLL"
        found = struct.pack(form, b"PK\x07\x08", self._crc, self._size, self._size)
        self._note(self._crc, self._size, after=True)
        self._at += len(found)
        return found

    def _note(self, crc: int, size: int, *, after: bool) -> None:
        self._sizes.append(size)
        self._checksums.append(crc)
        self._flags.append(after)

    def _local(self, name: bytes, flags: int, crc: int, size: int) -> bytes:
        large = size >= self._MOST
        # What is told after the content is nought here; readers learn from the extra field that it has 64 bits.
        told = self._MOST if large else 0 if flags else size
        extra = struct.pack("<HHQQ", 1, 16, 0, 0) if large else b""
        version = 45 if large else 20
        return (
            struct.pack(
                "<4sHHHHHLLLHH",
                b"PK\x03\x04", version, flags | self._UTF8, 0, 0, self._DATE, crc, told, told, len(name), len(extra),
            )
            + name
            + extra
        )  # fmt: skip

    def directory(self, names: Iterator[bytes], comment: bytes) -> Iterator[bytes]:
        """The central directory, some thousand entries at a time; ``names`` in the order of the entries."""
        began = self._at
        count = len(self._sizes)
        at = 0
        parts: list[bytes] = []
        for name, size, crc, after in zip(names, self._sizes, self._checksums, self._flags, strict=True):
            flags = self._UTF8 | (self._DESCRIBED_AFTER if after else 0)
            extra = self._extra(size, at)
            version = 45 if extra else 20
            told, place = min(size, self._MOST), min(at, self._MOST)
            parts += [
                struct.pack(
                    "<4sHHHHHHLLLHHHHHLL",
                    b"PK\x01\x02", 3 << 8 | version, version, flags, 0, 0, self._DATE, crc, told, told,
                    len(name), len(extra), 0, 0, 0, self._MODE, place,
                ),
                name,
                extra,
            ]  # fmt: skip
            at += self._entry_length(name, size, after=bool(after))
            if len(parts) >= 3 * _BLOCK_ROWS:
                self._at += sum(map(len, parts))
                yield b"".join(parts)
                parts = []
        self._at += sum(map(len, parts))
        size = self._at - began
        if count >= 0xFFFF or began >= self._MOST or size >= self._MOST:
            parts += [
                struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 3 << 8 | 45, 45, 0, 0, count, count, size, began),
                struct.pack("<4sLQL", b"PK\x06\x07", 0, self._at, 1),
            ]
        few, size, began = min(count, 0xFFFF), min(size, self._MOST), min(began, self._MOST)
        parts.append(struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, few, few, size, began, len(comment)) + comment)
        yield b"".join(parts)

    @classmethod
    def _extra(cls, size: int, at: int) -> bytes:
        large = [size, size] if size >= cls._MOST else []
        large += [at] if at >= cls._MOST else []
        return struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""

    @classmethod
    def _entry_length(cls, name: bytes, size: int, *, after: bool) -> int:
        large = size >= cls._MOST
        return 30 + len(name) + (20 if large else 0) + size + ((24 if large else 16) if after else 0)

    @classmethod
    def length(cls, names: list[bytes], sizes: list[int]) -> int:
        """Bytes of an archive of few entries, each described after its content, and no comment."""
        at = directory = 0
        for name, size in zip(names, sizes, strict=True):
            directory += 46 + len(name) + len(cls._extra(size, at))
            at += cls._entry_length(name, size, after=True)
        return at + directory + (76 if at >= cls._MOST else 0) + 22
