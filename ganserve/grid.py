"""Seeds to latent vectors on a grid: the published recipes ``philox-grid/v1`` and ``philox-uniform-grid/v1``.

A value is a whole number of steps, found by comparing a word of Philox with whole numbers: no floating-point function
is left that two machines might round apart. Exact graphs take their latents from here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganserve.philox import checked, words

# Steps to 1: values are whole multiples of a 32nd, or of a 128th.
STEPS = {"philox-grid/v1": 32, "philox-uniform-grid/v1": 128}

# round(2**32 * Phi((k + 1/2) / 32)) for k = 0 .. 126; below the middle, 2**32 less these.
_UPPER = (
    2174255122, 2227771934, 2281210416, 2334518603, 2387644910, 2440538283, 2493148346, 2545425542, 2597321279,
    2648788058, 2699779608, 2750251010, 2800158810, 2849461137, 2898117800, 2946090388, 2993342354, 3039839098,
    3085548036, 3130438658, 3174482585, 3217653612, 3259927737, 3301283192, 3341700454, 3381162255, 3419653578,
    3457161645, 3493675901, 3529187983, 3563691689, 3597182931, 3629659692, 3661121963, 3691571687, 3721012686,
    3749450595, 3776892781, 3803348262, 3828827623, 3853342929, 3876907636, 3899536495, 3921245465, 3942051613,
    3961973023, 3981028700, 3999238475, 4016622917, 4033203233, 4049001185, 4064038998, 4078339277, 4091924921,
    4104819047, 4117044909, 4128625826, 4139585115, 4149946021, 4159731655, 4168964937, 4177668543, 4185864850,
    4193575894, 4200823323, 4207628364, 4214011785, 4219993862, 4225594359, 4230832498, 4235726942, 4240295778,
    4244556507, 4248526026, 4252220631, 4255656004, 4258847217, 4261808730, 4264554393, 4267097455, 4269450566,
    4271625790, 4273634611, 4275487949, 4277196169, 4278769097, 4280216036, 4281545777, 4282766620, 4283886389,
    4284912451, 4285851729, 4286710724, 4287495531, 4288211859, 4288865043, 4289460070, 4290001587, 4290493926,
    4290941116, 4291346902, 4291714756, 4292047900, 4292349314, 4292621755, 4292867766, 4293089695, 4293289704,
    4293469782, 4293631757, 4293777306, 4293907968, 4294025152, 4294130144, 4294224121, 4294308157, 4294383230,
    4294450230, 4294509968, 4294563178, 4294610528, 4294652622, 4294690006, 4294723176, 4294752577, 4294778613,
    4294801645,
)  # fmt: skip
THRESHOLDS: NDArray[np.uint64] = np.array([2**32 - t for t in reversed(_UPPER)] + list(_UPPER), np.uint64)

# Many words are looked up by their leading 12 bits: how many thresholds lie below that twelfth-bit cell, and the one
# inside it. Cells of the far tails hold several; a word that falls there (one in 180) is searched for.
_SHIFT = np.uint64(20)
_EDGES = np.arange(2**12 + 1, dtype=np.uint64) << _SHIFT
_BELOW = np.searchsorted(THRESHOLDS, _EDGES[:-1], "left").astype(np.int16)
_INSIDE = np.append(THRESHOLDS, np.uint64(2**32))[_BELOW]
_SEVERAL = np.diff(np.searchsorted(THRESHOLDS, _EDGES, "left")) > 1
# Below this a search costs less than the few more calls of a look-up.
_FEW = 1024


def grid_latents(recipe: str, seeds: ArrayLike, z: int, truncation: int = 100) -> NDArray[np.float32]:
    """The latent vectors of ``seeds`` (whole numbers, shape [n]): float32 [n, z], whole multiples of the recipe's step.

    ``truncation`` in whole hundredths, 1 to 100, scales the whole numbers k: round(k t / 100), halves away from zero.

    Raises:
        ValueError: no recipe of a grid, a seed that is no whole number in 0 <= seed < 2**53, or a truncation out of
            range.
    """
    if recipe not in STEPS:
        raise ValueError(f"{recipe!r} is no recipe of a grid: expected one of {', '.join(STEPS)}")
    chosen = checked(seeds)
    blocks = -(-z // 4)
    drawn = np.empty((len(chosen), blocks, 2, 2), np.uint64)
    even, odd = words(chosen, blocks)
    drawn[..., 0], drawn[..., 1] = np.moveaxis(even, 0, -1), np.moveaxis(odd, 0, -1)
    steps = _normal(drawn) if recipe == "philox-grid/v1" else _uniform(drawn)
    steps = steps.reshape(len(chosen), blocks * 4)[:, :z]
    return _values(recipe, steps if truncation == 100 else truncated(steps, truncation))


def truncated(steps: NDArray[np.int16], hundredths: int) -> NDArray[np.int16]:
    """round(k hundredths / 100) of whole numbers k, halves away from zero. Raises ValueError out of 1 to 100."""
    if not 1 <= hundredths <= 100:
        raise ValueError(f"a truncation of {hundredths} hundredths is out of range: expected 1 to 100")
    magnitude = (np.abs(steps).astype(np.int32) * hundredths + 50) // 100
    return np.where(steps < 0, -magnitude, magnitude).astype(np.int16)


def to_grid(recipe: str, values: ArrayLike) -> NDArray[np.float32]:
    """Any values rounded to the recipe's grid and clipped to its range: float32 of the same shape."""
    step = STEPS[recipe]
    low, high = (-127, 127) if recipe == "philox-grid/v1" else (-128, 127)
    steps = np.clip(np.rint(np.asarray(values, np.float64) * step), low, high)
    return _values(recipe, steps.astype(np.int16))


