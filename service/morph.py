"""A walk between two seeds: latents in between, and frames as one animation."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganserve import marks
from ganserve.grid import STEPS, grid_walk
from ganserve.latents import latents

Format = Literal["webp", "gif"]

# Raise it when the bytes of an animation change: it is part of every entity tag.
LAYOUT = "2"


def walk(
    recipe: str, first: int, last: int, z: int, frames: int, truncation: int | None = None
) -> NDArray[np.float32]:
    """Latents float32 [frames, z] from the seed ``first`` to the seed ``last``, both included bit for bit.

    Normal latents go along the great circle (Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985, as
    White, 2016, arXiv:1609.04468 uses it): a straight line would pass through lengths that the generator never saw.
    Uniform latents fill a cube, in which the straight line stays. Those of a grid are rounded to it. A truncation, in
    hundredths, scales both ends, and so the whole walk.
    """
    if recipe in STEPS:
        return grid_walk(recipe, first, last, z, frames, 100 if truncation is None else truncation)
    ends = latents(recipe, [first, last], z, truncation)
    start, stop = ends.astype(np.float64)
    at = np.linspace(0.0, 1.0, frames)[:, None]
    weights = (1.0 - at, at)
    if recipe == "philox-normal/v1":
        cosine = start @ stop / (np.linalg.norm(start) * np.linalg.norm(stop))
        angle = np.arccos(np.clip(cosine, -1.0, 1.0))
        # Of one direction, or of opposite ones, there is no one circle.
        if np.sin(angle) > 1e-6:
            weights = (np.sin((1.0 - at) * angle) / np.sin(angle), np.sin(at * angle) / np.sin(angle))
    path: NDArray[np.float32] = (weights[0] * start + weights[1] * stop).astype(np.float32)
    path[0], path[-1] = ends
    return path


def there_and_back(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frames [n, ...] and then back, without showing either end twice: [2n - 2, ...]."""
    return np.concatenate([images, images[-2:0:-1]])


def animate(images: NDArray[np.uint8], form: Format, milliseconds: int) -> bytes:
    """Frames uint8 [n, h, w, c] as an animation that loops for ever, marked as made by a machine.

    WebP is lossless. GIF is exact for grey images; coloured ones have at most 256 colours a frame there. Frames that
    are equal and follow each other may be kept as one that is shown longer.
    """
    pictures = [Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame) for frame in images]
    arguments: dict[str, Any] = {
        "save_all": True,
        "append_images": pictures[1:],
        "duration": milliseconds,
        "loop": 0,
    }
    if form == "webp":
        arguments |= {"lossless": True, "quality": 20, "method": 0, "minimize_size": False, **marks.webp()}
    buffer = io.BytesIO()
    pictures[0].save(buffer, form.upper(), **arguments)
    return marks.gif(buffer.getvalue()) if form == "gif" else buffer.getvalue()
