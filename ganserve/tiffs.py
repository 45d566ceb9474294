"""TIFF as its writer meant it, in the places in which Pillow takes it otherwise."""

from __future__ import annotations

import sys
from typing import Any

from PIL import Image, ImagePalette, TiffImagePlugin

_BITS, _COLOURS, _PLANES, _EXTRA = 258, 320, 284, 338
_APART, _ASSOCIATED = 2, 1
# libtiff gives samples in the machine's own order, whatever the file's.
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF", "F;64F": "F;64NF", "F;64BF": "F;64NF"}

_LITTLE, _BIG = b"II", b"MM"
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
# Grey that Pillow can unpack, and knows in one byte order or with black as zero only: mode, how it lies in the file.
_GREY = {
    (_LITTLE, _UNSIGNED, 16): ("I;16", "I;16"),
    (_BIG, _UNSIGNED, 16): ("I;16B", "I;16B"),
    (_LITTLE, _SIGNED, 16): ("I", "I;16S"),
    (_BIG, _SIGNED, 16): ("I", "I;16BS"),
    (_LITTLE, _UNSIGNED, 32): ("I", "I;32S"),
    (_BIG, _UNSIGNED, 32): ("I", "I;32BS"),
    (_LITTLE, _SIGNED, 32): ("I", "I;32S"),
    (_BIG, _SIGNED, 32): ("I", "I;32BS"),
    (_LITTLE, _FLOAT, 32): ("F", "F;32F"),
    (_BIG, _FLOAT, 32): ("F", "F;32BF"),
    (_LITTLE, _FLOAT, 64): ("F", "F;64F"),
    (_BIG, _FLOAT, 64): ("F", "F;64BF"),
}
for (_order, _form, _bits), _raw in _GREY.items():
    for _zero_is in (0, 1):
        TiffImagePlugin.OPEN_INFO.setdefault((_order, _zero_is, (_form,), 1, (_bits,), ()), _raw)


def mend(file: Image.Image) -> None:
    """Make an opened TIFF, of which nothing is loaded, be read as it is meant."""
    tags: Any = getattr(file, "tag_v2", None)
    if tags is None or not getattr(file, "tile", None):
        return
    image: Any = file
    first = image.tile[0]
    if first.codec_name == "libtiff" and first.args[0] in _NATIVE and sys.byteorder == "little":
        image.tile = [first._replace(args=(_NATIVE[first.args[0]], *first.args[1:]))]
    elif first.codec_name == "raw" and tags.get(_PLANES) == _APART and max(tags.get(_BITS, (8,))) == 16:
        # Pillow would take each half of a sample for one.
        kind = "RGBa" if _ASSOCIATED in tags.get(_EXTRA, ()) else image.mode
        image.tile = [type(first)("libtiff", (0, 0, *image.size), 0, (f"{kind};16N", False, tags.offset))]
        image.use_load_libtiff = True
    if file.mode in ("P", "PA") and max(tags.get(_COLOURS, (256,))) < 256:
        # Colours of 8 bits where there should be 16, as libtiff takes them too.
        image.palette = ImagePalette.raw("RGB;L", tuple(tags[_COLOURS]))
