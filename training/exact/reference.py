"""An exact graph's images computed in whole numbers by numpy: what every engine must give, byte for byte."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.exact.quantise import LATENT_ZERO, LEVELS, TABLE_SIZE, Program, Step


def reference(
    program: Program, latent: NDArray[np.float32], label: NDArray[np.int64] | None = None
) -> NDArray[np.uint8]:
    """Images uint8 [batch, height, width, channels] of latents float32 [batch, z] and labels int64 [batch, 1]."""
    classes = np.zeros(len(latent), np.int64) if label is None else label[:, 0]
    whole = np.rint(latent / np.float32(program.latent_step))
    rows = np.clip(whole, -LATENT_ZERO, LEVELS - LATENT_ZERO).astype(np.int64)[:, None]
    *hidden, last = program.steps
    for step in hidden:
        levels = _rounded(step, _sums(step, rows, classes), classes)
        # From here on a level is what it stands for: less its zero.
        rows = np.clip(levels + step.zero, 0, LEVELS) - step.zero
        if step.inside is not None:
            rows = np.where(step.inside, rows, 0)
    index = np.clip(_rounded(last, _sums(last, rows, classes), classes), 0, TABLE_SIZE - 1)
    pixels = program.table[index].reshape(len(latent), -1, program.channels)
    return pixels[:, program.frame.place()]


def _sums(step: Step, rows: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [batch, cells, columns], the shift included."""
    batch = len(rows)
    if step.index is not None:
        rows = rows.reshape(batch, -1, len(step.weight) // step.index.shape[1])
        rows = np.pad(rows, ((0, 0), (0, 1), (0, 0)))[:, step.index]
    patches = rows.reshape(-1, len(step.weight))
    # float64 holds these whole numbers exactly, and its product is many times as fast as that of integers.
    products = (patches.astype(np.float64) @ step.weight.astype(np.float64)).astype(np.int64)
    shift = step.shift.astype(np.int64)[classes % len(step.shift)][:, None]
    sums: NDArray[np.int64] = products.reshape(batch, -1, step.weight.shape[1]) + shift
    return sums


def _rounded(step: Step, sums: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sums times their class's factor, one float32 product each, and rounded, halves to even."""
    scaled = sums.astype(np.float32) * step.factor[classes % len(step.factor)][:, None]
    if step.slope:
        scaled = np.where(scaled < 0, scaled * np.float32(step.slope), scaled)
    rounded: NDArray[np.int64] = np.rint(scaled).astype(np.int64)
    return rounded
