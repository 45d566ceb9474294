"""Colours to sRGB, by the profile that a picture carries."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

# Profiles of sRGB itself, of which there are many, move no colour by more; it keeps its very pixels then.
_SAME = 2
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_IDENTICAL = object()


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """A picture of mode L, RGB or CMYK, in L or RGB; None for a profile that is broken or of another kind."""
    transform = _transform(profile, image.mode)
    if transform is None:
        # Many programs give grey pictures sRGB's profile of colours, which changes nothing.
        return image if image.mode == "L" and _transform(profile, "RGB") is _IDENTICAL else None
    if transform is _IDENTICAL:
        return image
    return _applied(transform, image)


def lab_to_rgb(image: Image.Image) -> Image.Image:
    """A picture of mode LAB in RGB."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return _applied(ImageCms.buildTransform(lab, srgb, "LAB", "RGB"), image)


def _applied(transform: Any, image: Image.Image) -> Image.Image:
    shown: Image.Image = transform.apply(image)
    return shown.convert("L") if image.mode == "L" else shown


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> Any:
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        built = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
        probe = _probe(mode)
        if probe is None:
            return built
        moved = np.asarray(_applied(built, probe)).astype(int) - np.asarray(probe)
        return _IDENTICAL if np.abs(moved).max() <= _SAME else built
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return None


def _probe(mode: str) -> Image.Image | None:
    """Colours from all over; None for a mode that is not shown as it is."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    if mode != "RGB":
        return None
    steps = np.linspace(0, 255, 17).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(17, -1, 3))
