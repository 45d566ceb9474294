"""Differentiable augmentation (Zhao et al. 2020, arXiv:2006.10738): colour, translation and cutout.

The discriminator sees real and generated images through the same changes, so it cannot know the few real ones by heart,
and the gradient finds its way through the change to the generator.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Most of a shift, and half the edge of what is cut out, as shares of the image's edge; how often it is.
SHIFT, CUT, CUT_SHARE = 1 / 8, 3 / 16, 0.5


def differentiable(image: Tensor) -> Tensor:
    """Images float32 [n, c, h, w] in tanh's range, each changed by numbers of torch's own random state."""
    return cutout(translation(colour(image)))


def colour(image: Tensor) -> Tensor:
    """Another saturation, brightness and contrast for each image."""
    drawn = torch.rand(3, len(image), 1, 1, 1, device=image.device)
    if image.shape[1] > 1:
        grey = image.mean(1, keepdim=True)
        image = (image - grey) * (drawn[0] + 0.5) + grey
    image = image + (drawn[1] * 0.5 - 0.25)
    mean = image.mean((1, 2, 3), keepdim=True)
    return (image - mean) * (drawn[2] * 0.5 + 0.75) + mean


def translation(image: Tensor) -> Tensor:
    """Shift each image by whole pixels, with grey in what it leaves."""
    n, channels, height, width = image.shape
    for axis, edge in ((2, height), (3, width)):
        most = max(1, round(edge * SHIFT))
        drawn = torch.randint(-most, most + 1, (n, 1), device=image.device)
        place = torch.arange(edge, device=image.device) + drawn
        there = (place >= 0) & (place < edge)
        shape = (n, 1, edge, 1) if axis == 2 else (n, 1, 1, edge)
        index = place.clamp(0, edge - 1).view(shape).expand(n, channels, height, width)
        image = image.gather(axis, index) * there.view(shape)
    return image


def cutout(image: Tensor) -> Tensor:
    """Make a square of every other image grey (DeVries and Taylor 2017, arXiv:1708.04552)."""
    n, _, height, width = image.shape
    cut = torch.rand(n, 1, 1, 1, device=image.device) < CUT_SHARE
    for shape, edge in (((n, 1, height, 1), height), ((n, 1, 1, width), width)):
        middle = torch.randint(0, edge, (n, 1), device=image.device)
        cut = cut & ((torch.arange(edge, device=image.device) - middle).abs() < edge * CUT).view(shape)
    return image * ~cut
