"""TIFF as its writer meant it, in the places in which Pillow takes it otherwise."""

from __future__ import annotations

import sys
from typing import Any

from PIL import Image, ImagePalette

_BITS, _COLOURS, _PLANES, _EXTRA = 258, 320, 284, 338
_APART, _ASSOCIATED = 2, 1
# libtiff gives samples in the machine's own order, whatever the file's.
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}


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
