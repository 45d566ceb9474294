"""Batch norm's running averages: kept as they are during a look, and measured anew for averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from training.recipes import Recipe
from training.sampling import draw_latents, forked


def batch_norms(*nets: nn.Module) -> list[_BatchNorm]:
    """Every batch norm of some networks, conditional ones' own among them."""
    return [module for net in nets for module in net.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def frozen_statistics(*nets: nn.Module) -> Iterator[None]:
    """Let a look at the networks leave their running averages as they were, without leaving training mode."""
    norms = batch_norms(*nets)
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked.clone() for norm in norms if norm.num_batches_tracked is not None]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]


@torch.no_grad()
def recompute_statistics(net: nn.Module, recipe: Recipe, classes: int, device: torch.device, batches: int = 64) -> None:
    """Measure batch norm's mean and variance for averaged weights, over fixed noise and balanced labels; the network
    is in training mode afterwards."""
    for norm in batch_norms(net):
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches
    net.train()
    with forked(device):
        torch.manual_seed(0)
        for _ in range(batches):
            rows = max(recipe.batch, classes)
            label = torch.arange(rows, device=device) % classes if classes else None
            net(draw_latents(recipe, rows, device), label)
