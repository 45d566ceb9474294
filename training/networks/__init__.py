"""Generators and discriminators, one family a file.

A generator maps noise ``float32 [batch, z]`` and, if conditional, labels ``int64 [batch]`` to images
``float32 [batch, channels, size, size]`` in tanh's range. A discriminator maps such images (and labels) to
logits or critic scores ``float32 [batch]``, or ``[batch, heads]`` if it has several; it never ends in a sigmoid, which
the loss applies where it is due.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from training.networks import cdcgan, colour, dcgan, gap, mlp, projection
from training.networks.shape import Shape

__all__ = ["FAMILIES", "Shape", "build"]

FAMILIES: Mapping[str, Callable[[Shape, float], tuple[nn.Module, nn.Module]]] = {
    "mlp": mlp.build,
    "mlp-bn": mlp.build_bn,
    "dcgan": dcgan.build,
    "gap": gap.build,
    "gap-critic": gap.build_critic,
    "cdcgan": cdcgan.build,
    "projection": projection.build,
    "colour": colour.build,
    "heads": colour.build_light,
}


def build(family: str, shape: Shape, width: float = 1.0) -> tuple[nn.Module, nn.Module]:
    """The (generator, discriminator) of a family; ``width`` scales hidden channels where a family allows it."""
    return FAMILIES[family](shape, width)
