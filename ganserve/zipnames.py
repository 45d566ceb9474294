"""What an entry of a ZIP archive is called, by the bytes of its name and the fields beside it."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

_UTF8 = 0x800
# MS-DOS, NTFS and VFAT (APPNOTE.TXT 4.4.2): names without the flag are of the machine's code page there, in which short
# ones may be sound UTF-8 by chance.
_PAGED = frozenset({0, 10, 14})


def fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """The extra fields, by number; what is broken ends them."""
    while len(extra) >= 4:
        number, length = struct.unpack("<HH", extra[:4])
        if len(extra) < 4 + length:
            return
        yield number, extra[4 : 4 + length]
        extra = extra[4 + length :]


def name_of(raw: bytes, flags: int, extra: bytes, system: int) -> tuple[str, bool, bool]:
    """The name with slashes, whether its encoding is known, and whether the archive tells it; ``system`` is the one
    that the archive says it was made on."""
    told = None if flags & _UTF8 else _info_zip(raw, extra)
    by_page = system in _PAGED and not (told or flags & _UTF8 or raw.isascii())
    try:
        name = told or raw.decode("ascii" if by_page else "utf-8")
    except UnicodeDecodeError:
        # A backslash of the replacement is no separator.
        return raw.decode("utf-8", "backslashreplace"), False, False
    return _plain(name.replace("\\", "/")), True, told is not None or bool(flags & _UTF8) or raw.isascii()


def _plain(name: str) -> str:
    """Without ``./`` and doubled slashes, which some programs write; a slash at either end means something."""
    return re.sub(r"^\./(?=.)", "", re.sub(r"/(?:\.?/)+", "/", name))


def _info_zip(raw: bytes, extra: bytes) -> str | None:
    """The name in Info-ZIP's extra field 0x7075, if it is this name's: version, CRC-32 of the plain name, UTF-8."""
    for number, content in fields(extra):
        if number == 0x7075 and content[:1] == b"\1" and content[1:5] == zlib.crc32(raw).to_bytes(4, "little"):
            try:
                return content[5:].decode("utf-8")
            except UnicodeDecodeError:
                return None
    return None
