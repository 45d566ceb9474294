"""Small generators of every family with random weights and random, lived-in norms."""

from __future__ import annotations

import torch
from torch import nn

from training import networks
from training.networks import Shape

SHAPES = {
    "mlp": ("mlp", Shape(20, 0, 1, 28), 0.125),
    "mlp labelled": ("mlp", Shape(20, 10, 1, 28), 0.125),
    "mlp colour": ("mlp", Shape(20, 3, 3, 16), 0.125),
    "mlp-bn": ("mlp-bn", Shape(20, 0, 1, 28), 0.125),
    "mlp-bn labelled": ("mlp-bn", Shape(20, 4, 3, 16), 0.125),
    "dcgan": ("dcgan", Shape(20, 0, 1, 28), 0.125),
    "dcgan colour": ("dcgan", Shape(20, 0, 3, 32), 0.125),
    "gap": ("gap", Shape(20, 0, 1, 28), 0.25),
    "gap colour": ("gap-critic", Shape(20, 0, 3, 32), 0.25),
    "cdcgan": ("cdcgan", Shape(20, 10, 1, 28), 0.25),
    "cdcgan colour": ("cdcgan", Shape(20, 2, 3, 16), 0.25),
    "projection": ("projection", Shape(24, 10, 1, 28), 0.5),
    "projection colour": ("projection", Shape(24, 7, 3, 32), 0.25),
    "projection large": ("projection", Shape(24, 3, 3, 64), 0.25),
}
RANGES = {"cdcgan": (-0.5, 0.5), "cdcgan colour": (-0.5, 0.5)}


def generator(name: str, seed: int = 0) -> nn.Module:
    """In evaluation mode; its images use the whole of tanh's range."""
    family, shape, width = SHAPES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made, _ = networks.build(family, shape, width)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.05, 0.3)
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
                nn.init.normal_(module.weight, 1.0, 0.3)
                nn.init.normal_(module.bias, 0.0, 0.3)
            if isinstance(module, nn.Embedding):
                module.weight.data += 0.4 * torch.randn_like(module.weight)
    return made.eval().requires_grad_(False)
