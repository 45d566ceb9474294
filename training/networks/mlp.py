"""Fully connected pairs: Goodfellow et al. 2014 (arXiv:1406.2661) and Mirza and Osindero 2014 (arXiv:1411.1784)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.shape import Shape, scaled


def one_hot(label: Tensor, classes: int) -> Tensor:
    """float32 [batch, classes] of int64 [batch]; a comparison, since that exports to ONNX as one cheap node."""
    return (label[:, None] == torch.arange(classes, device=label.device)).float()


class Generator(nn.Module):
    """Noise, with the one-hot label beside it, through linear layers to an image."""

    def __init__(self, shape: Shape, body: nn.Sequential) -> None:
        super().__init__()
        self.shape, self.body = shape, body

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        if label is not None:
            latent = torch.cat([latent, one_hot(label, self.shape.classes)], 1)
        return torch.tanh(self.body(latent)).view(-1, self.shape.channels, self.shape.size, self.shape.size)


class Discriminator(nn.Module):
    """A flattened image, with the one-hot label beside it, through linear layers to a logit."""

    def __init__(self, shape: Shape, hidden: tuple[int, ...]) -> None:
        super().__init__()
        widths = (shape.pixels + shape.classes, *hidden)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2, inplace=True)]
        self.body = nn.Sequential(*layers, nn.Linear(widths[-1], 1))
        self.classes = shape.classes

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        flat = image.flatten(1)
        if label is not None:
            flat = torch.cat([flat, F.one_hot(label, self.classes).float()], 1)
        logit: Tensor = self.body(flat).squeeze(1)
        return logit


def build(shape: Shape, width: float) -> tuple[nn.Module, nn.Module]:
    """Linear 256-512-1024 with ReLU against Linear 1024-512-256 with LeakyReLU 0.2."""
    widths = (shape.z + shape.classes, *scaled((256, 512, 1024), width))
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    generator = Generator(shape, nn.Sequential(*layers, nn.Linear(widths[-1], shape.pixels)))
    return generator, Discriminator(shape, scaled((1024, 512, 256), width))


def build_bn(shape: Shape, width: float) -> tuple[nn.Module, nn.Module]:
    """The same with batch norm on the 512 and 1024 layers, against Linear 512-256.

    The article writes ``BatchNorm1d(n, 0.8)``, whose second argument is eps; momentum is what it means. Keras'
    momentum 0.8 is the share of the old average, so that PyTorch's is 0.2.
    """
    a, b, c = scaled((256, 512, 1024), width)
    body = nn.Sequential(
        nn.Linear(shape.z + shape.classes, a), nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(a, b), nn.BatchNorm1d(b, momentum=0.2), nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(b, c), nn.BatchNorm1d(c, momentum=0.2), nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(c, shape.pixels),
    )  # fmt: skip
    return Generator(shape, body), Discriminator(shape, scaled((512, 256), width))
