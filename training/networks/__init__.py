"""Generators and discriminators, one family a file.

A generator maps noise ``float32 [batch, z]`` and, if conditional, labels ``int64 [batch]`` to images
``float32 [batch, channels, size, size]`` in tanh's range. A discriminator maps such images (and labels) to
logits or critic scores ``float32 [batch]``; it never ends in a sigmoid, which the loss applies where it is due.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from training.networks import cdcgan, dcgan, gap, mlp, projected, projection


@dataclass(frozen=True)
class Shape:
    """What a pair of networks is built for; ``classes`` is 0 for an unconditional pair."""

    z: int
    classes: int
    channels: int
    size: int


FAMILIES: Mapping[str, Callable[[int, int, int, int, float], tuple[nn.Module, nn.Module]]] = {
    "mlp": mlp.build,
    "mlp-bn": mlp.build_bn,
    "dcgan": dcgan.build,
    "gap": gap.build,
    "gap-critic": gap.build_critic,
    "cdcgan": cdcgan.build,
    "projection": projection.build,
    "projection-fine": projection.build_fine,
    "projection-deep": projection.build_deep,
    "projection-residual": projection.build_residual,
    "projected": projected.build,
}


def build(family: str, shape: Shape, width: float = 1.0) -> tuple[nn.Module, nn.Module]:
    """The (generator, discriminator) of a family; ``width`` scales hidden channels where a family allows it."""
    return FAMILIES[family](shape.z, shape.classes, shape.channels, shape.size, width)
