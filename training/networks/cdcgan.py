"""The conditional DCGAN of the TensorFlow article: the one-hot label beside the noise, and in the discriminator
as constant feature maps beside the image's channels."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from training.networks.fast import Dense, Flatten, LabelMapConv2d
from training.networks.mlp import one_hot
from training.networks.shape import Shape, scaled


class Generator(nn.Module):
    """Noise and one-hot label through a linear layer and transposed convolutions to tanh."""

    def __init__(self, shape: Shape, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.classes, self.widths = shape.classes, widths
        self.base, _ = shape.base_and_doublings
        features = widths[0] * self.base * self.base
        self.project = nn.Sequential(
            nn.Linear(shape.z + shape.classes, features, bias=False), nn.BatchNorm1d(features), nn.ReLU(inplace=True)
        )
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], shape.channels, 4, 2, 1), nn.Tanh())

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        x = self.project(torch.cat([latent, one_hot(label, self.classes)], 1))
        x = x.view(-1, self.widths[0], self.base, self.base)
        image: Tensor = self.body(x.contiguous(memory_format=torch.channels_last))
        return image


class Discriminator(nn.Module):
    """Stride-2 convolutions over the image and one constant map a class; batch norm on all but the first."""

    def __init__(self, shape: Shape, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            LabelMapConv2d(shape.channels, shape.classes, widths[0], 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        edge = shape.size // 2
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.Conv2d(before, after, 4, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            edge //= 2
        self.body = nn.Sequential(*layers, Flatten(), Dense(widths[-1], edge, 1))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.body[0](image, label)
        logit: Tensor = self.body[1:](x).squeeze(1)
        return logit


def build(shape: Shape, width: float) -> tuple[nn.Module, nn.Module]:
    """128 and 64 channels in the generator, 64 and 128 in the discriminator (the article leaves them open)."""
    _, doublings = shape.base_and_doublings
    widths = scaled((128, 64, 32, 16)[:doublings], width)
    discriminator = Discriminator(shape, scaled((64, 128), width))  # its weights are drawn first
    return Generator(shape, widths), discriminator
