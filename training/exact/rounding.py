"""Weights rounded one input after the other, each making up for what rounding the ones before it did to the outputs.

Rounded each for itself, weights err by chance, and where inputs go together the errors add up: a picture's brightness
shifts at some pixels. Frantar et al. 2022 (GPTQ, arXiv:2210.17323) minimise the squared error of the layer's output on
inputs that were seen, which are the generator's own here.
"""

from __future__ import annotations

import numpy as np

from ganserve.grid import grid_latents
from ganserve.latents import consecutive
from training.exact.layers import Floats, Net
from training.exact.ranges import CHUNK, FIRST_SEED, activations, patches

IMAGES = 1024
# A share of the mean moment, added to each: inputs that were never seen, or always together, leave the rest in charge.
DAMPING = 0.01


def moments(net: Net, recipe: str, images: int = IMAGES) -> list[Floats]:
    """The mean products of each layer's inputs, two by two: float64 [inputs, inputs] a layer."""
    sums = [np.zeros((len(layer.weight),) * 2) for layer in net.layers]
    for first in range(0, images, CHUNK):
        noise = grid_latents(recipe, consecutive(FIRST_SEED + first, CHUNK), net.z)
        label = (first + np.arange(CHUNK)) % max(net.classes, 1)
        rows = noise[:, None]
        for total, layer, given in zip(sums, net.layers, activations(net, noise, label), strict=True):
            inputs = patches(layer, rows).reshape(-1, len(layer.weight))
            total += inputs.T @ inputs / len(inputs)
            rows = given
    return [total * CHUNK / images for total in sums]


def rounded(weight: Floats, scale: Floats, moment: Floats, limit: int) -> Floats:
    """Whole numbers of -limit..limit, times ``scale`` [columns], for ``weight`` [inputs, columns] of inputs with these
    mean products."""
    left = weight.copy()
    damped = moment + np.eye(len(moment)) * (DAMPING * np.trace(moment) / len(moment) + 1e-12)
    # The upper factor of the inverse holds, row by row, how the inputs after one make up for it.
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    whole = np.empty_like(left)
    for number, row in enumerate(factor):
        whole[number] = np.clip(np.rint(left[number] / scale), -limit, limit)
        error = (left[number] - whole[number] * scale) / row[number]
        left[number + 1 :] -= np.outer(row[number + 1 :], error)
    return whole
