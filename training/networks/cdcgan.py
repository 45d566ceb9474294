"""The conditional DCGAN of the TensorFlow article: the one-hot label beside the noise, and in the discriminator
as constant feature maps beside the image's channels."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.dcgan import Dense, base_and_doublings
from training.networks.mlp import one_hot
from training.networks.parts import BatchNorm2d


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
        x = x.view(-1, self.widths[0], self.base, self.base)
        image: Tensor = self.body(x.contiguous(memory_format=torch.channels_last))
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
                layers.append(BatchNorm2d(after))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            before, edge = after, edge // 2
        # Checkpoints name a layer by its place, and a flattening stood before the last one.
        self.body = nn.Sequential(*layers, nn.Identity(), Dense(before * edge * edge, 1))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        first = self.body[0]
        assert isinstance(first, nn.Conv2d)
        assert isinstance(first.padding, tuple)
        pixels, size = image.shape[1], image.shape[2:]
        # Convolution is linear and a class's map is one number everywhere: what it adds differs between positions only
        # by how much of the patch lies in the padding, and is the same for all images of the class.
        inside = F.unfold(image.new_ones(1, 1, *size), first.kernel_size, padding=first.padding, stride=first.stride)
        weights = first.weight[:, pixels:].permute(2, 3, 1, 0).flatten(2).flatten(0, 1)
        by_class = (inside[0].t() @ weights).unflatten(1, (self.classes, -1)) + first.bias
        x = F.conv2d(image, first.weight[:, :pixels], None, first.stride, first.padding)
        added = one_hot(label, self.classes) @ by_class.transpose(0, 1).flatten(1)
        x += added.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
        logit: Tensor = self.body[1:](x).squeeze(1)
        return logit


def build(z: int, classes: int, channels: int, size: int, width: float) -> tuple[nn.Module, nn.Module]:
    """128 and 64 channels in the generator, 64 and 128 in the discriminator (the article leaves them open)."""
    base, doublings = base_and_doublings(size)
    widths = tuple(int(w * width) for w in (128, 64, 32, 16)[:doublings])
    discriminator = Discriminator(classes, channels, size, (int(64 * width), int(128 * width)))
    return Generator(z, classes, channels, widths, base), discriminator
