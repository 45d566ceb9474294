"""The flagship's generator against a discriminator that sees pixels and frozen features as well.

After Projected GAN (Sauer et al. 2021, arXiv:2111.01007): a discriminator on features of a network that was trained
beforehand and stays as it is sees what is wrong with an image's meaning long before one on pixels has learnt to. The
frozen network is a small classifier of the run's own training images (:mod:`training.teacher`), of another
architecture than any judge, which takes no part. The projection of the label is Miyato and Koyama's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from training.networks import projection

# Features, kernel and stride of the frozen network's convolutions.
SEEN = ((32, 4, 2), (64, 4, 2), (96, 3, 2))


class Features(nn.Module):
    """Convolutions with ReLU whose weights are buffers: they are taught once, then no optimiser sees them."""

    def __init__(self, channels: int, plan: Sequence[tuple[int, int, int]] = SEEN) -> None:
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


class Head(nn.Module):
    """One convolution over a stage, a sum over places, and a logit with the label's projection."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            spectral_norm(nn.Conv2d(before, after, kernel, stride, kernel // 2)), nn.LeakyReLU(0.1, inplace=True)
        )
        self.linear = spectral_norm(nn.Linear(after, 1))
        self.embed = spectral_norm(nn.Embedding(classes, after))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        features = self.body(x).sum((2, 3))
        logit: Tensor = self.linear(features).squeeze(1) + (self.embed(label) * features).sum(1)
        return logit


class Discriminator(nn.Module):
    """Logits float32 [batch, 3]: of the pixels, and of two stages of frozen features."""

    def __init__(self, pixels: nn.Module, classes: int, channels: int, width: float) -> None:
        super().__init__()
        self.pixels, self.features = pixels, Features(channels)
        self.heads = nn.ModuleList(
            [
                Head(SEEN[1][0], int(96 * width), 3, 2, classes),
                Head(SEEN[2][0], int(128 * width), 1, 1, classes),
            ]
        )

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        stages = self.features(image)[1:]
        told = [head(stage, label) for head, stage in zip(self.heads, stages, strict=True)]
        return torch.stack([self.pixels(image, label), *told], 1)


def build(z: int, classes: int, channels: int, size: int, width: float) -> tuple[nn.Module, nn.Module]:
    """The generator and the pixels' discriminator of :func:`training.networks.projection.build`, and two heads."""
    generator, pixels = projection.build(z, classes, channels, size, width)
    return generator, Discriminator(pixels, classes, channels, width)
