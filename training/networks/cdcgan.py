"""The conditional DCGAN of the TensorFlow article: the one-hot label beside the noise, and in the discriminator
as constant feature maps beside the image's channels."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.dcgan import Dense, base_and_doublings
from training.networks.mlp import one_hot


class Generator(nn.Module):
    """Noise and one-hot label through a linear layer and transposed convolutions to tanh."""

    def __init__(self, z: int, classes: int, channels: int, widths: tuple[int, ...], base: int) -> None:
        super().__init__()
        self.classes, self.widths, self.base = classes, widths, base
        features = widths[0] * base * base
        self.project = nn.Sequential(
            nn.Linear(z + classes, features, bias=False), nn.BatchNorm1d(features), nn.ReLU(inplace=True)
        )
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1), nn.Tanh())

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        x = self.project(torch.cat([latent, one_hot(label, self.classes)], 1))
        image: Tensor = self.body(x.view(-1, self.widths[0], self.base, self.base))
        return image


class Discriminator(nn.Module):
    """Stride-2 convolutions over the image and one constant map a class; batch norm on all but the first."""

    def __init__(self, classes: int, channels: int, size: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.classes = classes
        layers: list[nn.Module] = []
        before, edge = channels + classes, size
        for index, after in enumerate(widths):
            layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=index == 0))
            if index:
                layers.append(nn.BatchNorm2d(after))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            before, edge = after, edge // 2
        # Checkpoints name a layer by its place, and a flattening stood before the last one.
        self.body = nn.Sequential(*layers, nn.Identity(), Dense(before * edge * edge, 1))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        first = self.body[0]
        assert isinstance(first, nn.Conv2d)
        pixels = image.shape[1]
        # Convolution is linear and a class's map is one number everywhere: its share is computed once a class and
        # looked up, instead of once an image over mostly empty maps.
        maps = torch.eye(self.classes, device=image.device, dtype=image.dtype)[:, :, None, None]
        maps = maps.expand(-1, -1, *image.shape[2:])
        shares = F.conv2d(maps, first.weight[:, pixels:], first.bias, first.stride, first.padding)
        x = F.conv2d(image, first.weight[:, :pixels], None, first.stride, first.padding)
        # Looked up as rows laid out as the maps are, which is several times as fast as an index, above all backwards.
        table = shares.permute(0, 2, 3, 1)
        x += F.embedding(label, table.flatten(1)).unflatten(1, table.shape[1:]).permute(0, 3, 1, 2)
        logit: Tensor = self.body[1:](x).squeeze(1)
        return logit


def build(z: int, classes: int, channels: int, size: int, width: float) -> tuple[nn.Module, nn.Module]:
    """128 and 64 channels in the generator, 64 and 128 in the discriminator (the article leaves them open)."""
    base, doublings = base_and_doublings(size)
    widths = tuple(int(w * width) for w in (128, 64, 32, 16)[:doublings])
    discriminator = Discriminator(classes, channels, size, (int(64 * width), int(128 * width)))
    return Generator(z, classes, channels, widths, base), discriminator
