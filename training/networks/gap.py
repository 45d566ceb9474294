"""DCGAN with global average pooling in place of the dense layer, and its critics for WGAN and WGAN-GP.

Radford et al. 2015 (arXiv:1511.06434), Arjovsky et al. 2017 (arXiv:1701.07875), Gulrajani et al. 2017
(arXiv:1704.00028): the latter replaces the critic's batch norm by layer norm, since a penalty on the gradient of
each image needs a critic that looks at each image alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from torch import Tensor, nn

from training.networks.shape import Shape, scaled


class Generator(nn.Module):
    """Noise as a 1x1 map, upsampled by transposed convolutions; batch norm on all but the output; ReLU; tanh."""

    def __init__(self, shape: Shape, widths: tuple[int, ...]) -> None:
        super().__init__()
        base, _ = shape.base_and_doublings
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(shape.z, widths[0], base, 1, 0, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], shape.channels, 4, 2, 1), nn.Tanh())

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        image: Tensor = self.body(latent[:, :, None, None])
        return image


class Discriminator(nn.Module):
    """Stride-2 convolutions with LeakyReLU 0.2, no pooling between, the norm on all but the input layer, then a
    3x3 convolution to one score a place and the average over the places."""

    def __init__(self, shape: Shape, widths: tuple[int, ...], norm: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, edge = shape.channels, shape.size
        for index, after in enumerate(widths):
            edge = (edge + 1) // 2 if index == len(widths) - 1 else edge // 2
            kernel = 3 if index == len(widths) - 1 else 4
            layers.append(nn.Conv2d(before, after, kernel, 2, 1))
            if index:
                layers.append(norm(after, edge))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            before = after
        self.body = nn.Sequential(*layers, nn.Conv2d(before, 1, 3, 1, 1))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        score: Tensor = self.body(image).mean((1, 2, 3))
        return score


def _pair(shape: Shape, width: float, norm: Callable[[int, int], nn.Module]) -> tuple[nn.Module, nn.Module]:
    """A critic with this norm, of (channels, edge), and its generator; the critic's weights are drawn first."""
    _, doublings = shape.base_and_doublings
    critic = Discriminator(shape, scaled((32, 64, 128), width), norm)
    return Generator(shape, scaled((128, 64, 32, 16)[:doublings], width)), critic


def build(shape: Shape, width: float) -> tuple[nn.Module, nn.Module]:
    """The pair with batch norm on both sides (``dcgan-gap`` and ``wgan``)."""
    return _pair(shape, width, lambda channels, edge: nn.BatchNorm2d(channels))


def build_critic(shape: Shape, width: float) -> tuple[nn.Module, nn.Module]:
    """The pair with layer norm in the critic (``wgan-gp``)."""
    return _pair(shape, width, lambda channels, edge: nn.LayerNorm([channels, edge, edge]))
