"""Frozen features of images: convolutions that were taught once, and then belong to no optimiser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Convolution = tuple[int, int, int]  # features, kernel, stride


class Taught(nn.Module):
    """A discriminator that looks through frozen features, which are taught before a run's first step."""

    def teach(self, images: Tensor, labels: Tensor, *, seed: int, shown: int, mirror: bool) -> None:
        """Train them on uint8 [n, c, h, w] and labels int64 [n], showing them ``shown`` images at most, mirrored or
        not."""
        raise NotImplementedError


class Features(nn.Module):
    """Convolutions with ReLU whose weights are buffers: they are taught once, then no optimiser sees them."""

    def __init__(self, channels: int, plan: Sequence[Convolution]) -> None:
        super().__init__()
        self.plan, before = plan, channels
        for index, (after, kernel, _) in enumerate(plan):
            self.register_buffer(f"weight{index}", torch.empty(after, before, kernel, kernel).normal_(std=0.05))
            self.register_buffer(f"bias{index}", torch.zeros(after))
            before = after

    def forward(self, image: Tensor) -> list[Tensor]:
        """Each stage's float32 [batch, features, edge, edge] of images in tanh's range."""
        stages, x = [], image
        for index, (_, _, stride) in enumerate(self.plan):
            x = F.relu(F.conv2d(x, self.get_buffer(f"weight{index}"), self.get_buffer(f"bias{index}"), stride, 1))
            stages.append(x)
        return stages

    @torch.no_grad()
    def load(self, stages: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]]) -> None:
        """Take over taught convolutions, each with its batch norm folded in."""
        for index, (convolution, norm) in enumerate(stages):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            self.get_buffer(f"weight{index}").copy_(convolution.weight * scale[:, None, None, None])
            self.get_buffer(f"bias{index}").copy_(norm.bias - norm.running_mean * scale)
