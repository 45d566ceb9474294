"""The bytes of one entry of a ZIP archive, never more of them than are asked for."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib

# Numbers of APPNOTE.TXT 6.3.10, section 4.4.5.
STORED, DEFLATE, BZIP2, LZMA, AES = 0, 8, 12, 14, 99
# fmt: off
METHODS = {
    1: "Shrink", 6: "Implode", 9: "Deflate64", 10: "PKWARE's Implode", 18: "IBM TERSE", 19: "IBM LZ77", 20: "Zstandard",
    93: "Zstandard", 94: "MP3", 95: "XZ", 96: "JPEG", 97: "WavPack", 98: "PPMd",
}
# fmt: on
READ = (STORED, DEFLATE, BZIP2, LZMA)


class Damaged(ValueError):  # noqa: N818
    """An entry whose bytes are not those that were packed; the message says what is wrong."""


def unpack(method: int, packed: bytes, most: int) -> bytes:
    """At most ``most`` bytes of what was packed. Raises Damaged."""
    try:
        if method == STORED:
            return packed[:most]
        if method == DEFLATE:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)
        if method == BZIP2:
            return bz2.BZ2Decompressor().decompress(packed, most)
        return _unlzma(packed, most)
    except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError, struct.error) as error:
        raise Damaged(f"cannot be unpacked: {error or 'its bytes are damaged'}") from error


def _unlzma(packed: bytes, most: int) -> bytes:
    _, length, properties, dictionary = struct.unpack("<2sHBI", packed[:9])
    rest, lc = divmod(properties, 9)
    pb, lp = divmod(rest, 5)
    # No more can be referred to than was unpacked, and a stranger names the memory that is taken.
    size = max(4096, min(dictionary, most))
    filters = [{"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": size}]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(packed[4 + length :], most)
