"""Fold batch norm into its neighbours, so that the exported graph has none."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from training.networks.colour import Up
from training.networks.projection import ConditionalBatchNorm


def folded(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode that computes the same without a batch norm of its own.

    A batch norm after a linear or convolution layer of an ``nn.Sequential`` goes into that layer's weights; the
    mean and variance of a conditional one go into its tables of scales and shifts.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.ModuleList):
            for index, layer in enumerate(module):
                if isinstance(layer, Up):
                    module[index] = layer.plain()
        elif isinstance(module, nn.Sequential):
            _fold_sequential(module)
        elif isinstance(module, ConditionalBatchNorm):
            _fold_conditional(module)
    return network


def _fold_sequential(layers: nn.Sequential) -> None:
    for index in range(1, len(layers)):
        before, norm = layers[index - 1], layers[index]
        if isinstance(norm, nn.BatchNorm2d) and isinstance(before, nn.Conv2d | nn.ConvTranspose2d):
            fused: nn.Module = fuse_conv_bn_eval(before, norm, transpose=isinstance(before, nn.ConvTranspose2d))
        elif isinstance(norm, nn.BatchNorm1d) and isinstance(before, nn.Linear):
            fused = fuse_linear_bn_eval(before, norm)
        else:
            continue
        layers[index - 1], layers[index] = fused, nn.Identity()


@torch.no_grad()
def _fold_conditional(module: ConditionalBatchNorm) -> None:
    norm = module.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = module.scale.weight * torch.rsqrt(norm.running_var + norm.eps)
    module.shift.weight.copy_(module.shift.weight - norm.running_mean * scale)
    module.scale.weight.copy_(scale)
    module.norm = nn.Identity()  # type: ignore[assignment]
