"""The DCGAN pair of the Keras and PyTorch article (after Radford et al. 2015, arXiv:1511.06434).

At 28 pixels it is the article's network to the letter; at 32 and 64 the same family with a base of 8x8 or 4x4
and as many doublings as are needed, for grey or colour.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.dropout import Dropout


def base_and_doublings(size: int) -> tuple[int, int]:
    """The edge of the first feature map and the number of doublings that lead to ``size``."""
    for doublings in (2, 3, 4):
        base, rest = divmod(size, 2**doublings)
        if not rest and base <= 8:
            return base, doublings
    raise ValueError(f"no network of this family makes images of {size} pixels: take 8, 16, 28, 32, 64 or 128")


class Dense(nn.Linear):
    """``Flatten`` and ``Linear`` over maps float32 [batch, channels, height, width] that lie in ``channels_last``.

    Parameters and results are those of the two modules, but the few weights are laid out as the many features are,
    and not the other way round; so no feature is copied, and no gradient walks against the memory.
    """

    def forward(self, maps: Tensor) -> Tensor:
        weight = self.weight.unflatten(1, maps.shape[1:]).permute(0, 2, 3, 1).flatten(1)
        return F.linear(maps.permute(0, 2, 3, 1).flatten(1), weight, self.bias)


class Generator(nn.Module):
    """Linear to channels x base x base, then transposed convolutions of kernel 4 and stride 2, then a 3x3."""

    def __init__(self, z: int, channels: int, size: int, widths: tuple[int, ...], base: int) -> None:
        super().__init__()
        self.widths, self.base = widths, base
        self.project = nn.Sequential(nn.Linear(z, widths[0] * base * base), nn.ReLU(inplace=True))
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(*layers, nn.Conv2d(widths[-1], channels, 3, 1, 1), nn.Tanh())

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.project(latent).view(-1, self.widths[0], self.base, self.base)
        image: Tensor = self.body(x.contiguous(memory_format=torch.channels_last))
        return image


class Discriminator(nn.Module):
    """Convolutions 32 k4 s2, 64 k4 s2, 128 k3 s2, 256 k3 s1, each dropout 0.25 then LeakyReLU 0.2; then Linear."""

    def __init__(self, channels: int, size: int, width: float) -> None:
        super().__init__()
        plan = [(32, 4, 2), (64, 4, 2), (128, 3, 2), (256, 3, 1)]
        layers: list[nn.Module] = []
        before, edge = channels, size
        for nominal, kernel, stride in plan:
            after = int(nominal * width)
            layers += [
                nn.Conv2d(before, after, kernel, stride, 1),
                Dropout(0.25, inplace=True),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            before, edge = after, (edge + 2 - kernel) // stride + 1
        # Checkpoints name a layer by its place, and a flattening stood before the last one.
        self.body = nn.Sequential(*layers, nn.Identity(), Dense(before * edge * edge, 1))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        logit: Tensor = self.body(image).squeeze(1)
        return logit


def build(z: int, classes: int, channels: int, size: int, width: float) -> tuple[nn.Module, nn.Module]:
    """128 channels at the base and 128, 64 after the doublings, against 32-64-128-256."""
    base, doublings = base_and_doublings(size)
    nominal = (128, *([128] * (doublings - 1)), 64)
    widths = tuple(int(w * width) for w in nominal)
    return Generator(z, channels, size, widths, base), Discriminator(channels, size, width)