def grid_walk(recipe: str, first: int, last: int, z: int, frames: int, truncation: int = 100) -> NDArray[np.float32]:
    """Latents float32 [frames, z] on the grid, from the seed ``first`` to the seed ``last``, both included bit for bit.

    As :func:`service.morph.walk`: along the great circle for ``philox-grid/v1``, along the straight line in the cube of
    ``philox-uniform-grid/v1``; then rounded to the grid. What lies between the ends uses sines: it may differ between
    machines by a step.
    """
    ends = grid_latents(recipe, [first, last], z, truncation)
    start, stop = ends.astype(np.float64)
    at = np.linspace(0.0, 1.0, frames)[:, None]
    weights = (1.0 - at, at)
    if recipe == "philox-grid/v1":
        lengths = np.linalg.norm(start) * np.linalg.norm(stop)
        angle = np.arccos(np.clip(start @ stop / lengths, -1.0, 1.0)) if lengths else 0.0
        # Of one direction, or of opposite ones, there is no one circle.
        if np.sin(angle) > 1e-6:
            weights = (np.sin((1.0 - at) * angle) / np.sin(angle), np.sin(at * angle) / np.sin(angle))
    path = to_grid(recipe, weights[0] * start + weights[1] * stop)
    path[0], path[-1] = ends
    return path


def _normal(drawn: NDArray[np.uint64]) -> NDArray[np.int16]:
    """The number of thresholds at or below each word, less 127."""
    if drawn.size <= _FEW:
        return np.searchsorted(THRESHOLDS, drawn, "right").astype(np.int16) - np.int16(127)
    cells = (drawn >> _SHIFT).astype(np.int32)
    counts = _BELOW[cells]
    counts += drawn >= _INSIDE[cells]
    several = np.flatnonzero(_SEVERAL[cells])
    counts.reshape(-1)[several] = np.searchsorted(THRESHOLDS, drawn.reshape(-1)[several], "right")
    counts -= np.int16(127)
    return counts


def _uniform(drawn: NDArray[np.uint64]) -> NDArray[np.int16]:
    return (drawn >> np.uint64(24)).astype(np.int16) - np.int16(128)


def _values(recipe: str, steps: NDArray[np.int16]) -> NDArray[np.float32]:
    """Whole numbers of steps as float32, in which every one of them is exact."""
    return np.multiply(steps, np.float32(1 / STEPS[recipe]), dtype=np.float32)
