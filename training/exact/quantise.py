"""Layers to whole numbers: weights of -63..63, activations of 0..255, shifts in units of the sums.

A requantised value is ``clip(round((sum + shift) * factor) + zero)``. The sum and the shift are whole and together
below 2**24, so float32 holds them exactly, added up in any order; one product, correctly rounded as IEEE 754 asks, and
a rounding to whole numbers, halves to even, follow. No sum follows that product before it is rounded, so there is
nothing that a fused multiply-add could change. LeakyReLU is one more such product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ganserve.grid import STEPS
from training.exact.layers import ExactError, Floats, Frame, Layer, Net, Places
from training.exact.ranges import Range
from training.exact.rounding import rounded

# AVX2 and SSE add two products of 8 bits in 16: 2 * 255 * 63 is the most that these hold.
WEIGHT_LIMIT = 63
# Every whole number up to here is exact in float32.
SUM_LIMIT = 2**24
LEVELS = 255
TABLE_SIZE = 1024
# Zero of the quantised latent, whose steps go from -128 to 127.
LATENT_ZERO = 128
# The smallest share of a layer's widest range that a channel's own range counts as.
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Step:
    """A layer in whole numbers.

    ``weight`` int8 [inputs, columns]; ``shift`` float32 [classes or 1, columns], whole; ``factor`` float32 of that
    shape; ``before`` and ``zero``: the zero points of what it takes and of what it gives (0 for the last layer).
    """

    weight: NDArray[np.int8]
    shift: NDArray[np.float32]
    factor: NDArray[np.float32]
    index: Places | None
    slope: float | None
    channels: int
    before: int
    zero: int
    inside: NDArray[np.bool_] | None = None

    @property
    def cells(self) -> int:
        """How many patches it multiplies."""
        return 1 if self.index is None else len(self.index)


@dataclass(frozen=True)
class Program:
    """A generator in whole numbers; ``table`` uint8 [1024] gives the pixel of the last step's clipped value."""

    steps: tuple[Step, ...]
    table: NDArray[np.uint8]
    frame: Frame
    channels: int
    classes: int
    z: int
    latent_step: float


def quantise(
    net: Net, ranges: Sequence[Range], seen: Sequence[Floats], recipe: str, image_range: tuple[float, float]
) -> Program:
    """The whole-number form of a net whose activations have these ranges, and its layers' inputs these moments.

    Raises:
        ExactError: a weight or a sum is out of the bounds that make it exact.
    """
    low, high, table = pixel_table(image_range)
    entry = (high - low) / (TABLE_SIZE - 1)
    units: Floats = np.array([1 / STEPS[recipe]])
    steps: list[Step] = []
    before = LATENT_ZERO
    for layer, activation, moment in zip(net.layers, [*ranges, None], seen, strict=True):
        if activation is None:
            layer = _shifted(layer, -low)
            after, zero = np.full(layer.channels, entry), 0
        else:
            after, zero = _levels(activation, layer.slope)
        steps.append(_step(layer, units, moment, after, before, zero))
        units, before = after, zero
    program = Program(tuple(steps), table, net.frame, net.channels, net.classes, net.z, 1 / STEPS[recipe])
    check(program)
    return program


def pixel_table(image_range: tuple[float, float]) -> tuple[float, float, NDArray[np.uint8]]:
    """The pixels of 1,024 evenly spaced values before tanh, and the least and greatest of these values.

    They span what the pixels depend on: beyond it they are 0 and 255.
    """
    low, high = image_range

    def pixels(value: NDArray[np.float64]) -> NDArray[np.uint8]:
        levels = np.clip(np.rint((np.tanh(value) - low) * (LEVELS / (high - low))), 0, LEVELS)
        return levels.astype(np.uint8)

    ends = [_inverse(level, low, high) for level in (0.5, LEVELS - 0.5)]
    margin = (ends[1] - ends[0]) / TABLE_SIZE
    first, last = ends[0] - margin, ends[1] + margin
    return first, last, pixels(np.linspace(first, last, TABLE_SIZE))


def _inverse(level: float, low: float, high: float) -> float:
    return float(np.arctanh(low + level * (high - low) / LEVELS))


def _shifted(layer: Layer, by: float) -> Layer:
    return replace(layer, shift=layer.shift + by)


