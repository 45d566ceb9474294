"""The DCGAN pair of the Keras and PyTorch article (after Radford et al. 2015, arXiv:1511.06434).

At 28 pixels it is the article's network to the letter; at 32 and 64 the same family with a base of 8x8 or 4x4
and as many doublings as are needed, for grey or colour.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from training.networks.fast import Dense, Dropout, Flatten
from training.networks.shape import Shape, scaled


class Generator(nn.Module):
    """Linear to channels x base x base, then transposed convolutions of kernel 4 and stride 2, then a 3x3."""

    def __init__(self, shape: Shape, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = widths
        self.base, _ = shape.base_and_doublings
        self.project = nn.Sequential(nn.Linear(shape.z, widths[0] * self.base * self.base), nn.ReLU(inplace=True))
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(*layers, nn.Conv2d(widths[-1], shape.channels, 3, 1, 1), nn.Tanh())

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.project(latent).view(-1, self.widths[0], self.base, self.base)
        image: Tensor = self.body(x.contiguous(memory_format=torch.channels_last))
        return image


class Discriminator(nn.Module):
    """Convolutions 32 k4 s2, 64 k4 s2, 128 k3 s2, 256 k3 s1, each dropout 0.25 then LeakyReLU 0.2; then Linear."""

    def __init__(self, shape: Shape, width: float) -> None:
        super().__init__()
        plan = [(32, 4, 2), (64, 4, 2), (128, 3, 2), (256, 3, 1)]
        layers: list[nn.Module] = []
        before, edge = shape.channels, shape.size
        for nominal, kernel, stride in plan:
            after = int(nominal * width)
            layers += [
                nn.Conv2d(before, after, kernel, stride, 1),
                Dropout(0.25, inplace=True),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            before, edge = after, (edge + 2 - kernel) // stride + 1
        self.body = nn.Sequential(*layers, Flatten(), Dense(before, edge, 1))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        logit: Tensor = self.body(image).squeeze(1)
        return logit


def build(shape: Shape, width: float) -> tuple[nn.Module, nn.Module]:
    """128 channels at the base and 128, 64 after the doublings, against 32-64-128-256."""
    _, doublings = shape.base_and_doublings
    widths = scaled((128, *([128] * (doublings - 1)), 64), width)
    return Generator(shape, widths), Discriminator(shape, width)
