"""A picture beside what stands at its address, pixel by pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ganserve import encode, pictures, png
from ganserve.address import Address
from ganserve.card import ModelCard
from ganserve.verdict import Verdict, path

# Of 255: what the processors of two machines may make of the same float graph.
FLOAT_TOLERANCE = 1
# Pixels that are compared at a time.
_BLOCK = 1 << 20

Pixels = NDArray[np.uint8]


def compare(bare: bytes, images: Pixels, address: Address, card: ModelCard, *, tolerance: int) -> Verdict:
    """The verdict on a picture by the images uint8 [n, h, w, c] that stand at its address.

    Args:
        bare: the picture's file; its size is the address's.
        tolerance: of 255, how far apart pixels may be where machines make them so.

    Raises:
        PictureError: it cannot be decoded.
    """
    laid = address.layout
    sheet = _shown(encode.grid(images, laid.columns, laid.padding, laid.scale))
    picture = np.asarray(pictures.decode(bare, max_pixels=sheet.shape[0] * sheet.shape[1]).image)
    picture = picture[..., None] if picture.ndim == 2 else picture
    if picture.shape[:2] != sheet.shape[:2]:
        raise pictures.PictureError("has another size than its header says")
    apart, beyond = _apart(picture, sheet, tolerance)
    place = path(address, card)
    if beyond:
        return Verdict("differs", place, beyond, False)
    note = f"pixels are up to {tolerance} of 255 apart, as another processor makes them" if apart else None
    return Verdict("match", place, 0, not apart, note)


def _shown(sheet: Pixels) -> Pixels:
    """In grey or RGB, as a viewer shows it."""
    if sheet.shape[-1] in (1, 3):
        return sheet
    shown = np.asarray(pictures.decode(png.encode(sheet)).image)
    return shown[..., None] if shown.ndim == 2 else shown


def _apart(picture: Pixels, sheet: Pixels, tolerance: int) -> tuple[int, int]:
    """How many pixels differ, and how many by more than the tolerance."""
    apart = beyond = 0
    rows = max(1, _BLOCK // sheet.shape[1])
    for start in range(0, len(sheet), rows):
        one, other = picture[start : start + rows], sheet[start : start + rows]
        # Grey beside colour is that grey in every channel.
        distance = (np.maximum(one, other) - np.minimum(one, other)).max(axis=-1)
        apart += int(np.count_nonzero(distance))
        beyond += int(np.count_nonzero(distance > tolerance))
    return apart, beyond
