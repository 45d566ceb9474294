"""ZIP archives written front to back, in thirteen bytes an entry of memory."""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterator

# Entries of the directory that go out together.
BLOCK_ENTRIES = 4096


class Archive:
    """Stored entries without the time of day, of which size and checksum alone are kept.

    zipfile keeps some 500 bytes an entry, and hides the sizes of all entries from readers that stream; so this writes
    the format itself (PKWARE's APPNOTE 6.3, sections 4.3 and 4.5.3).

    Args:
        comment: of each entry.
    """

    _MOST = 0xFFFFFFFF
    _UTF8, _DESCRIBED_AFTER = 0x0800, 0x0008
    _DATE = 0x0021  # the first day of 1980, the earliest there is
    _MODE = 0o100644 << 16

    def __init__(self, *, comment: bytes = b"") -> None:
        self._comment = comment
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
                    len(name), len(extra), len(self._comment), 0, 0, self._MODE, place,
                ),
                name,
                extra,
                self._comment,
            ]  # fmt: skip
            at += self._entry_length(name, size, after=bool(after))
            if len(parts) >= 4 * BLOCK_ENTRIES:
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
        """Bytes of an archive of few entries, each described after its content, and no comments."""
        at = directory = 0
        for name, size in zip(names, sizes, strict=True):
            directory += 46 + len(name) + len(cls._extra(size, at))
            at += cls._entry_length(name, size, after=True)
        return at + directory + (76 if at >= cls._MOST else 0) + 22
