"""Archives for tests: sound ones by zipfile, odd ones by hand."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image


def picture(seed: int = 0, size: int = 8, kind: str = "PNG") -> bytes:
    """Noise in colour."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """As Python writes it; names as they are, with backslashes too."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as opened:
        for path, content in members.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = path, compression
            opened.writestr(info, content)
    return buffer.getvalue()


@dataclass
class Entry:
    """One stored file; ``extra`` stands in the directory, ``local`` in front of the bytes."""

    name: bytes
    content: bytes
    flags: int = 0
    method: int = 0
    needed: int = 20
    extra: bytes = b""
    at: int | None = None
    packed: int | None = None
    size: int | None = None
    mode: int = 0o100644
    local: bool = True
    system: int = 3


def by_hand(*entries: Entry, count: int | None = None, before: bytes = b"", after: bytes = b"") -> bytes:
    """An archive of these entries; ``count`` is what its end tells."""
    body, directory = before, b""
    for one in entries:
        crc, length = zlib.crc32(one.content), len(one.content)
        packed = length if one.packed is None else one.packed
        size = length if one.size is None else one.size
        at = len(body) - len(before) if one.at is None else one.at
        if one.local:
            header = (b"PK\3\4", one.needed, one.flags, one.method, 0, 33, crc, packed, size, len(one.name), 0)
            body += struct.pack("<4s5H3I2H", *header) + one.name + one.content
        made = one.system << 8 | 20
        fields = (b"PK\1\2", made, one.needed, one.flags, one.method, 0, 33, crc, packed, size, len(one.name))
        rest = (len(one.extra), 0, 0, 0, one.mode << 16, at)
        directory += struct.pack("<4s6H3I5H2I", *fields, *rest) + one.name + one.extra
    told = len(entries) if count is None else count
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, told, told, len(directory), len(body) - len(before), 0)
    return body + directory + end + after
