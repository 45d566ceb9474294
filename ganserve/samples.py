"""Samples of more or other than 8 bits, to grey of 8 bits: by their width, or by the range that the file states."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_STATED = ((340, 341), (280, 281))  # TIFF's SMin/SMaxSampleValue, Min/MaxSampleValue
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_SUBFILE, _DESCRIPTION, _SUB_IFDS, _DNG = 254, 270, 330, 50706
_WHITE = 65535
_SIGNED, _WHITE_IS_ZERO, _REDUCED = 2, 0, 1


class SampleError(ValueError):
    """Samples of which nobody states what is black and what is white."""


def to_eight_bits(image: Image.Image, file: Image.Image, notices: list[str]) -> Image.Image:
    """Grey of more than 8 bits, whole or floating, scaled to 0..255, in mode L or, where a value is called
    transparent, LA; other modes as they are. ``file`` is the opened file, whose tags count; ``notices`` are added to.

    Raises:
        SampleError: samples that are no numbers, or without a range.
    """
    if image.mode == "L" and _signed(file):
        return _kept_profile(Image.fromarray(np.asarray(image) ^ np.uint8(0x80)), image)
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    samples = np.asarray(image)
    if image.mode == "I" and tag(file, _BITS) == 32 and not _signed(file):
        samples = samples.astype(np.uint32)  # Pillow holds them as signed numbers
    low, high = _range(samples, image.mode, file)
    scaled = _scaled(samples, low, high)
    if high == _WHITE and samples.max() <= _WHITE // 16:
        notices.append("it uses the darkest sixteenth of its 16 bits only, and nothing says that its white lies there")
    if tag(file, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        scaled = 255 - scaled
    clear = image.info.get("transparency")
    grey = Image.fromarray(scaled)
    if isinstance(clear, int):
        grey = Image.merge("LA", [grey, Image.fromarray(np.uint8(samples != clear) * np.uint8(255))])
    return _kept_profile(grey, image)


def is_raw(file: Image.Image) -> bool:
    """Whether a TIFF is a camera's raw file, of which only a thumbnail could be read."""
    tags = getattr(file, "tag_v2", {})
    return _DNG in tags or (_SUB_IFDS in tags and int(tag(file, _SUBFILE) or 0) & _REDUCED != 0)


def jpeg2000_bits(content: bytes) -> int:
    """Bits of a sample, by the code stream (ISO/IEC 15444-1, A.5.1: SIZ, after SOC); 8 if there is none."""
    at = content.find(b"\xff\x4f\xff\x51")
    depth = content[at + 42 : at + 43] if at >= 0 else b""
    return (depth[0] & 0x7F) + 1 if depth else 8


def tag(file: Image.Image, number: int) -> float | None:
    """A TIFF tag's first number; None where there is none."""
    value: Any = getattr(file, "tag_v2", {}).get(number)
    if isinstance(value, tuple):
        value = value[0] if value else None
    return None if value is None else float(value)


def _signed(file: Image.Image) -> bool:
    return tag(file, _SAMPLE_FORMAT) == _SIGNED


def _kept_profile(grey: Image.Image, image: Image.Image) -> Image.Image:
    grey.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    return grey


def _scaled(samples: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    if samples.dtype == np.uint16:  # a table, since photos of 16 bits would be large as floats
        table: NDArray[np.uint8] = _scaled(np.arange(65536, dtype=np.float64), low, high)
        return np.take(table, samples)
    scaled = (samples.astype(np.float64) - low) * (255.0 / (high - low))
    eight: NDArray[np.uint8] = np.rint(scaled).clip(0, 255).astype(np.uint8)
    return eight


def _of_imagej(file: Image.Image) -> tuple[float, float] | None:
    """The range in which ImageJ shows a picture that it wrote, by the lines of its description."""
    told = _description(file)
    found = dict(line.split("=", 1) for line in told.splitlines() if "=" in line) if told.startswith("ImageJ=") else {}
    try:
        low, high = float(found["min"]), float(found["max"])
    except (KeyError, ValueError):
        return None
    return (low, high) if low < high else None


def _significant_bits(file: Image.Image) -> int | None:
    """Of a sample, as microscopes' OME-TIFF states them in its description."""
    told = re.search(r'<(?:\w+:)?Pixels\b[^>]*\bSignificantBits="([0-9]{1,2})"', _description(file))
    return int(told[1]) if told else None


def _description(file: Image.Image) -> str:
    return str(getattr(file, "tag_v2", {}).get(_DESCRIPTION, ""))


def _range(samples: NDArray[Any], mode: str, file: Image.Image) -> tuple[float, float]:
    """What is black and what is white."""
    if mode == "F" and not np.isfinite(samples).all():
        raise SampleError("holds samples that are no numbers")
    for low_tag, high_tag in _STATED:
        low, high = tag(file, low_tag), tag(file, high_tag)
        if high is not None and high > (low or 0):
            return float(low or 0), float(high)
    bits = tag(file, _BITS)
    if mode == "F":
        if samples.min() >= 0 and samples.max() <= 1:
            return 0.0, 1.0
        if (range_ := _of_imagej(file)) is not None:
            return range_
    elif bits is not None and bits < 16:
        return 0.0, 2.0**bits - 1
    elif bits == 16 and not _signed(file) and (most := 2 ** (_significant_bits(file) or 16) - 1) >= samples.max():
        return 0.0, float(most)
    elif mode.startswith("I;16") or file.format in ("PNG", "PPM") or bits == 16:
        return (-32768.0, 32767.0) if _signed(file) else (0.0, float(_WHITE))
    found = f"{samples.min():g} to {samples.max():g}"
    raise SampleError(
        f"has samples from {found} and does not state which are black and white: save it with 8 or 16 bits, as floats "
        "from 0 to 1, or with TIFF's SMinSampleValue and SMaxSampleValue"
    )
