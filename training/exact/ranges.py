"""How large a generator's activations become, seen on its own noise: calibration needs no data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganserve.grid import grid_latents
from ganserve.latents import consecutive
from training.exact.layers import Layer, Net

# Seeds of calibration begin here, away from those of samples, examples and evaluation.
FIRST_SEED = 1 << 51
IMAGES, CHUNK = 2048, 64


@dataclass(frozen=True)
class Range:
    """The least and the greatest that each channel of a layer gave: float64 [channels]."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def calibrate(net: Net, recipe: str, images: int = IMAGES) -> list[Range]:
    """The ranges of all layers but the last, over ``images`` latents of the recipe, the classes in turn."""
    found: list[Range] = []
    for first in range(0, images, CHUNK):
        noise = grid_latents(recipe, consecutive(FIRST_SEED + first, CHUNK), net.z)
        label = (first + np.arange(CHUNK)) % max(net.classes, 1)
        for number, rows in enumerate(activations(net, noise, label)):
            flat = rows.reshape(-1, rows.shape[-1])
            seen = Range(flat.min(0).astype(np.float64), flat.max(0).astype(np.float64))
            if number == len(found):
                found.append(seen)
            else:
                before = found[number]
                found[number] = Range(np.minimum(before.low, seen.low), np.maximum(before.high, seen.high))
    return found[:-1]


def activations(net: Net, noise: NDArray[np.float32], label: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """What each layer gives, in float32 [batch, rows, channels]; the last one's is what tanh takes."""
    rows = noise[:, None]
    for layer in net.layers:
        rows = _forward(layer, rows, label)
        yield rows


def patches(layer: Layer, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a layer multiplies of the rows before it: float32 [batch, cells, inputs]."""
    batch = len(rows)
    if layer.index is not None:
        rows = rows.reshape(batch, -1, len(layer.weight) // layer.index.shape[1])
        rows = np.pad(rows, ((0, 0), (0, 1), (0, 0)))[:, layer.index]
    return rows.reshape(batch, -1, len(layer.weight))


def _forward(layer: Layer, rows: NDArray[np.float32], label: NDArray[np.int64]) -> NDArray[np.float32]:
    batch = len(rows)
    scale, shift = (t.astype(np.float32)[label % len(t)][:, None] for t in (layer.scale, layer.shift))
    given = patches(layer, rows).reshape(-1, len(layer.weight)) @ layer.weight.astype(np.float32)
    given = given.reshape(batch, -1, scale.shape[-1]) * scale + shift
    if layer.slope is not None:
        given = np.maximum(given, layer.slope * given)
    if layer.inside is not None:
        given *= layer.inside
    return given.reshape(batch, -1, layer.channels)