def _levels(seen: Range, slope: float | None) -> tuple[Floats, int]:
    """What one level of each channel is worth, and the level that stands for zero.

    Between one unit for all channels and one for each stands their geometric mean: a channel of a small range needs
    finer levels, but pays for them in the weights that read it, which share one scale.
    """
    widest = float(max(seen.high.max(), 1e-9))
    own = np.maximum(seen.high, LEAST_SHARE * widest)
    if not slope:
        return np.sqrt(own * widest) / LEVELS, 0
    own = np.maximum(own, -seen.low)
    units = np.sqrt(own * max(widest, float(-seen.low.min())))
    share = float(np.max(np.maximum(-seen.low, 0) / units)), float(np.max(np.maximum(seen.high, 0) / units))
    zero = int(np.ceil(LEVELS * share[0] / (share[0] + share[1]))) if share[0] + share[1] > 0 else 0
    return units * (share[0] + share[1]) / (LEVELS - 1), zero


def _step(layer: Layer, units: Floats, moment: Floats, after: Floats, before: int, zero: int) -> Step:
    each = np.tile(units, len(layer.weight) // len(units))
    weight = layer.weight * each[:, None]
    to_levels = np.tile(after, layer.weight.shape[1] // len(after))
    scale = _scale(weight, before)
    try:
        whole = rounded(weight, scale, moment / np.outer(each, each), WEIGHT_LIMIT)
    except np.linalg.LinAlgError as error:
        raise ExactError(f"a layer's weights or inputs are no finite numbers: {error}") from error
    bound = sum_bound(whole, before)
    shift, factor = _shift(layer.shift / to_levels, layer.scale * scale / to_levels, bound, layer.slope)
    weights = whole.astype(np.int8)
    return Step(weights, shift, factor, layer.index, layer.slope, layer.channels, before, zero, layer.inside)


def _scale(weight: Floats, before: int) -> Floats:
    """For each column the worth of one, of the least squared error among some, greater where its sums would take more
    than half of what they may."""
    greatest = np.abs(weight).max(0)
    greatest[greatest == 0] = 1.0
    best, scale = np.full(weight.shape[1], np.inf), np.ones(weight.shape[1])
    for share in (*np.linspace(0.6, 1.0, 17), 2.0, 4.0, 8.0, 16.0):
        tried = greatest * share / WEIGHT_LIMIT
        whole = np.clip(np.rint(weight / tried), -WEIGHT_LIMIT, WEIGHT_LIMIT)
        error = np.square(whole * tried - weight).sum(0)
        better = (error < best) & (sum_bound(whole, before) < SUM_LIMIT // 2)
        best, scale = np.where(better, error, best), np.where(better, tried, scale)
    return scale


def sum_bound(whole: NDArray[np.generic], before: int) -> NDArray[np.int64]:
    """The greatest magnitude that each column's sum of weight times (level - ``before``) can have: int64 [columns]."""
    weights = whole.astype(np.int64)
    positive, negative = np.maximum(weights, 0).sum(0), np.maximum(-weights, 0).sum(0)
    above, below = LEVELS - before, before
    greatest: NDArray[np.int64] = np.maximum(positive * above + negative * below, positive * below + negative * above)
    return greatest


def _shift(
    shift: Floats, factor: Floats, bound: NDArray[np.int64], slope: float | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The shift in units of the sums, and the factor in float32.

    A class whose factor is so small that its shift would have no room beside the sums gets a greater one: what the
    sums then add too much is less than what rounding to levels hides, or nearly so.
    """
    room = SUM_LIMIT - 1 - bound
    sign = np.where(factor < 0, -1.0, 1.0)
    magnitude = np.abs(factor)
    if slope == 0:
        # Lower than the sums can lift it, a ReLU's shift need not be: all that it gives is 0.
        shift = np.where(shift < 0, np.maximum(shift, -(bound + 1.0) * magnitude), shift)
    magnitude = np.maximum(magnitude, np.abs(shift) / room).astype(np.float32)
    # Rounded to float32 a factor may have become a little too small again.
    whole = np.divide(shift, magnitude, out=np.zeros_like(shift), where=magnitude > 0)
    whole = np.clip(np.rint(whole), -room, room) * sign
    return whole.astype(np.float32), (magnitude * sign).astype(np.float32)


def check(program: Program) -> None:
    """Raises ExactError unless every weight and every possible sum is within the bounds that make it exact."""
    for number, step in enumerate(program.steps):
        heaviest = int(np.abs(step.weight.astype(np.int64)).max())
        if heaviest > WEIGHT_LIMIT:
            raise ExactError(f"layer {number} has a weight of {heaviest}: past {WEIGHT_LIMIT} AVX2 saturates")
        if not np.array_equal(step.shift, np.rint(step.shift)):
            raise ExactError(f"layer {number} has a shift that is no whole number")
        greatest = int((sum_bound(step.weight, step.before) + np.abs(step.shift.astype(np.int64))).max())
        if greatest >= SUM_LIMIT:
            raise ExactError(f"a sum of layer {number} may reach {greatest}: from 2**24 on float32 does not hold it")
        if not np.isfinite(step.factor).all():
            raise ExactError(f"layer {number} has a factor that is no number")
