"""Colours to sRGB, by the profile that a picture carries."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
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


# CIE xy of sRGB's white, red, green and blue; Bradford's matrix, by which eyes get used to another white.
_SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_USUAL_GAMMA = 0.45455


def by_numbers(
    image: Image.Image,
    gamma: float | None,
    places: tuple[float, ...] | None,
    near: float = 0.02,
    *,
    usual: bool = False,
) -> Image.Image:
    """A picture of mode L or RGB in sRGB, by what PNG's chunks gAMA and cHRM say (PNG 3rd edition, 11.3.2).

    Args:
        gamma: the exponent that samples were encoded with; None is the usual one.
        places: CIE xy of white, red, green and blue.
        usual: samples were encoded as sRGB's are, whatever ``gamma`` is.
        near: what differs by less is as good as sRGB, which keeps its very pixels.
    """
    other = places is not None and len(places) == 8 and max(map(abs, np.subtract(places, _SRGB))) > near
    turn = _turn(tuple(places)) if other and places is not None and image.mode == "RGB" else None
    if turn is None and (not gamma or abs(gamma - _USUAL_GAMMA) < near):
        return image
    steps = np.linspace(0, 1, 256)
    light = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    light = light if usual else steps ** (1 / (gamma or _USUAL_GAMMA))
    if turn is None:
        table = _encoded(light).tolist()
        return image.point(table * len(image.getbands()))
    return Image.fromarray(_encoded(light[np.asarray(image)] @ turn.T))


# Of ITU-T H.273: CIE xy as above, and the transfers of linear light and of high dynamic range (PQ, HLG).
_PRIMARIES = {
    9: (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    12: (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
_LINEAR, _HIGH = 8, (16, 18)


class HighRange(ValueError):  # noqa: N818
    """Samples for screens that are brighter than white."""


def code_points(form: str | None, content: bytes) -> tuple[int, int] | None:
    """Primaries and transfer by their numbers in ITU-T H.273, where a PNG (chunk cICP) or an AVIF (box colr) tells
    others than sRGB's."""
    told = None
    if form == "PNG" and (at := content.find(b"\0\0\0\4cICP", 0, content.find(b"IDAT"))) >= 0:
        told = content[at + 8], content[at + 9]
    if form == "AVIF" and (at := content.find(b"colrnclx", 0, 1 << 14)) >= 0:
        told = int.from_bytes(content[at + 8 : at + 10], "big"), int.from_bytes(content[at + 10 : at + 12], "big")
    return told if told and (told[0] in _PRIMARIES or told[1] in (_LINEAR, *_HIGH)) else None


def by_code_points(image: Image.Image, told: tuple[int, int]) -> Image.Image:
    """A picture of mode L or RGB in sRGB. Raises HighRange."""
    primaries, transfer = told
    if transfer in _HIGH:
        raise HighRange(
            "is of high dynamic range (PQ or HLG), which is not read here: save it for usual screens, as PNG or JPEG"
        )
    linear = transfer == _LINEAR
    return by_numbers(image, 1.0 if linear else None, _PRIMARIES.get(primaries), usual=not linear)


def _encoded(light: NDArray[np.float64]) -> NDArray[np.uint8]:
    """sRGB's samples of 8 bits of linear light from 0 to 1."""
    light = light.clip(0, 1)
    bent = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    eight: NDArray[np.uint8] = np.rint(bent * 255).astype(np.uint8)
    return eight


@lru_cache(maxsize=64)
def _turn(places: tuple[float, ...]) -> NDArray[np.float64] | None:
    """The matrix from linear light of these primaries to that of sRGB's; None where they span no colours."""
    try:
        (theirs, white), (srgb, usual) = _to_xyz(places), _to_xyz(_SRGB)
        eye = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ usual / (_BRADFORD @ white)) @ _BRADFORD
        turn: NDArray[np.float64] = np.linalg.inv(srgb) @ eye @ theirs
        return turn
    except (np.linalg.LinAlgError, ZeroDivisionError, FloatingPointError):
        return None


def _to_xyz(places: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The matrix to CIE XYZ, and the white."""
    pairs = zip(places[::2], places[1::2], strict=True)
    white, *primaries = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in pairs)
    columns = np.stack(primaries, 1)
    return columns * np.linalg.solve(columns, white), white


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
