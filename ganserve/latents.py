"""Seeds to latent vectors, by every published recipe.

``philox-normal/v1`` and ``philox-uniform/v1`` are here: the normal values are Box and Muller's (1958). Those of a grid
are in ``grid.py``, the bits under all of them in ``philox.py``. A vector is a pure function of (recipe, seed, z).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganserve.grid import STEPS, grid_latents
from ganserve.philox import MAX_SEED, checked, consecutive, philox4x32_10, words

__all__ = ["MAX_SEED", "RECIPES", "consecutive", "latents", "philox4x32_10"]

RECIPES = ("philox-normal/v1", "philox-uniform/v1", *STEPS)


def latents(recipe: str, seeds: ArrayLike, z: int, truncation: int | None = None) -> NDArray[np.float32]:
    """The latent vectors of ``seeds`` (whole numbers, shape [n]): float32 [n, z].

    ``truncation`` in whole hundredths, 1 to 100, scales them; those of a grid stay on it.

    Raises:
        ValueError: unknown recipe, a seed that is no whole number in 0 <= seed < 2**53, or a truncation out of range.
    """
    if recipe not in RECIPES:
        raise ValueError(f"unknown latent recipe {recipe!r}: expected one of {', '.join(RECIPES)}")
    if recipe in STEPS:
        return grid_latents(recipe, seeds, z, 100 if truncation is None else truncation)
    if truncation is not None:
        return scaled(latents(recipe, seeds, z), truncation)
    chosen = checked(seeds)
    blocks = -(-z // 4)
    even, odd = words(chosen, blocks)
    first, second = (even + 0.5) / 2.0**32, (odd + 0.5) / 2.0**32
    values = np.empty((len(chosen), blocks, 2, 2), np.float32)
    # even holds x0 and x2 along its first axis, odd x1 and x3; in values each pair stands side by side.
    if recipe == "philox-uniform/v1":
        values[..., 0] = np.moveaxis(2.0 * first - 1.0, 0, -1)
        values[..., 1] = np.moveaxis(2.0 * second - 1.0, 0, -1)
    else:
        radius = np.sqrt(-2.0 * np.log(first))
        angle = 2.0 * np.pi * second
        values[..., 0] = np.moveaxis(radius * np.cos(angle), 0, -1)
        values[..., 1] = np.moveaxis(radius * np.sin(angle), 0, -1)
    return np.ascontiguousarray(values.reshape(len(chosen), blocks * 4)[:, :z])


def scaled(values: NDArray[np.float32], hundredths: int) -> NDArray[np.float32]:
    """Latents times hundredths, in float32. Raises ValueError out of 1 to 100."""
    if not 1 <= hundredths <= 100:
        raise ValueError(f"a truncation of {hundredths} hundredths is out of range: expected 1 to 100")
    return values * np.float32(hundredths / 100)
