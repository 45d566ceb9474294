"""The flagship pair: conditional batch norm in the generator, spectral norm and projection of the label in the
discriminator (Miyato et al. 2018, arXiv:1802.05957; Miyato and Koyama 2018, arXiv:1802.05637)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from training.networks.shape import Shape, scaled


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift are looked up by label (De Vries et al. 2017, arXiv:1707.00683).

    ``apart``: how far apart classes begin, in deviations of what batch norm leaves.
    """

    def __init__(self, features: int, classes: int, apart: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(features, affine=False)
        self.scale = nn.Embedding(classes, features)
        self.shift = nn.Embedding(classes, features)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)
        if apart:
            nn.init.normal_(self.scale.weight, 1, apart)
            nn.init.normal_(self.shift.weight, 0, apart)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        scale, shift = (table(label)[:, :, None, None].to(normed.dtype) for table in (self.scale, self.shift))
        scaled: Tensor = normed * scale + shift
        return scaled


class Generator(nn.Module):
    """Linear to channels x base x base, transposed convolutions k4 s2, a 3x3 to the image; norm before each ReLU."""

    def __init__(self, shape: Shape, widths: tuple[int, ...], base: int, apart: float) -> None:
        super().__init__()
        self.widths, self.base = widths, base
        self.project = nn.Linear(shape.z, widths[0] * base * base)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False) for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(ConditionalBatchNorm(w, shape.classes, apart) for w in widths)
        self.out = nn.Conv2d(widths[-1], shape.channels, 3, 1, 1)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        x = self.project(latent).view(-1, self.widths[0], self.base, self.base)
        x = torch.relu(self.norms[0](x, label))
        for up, norm in zip(self.ups, self.norms[1:], strict=True):
            x = torch.relu(norm(up(x), label))
        return torch.tanh(self.out(x))


class Discriminator(nn.Module):
    """Spectrally normalised convolutions, a sum over places, and a logit: linear plus <embedding(label), features>.

    ``plan`` names (features, kernel, stride) of each convolution.
    """

    def __init__(self, shape: Shape, plan: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = shape.channels
        for after, kernel, stride in plan:
            layers += [spectral_norm(nn.Conv2d(before, after, kernel, stride, 1)), nn.LeakyReLU(0.1, inplace=True)]
            before = after
        self.body = nn.Sequential(*layers)
        self.linear = spectral_norm(nn.Linear(before, 1))
        self.embed = spectral_norm(nn.Embedding(shape.classes, before))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        features = self.body(image).sum((2, 3))
        logit: Tensor = self.linear(features).squeeze(1) + (self.embed(label) * features).sum(1)
        return logit


def build(shape: Shape, width: float, *, apart: float = 0.0) -> tuple[nn.Module, nn.Module]:
    """Widths 64-32-16 against 32-64-128 at 28 pixels; one more stage on both sides from 32 pixels up."""
    base, doublings = shape.base_and_doublings
    if base == 8:
        base, doublings = 4, doublings + 1
    widths = scaled({2: (64, 32, 16), 3: (128, 64, 32, 16), 4: (256, 128, 64, 32, 16)}[doublings], width)
    halvings = [(32, 4, 2), (64, 4, 2)] if doublings == 2 else [(32, 4, 2), (64, 4, 2), (128, 4, 2)]
    plan = [(int(after * width), kernel, stride) for after, kernel, stride in (*halvings, (128, 3, 2))]
    return Generator(shape, widths, base, apart), Discriminator(shape, plan)
