"""Images to bytes: PNG grid, WebP, ZIP, NPZ, JSON."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

Pixels = NDArray[np.uint8]


def default_columns(n: int) -> int:
    """Columns of the squarest grid of ``n`` tiles."""
    return math.ceil(math.sqrt(n))


def grid(images: Pixels, columns: int | None = None, padding: int = 2, scale: int = 1) -> Pixels:
    """Tiles uint8 [n, h, w, c] row by row on black, ``padding`` pixels between and around: uint8 [H, W, c]."""
    n, height, width, channels = images.shape
    columns = min(columns or default_columns(n), n)
    rows = -(-n // columns)
    if scale > 1:
        images = images.repeat(scale, axis=1).repeat(scale, axis=2)
        height, width = height * scale, width * scale
    cells = np.zeros((rows * columns, height + padding, width + padding, channels), np.uint8)
    cells[:n, padding:, padding:] = images
    sheet = cells.reshape(rows, columns, height + padding, width + padding, channels)
    sheet = sheet.transpose(0, 2, 1, 3, 4).reshape(
        rows * (height + padding), columns * (width + padding), channels
    )
    return np.pad(sheet, ((0, padding), (0, padding), (0, 0)))


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def png(image: Pixels, text: Mapping[str, str] | None = None) -> bytes:
    """A PNG of uint8 [h, w, c], grey for one channel, with ``text`` as its text chunks."""
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    buffer = io.BytesIO()
    arguments: dict[str, Any] = {"pnginfo": info, "compress_level": 1}
    _image(image).save(buffer, "PNG", **arguments)
    return buffer.getvalue()
