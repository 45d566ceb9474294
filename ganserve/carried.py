"""What a picture's file carries: its size, its texts, and the parts that its pixels need; by its bytes alone.

Nothing is decoded here, and nothing is unpacked: texts of any length, samples, profiles and previews are passed over by
their lengths, so a file costs no more than its bytes, whatever it says of itself. PNG (ISO/IEC 15948) and WebP
(RFC 9649) are read, as these are what the service writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from PIL import Image

from ganserve import png
from ganserve.address import LABEL, MODEL, RECIPE, SEED, TRUNCATION, VERSION
from ganserve.marks import ADDRESS_KEY, EXIF_ADDRESS
from ganserve.pictures import QUIET, PictureError, TooManyPixels

MAX_BYTES = 4 << 20
# An encoder that is in its senses writes a few hundred.
_PARTS = 4096
_TEXTS = frozenset({ADDRESS_KEY, MODEL, VERSION, SEED, RECIPE, LABEL, TRUNCATION})
_ANIMATED = "is an animation: send one still picture"
# What decides on the pixels of a PNG.
_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_ANIMATES = frozenset({b"acTL", b"fcTL", b"fdAT", b"ANIM", b"ANMF"})
_EXIF_BYTES = 1 << 20


@dataclass(frozen=True)
class Carried:
    """A still picture.

    Attributes:
        width, height: in pixels, as its header says.
        texts: what it says of its address, by name; other texts are left out.
        bare: the same picture without anything that its pixels do not need.
    """

    width: int
    height: int
    texts: Mapping[str, str]
    bare: bytes


def read(content: bytes, *, max_pixels: int, max_bytes: int = MAX_BYTES) -> Carried:
    """What a file carries.

    Raises:
        PictureError: neither PNG nor WebP, cut off, an animation, or told twice.
        TooManyPixels: more bytes or pixels than are taken.
    """
    if len(content) > max_bytes:
        raise TooManyPixels(f"has {len(content)} bytes: at most {max_bytes} are taken")
    if content.startswith(png.SIGNATURE):
        found = _png(content)
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        found = _webp(content)
    else:
        raise PictureError("is neither PNG nor WebP: send the bytes of the file as they are")
    if not 0 < found.width * found.height <= max_pixels:
        raise TooManyPixels(f"has {found.width} x {found.height} pixels: at most {max_pixels} are taken")
    return found


def _png(content: bytes) -> Carried:
    texts: dict[str, str] = {}
    bare = [png.SIGNATURE]
    size = b""
    for kind, start, end in _chunks(content):
        if kind in _NEEDED:
            bare.append(content[start - 8 : end + 4])
        if kind == b"IHDR":
            size = size or content[start:end]
        elif kind == b"tEXt":
            _note(texts, *_split(content[start : min(end, start + 80)], content, start, end))
        elif kind == b"iTXt":
            _international(texts, content[start:end])
    if len(size) < 8 or bare[-1][4:8] != b"IEND":
        raise PictureError("is cut off, or no PNG")
    return Carried(int.from_bytes(size[:4], "big"), int.from_bytes(size[4:8], "big"), texts, b"".join(bare))


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and where the data begins and ends, of each chunk to the last."""
    at = len(png.SIGNATURE)
    for _ in range(_PARTS):
        kind = content[at + 4 : at + 8]
        start = at + 8
        end = start + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content):
            raise PictureError("is cut off")
        if kind in _ANIMATES:
            raise PictureError(_ANIMATED)
        yield kind, start, end
        if kind == b"IEND":
            return
        at = end + 4
    raise PictureError(f"has more than {_PARTS} parts")


def _split(head: bytes, content: bytes, start: int, end: int) -> tuple[str, bytes]:
    """The keyword of a text, and its value where it is one of those that count."""
    keyword = head.partition(b"\0")[0].decode("latin-1")
    return keyword, content[start + len(keyword) + 1 : end] if keyword in _TEXTS else b""


def _international(texts: dict[str, str], data: bytes) -> None:
    """An uncompressed text of UTF-8: a class's name can have any letters."""
    keyword, _, rest = data.partition(b"\0")
    if keyword.decode("latin-1") in _TEXTS and rest[:1] == b"\0":
        parts = rest[2:].split(b"\0", 2)
        if len(parts) == 3:
            _note(texts, keyword.decode("latin-1"), parts[2], "utf-8")


def _note(texts: dict[str, str], name: str, value: bytes, encoding: str = "latin-1") -> None:
    if name not in _TEXTS:
        return
    if name in texts:
        raise PictureError(f"says {name} twice")
    texts[name] = value.decode(encoding, "replace")


def _webp(content: bytes) -> Carried:
    length = 8 + int.from_bytes(content[4:8], "little")
    if length > len(content):
        raise PictureError("is cut off")
    kept: dict[bytes, bytes] = {}
    at = 12
    for _ in range(_PARTS):
        if at + 8 > length:
            break
        kind, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if at + 8 + size > length:
            raise PictureError("is cut off")
        if kind in _ANIMATES:
            raise PictureError(_ANIMATED)
        kept.setdefault(kind, content[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    else:
        raise PictureError(f"has more than {_PARTS} parts")
    width, height = _webp_size(kept)
    texts = {} if b"EXIF" not in kept else _of_exif(kept[b"EXIF"])
    return Carried(width, height, texts, _webp_of(kept, width, height))


def _webp_size(parts: Mapping[bytes, bytes]) -> tuple[int, int]:
    """The size that the pixels themselves have."""
    if (lossless := parts.get(b"VP8L", b""))[:1] == b"\x2f" and len(lossless) >= 5:
        bits = int.from_bytes(lossless[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if (lossy := parts.get(b"VP8 ", b""))[3:6] == b"\x9d\x01\x2a" and len(lossy) >= 10:
        width, height = (int.from_bytes(lossy[at : at + 2], "little") & 0x3FFF for at in (6, 8))
        if width and height:
            return width, height
    raise PictureError("is cut off, or no WebP")


def _webp_of(parts: Mapping[bytes, bytes], width: int, height: int) -> bytes:
    """The pixels alone, and their opacity where that stands apart, on a canvas of their own size."""
    pixels = next(kind for kind in (b"VP8L", b"VP8 ") if kind in parts)
    kinds = [pixels]
    if pixels == b"VP8 " and b"ALPH" in parts and b"VP8X" in parts:
        kinds = [b"VP8X", b"ALPH", pixels]
    body = b"WEBP"
    for kind in kinds:
        data = parts[kind]
        if kind == b"VP8X":
            data = b"\x10\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        body += kind + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _of_exif(data: bytes) -> dict[str, str]:
    if len(data) > _EXIF_BYTES:
        return {}
    tags = Image.Exif()
    try:
        with QUIET:
            tags.load(data)
            told = tags.get(EXIF_ADDRESS)
    except Exception:  # EXIF is as free a form as any; without one the picture is unmarked
        return {}
    # Others use the tag for words of their own.
    return {ADDRESS_KEY: told} if isinstance(told, str) and told.startswith("model=") else {}
