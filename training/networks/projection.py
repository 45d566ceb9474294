"""The flagship pair: conditional batch norm in the generator, spectral norm and projection of the label in the
discriminator (Miyato et al. 2018, arXiv:1802.05957; Miyato and Koyama 2018, arXiv:1802.05637)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from training.networks.dcgan import base_and_doublings


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift are looked up by label (De Vries et al. 2017, arXiv:1707.00683)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(features, affine=False)
        self.scale = nn.Embedding(classes, features)
        self.shift = nn.Embedding(classes, features)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        scale, shift = self.scale(label)[:, :, None, None], self.shift(label)[:, :, None, None]
        scaled: Tensor = self.norm(x) * scale + shift
        return scaled


class Residual(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))) of an x that is a ReLU's (He et al. 2015, arXiv:1512.03385); at first
    it gives x as it is."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(features, features, 3, 1, 1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(ConditionalBatchNorm(features, classes) for _ in range(2))
        nn.init.zeros_(self.norms[1].scale.weight)  # type: ignore[arg-type, union-attr]

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        inner = torch.relu(self.norms[0](self.convs[0](x), label))
        return torch.relu(x + self.norms[1](self.convs[1](inner), label))


class Generator(nn.Module):
    """Linear to channels x base x base, transposed convolutions k4 s2, a 3x3 to the image; norm before each ReLU.

    ``hidden`` puts a layer of so many units before the first; ``blocks`` adds so many residual pairs of 3x3
    convolutions at the base edge, where a digit's strokes are laid out and a convolution is cheap.
    """

    def __init__(
        self,
        z: int,
        classes: int,
        channels: int,
        widths: tuple[int, ...],
        base: int,
        *,
        hidden: int = 0,
        blocks: int = 0,
    ) -> None:
        super().__init__()
        self.widths, self.base = widths, base
        self.hidden = nn.Linear(z, hidden) if hidden else None
        self.hidden_norm = ConditionalBatchNorm(hidden, classes) if hidden else None
        self.project = nn.Linear(hidden or z, widths[0] * base * base)
        self.blocks = nn.ModuleList(Residual(widths[0], classes) for _ in range(blocks))
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False) for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(ConditionalBatchNorm(w, classes) for w in widths)
        self.out = nn.Conv2d(widths[-1], channels, 3, 1, 1)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        if self.hidden is not None and self.hidden_norm is not None:
            units = self.hidden(latent)[:, :, None, None]
            latent = torch.relu(self.hidden_norm(units, label)).flatten(1)
        x = self.project(latent).view(-1, self.widths[0], self.base, self.base)
        x = torch.relu(self.norms[0](x, label))
        for block in self.blocks:
            x = block(x, label)
        for up, norm in zip(self.ups, self.norms[1:], strict=True):
            x = torch.relu(norm(up(x), label))
        return torch.tanh(self.out(x))


class Discriminator(nn.Module):
    """Spectrally normalised convolutions, a sum over places, and a logit: linear plus <embedding(label), features>.

    ``plan`` names (features, kernel, stride) of each convolution.
    """

    def __init__(self, classes: int, channels: int, plan: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for after, kernel, stride in plan:
            layers += [spectral_norm(nn.Conv2d(before, after, kernel, stride, 1)), nn.LeakyReLU(0.1, inplace=True)]
            before = after
        self.body = nn.Sequential(*layers)
        self.linear = spectral_norm(nn.Linear(before, 1))
        self.embed = spectral_norm(nn.Embedding(classes, before))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        features = self.body(image).sum((2, 3))
        logit: Tensor = self.linear(features).squeeze(1) + (self.embed(label) * features).sum(1)
        return logit


def build(
    z: int,
    classes: int,
    channels: int,
    size: int,
    width: float,
    *,
    tail: Sequence[tuple[int, int, int]] = ((128, 3, 2),),
    hidden: int = 0,
    blocks: int = 0,
) -> tuple[nn.Module, nn.Module]:
    """Widths 64-32-16 against 32-64-128 at 28 pixels; one more stage on both sides from 32 pixels up.

    ``tail`` ends the discriminator, at an edge of 7 or 8 pixels.
    """
    base, doublings = base_and_doublings(size)
    if base == 8:
        base, doublings = 4, doublings + 1
    nominal = {2: (64, 32, 16), 3: (128, 64, 32, 16), 4: (256, 128, 64, 32, 16)}[doublings]
    widths = tuple(int(w * width) for w in nominal)
    generator = Generator(z, classes, channels, widths, base, hidden=hidden, blocks=blocks)
    halvings = [(32, 4, 2), (64, 4, 2)] if doublings == 2 else [(32, 4, 2), (64, 4, 2), (128, 4, 2)]
    plan = [(int(after * width), kernel, stride) for after, kernel, stride in (*halvings, *tail)]
    return generator, Discriminator(classes, channels, plan)


# Sees patches of 18 of 28 pixels on a grid twice as fine.
build_fine = partial(build, tail=((128, 3, 1),))
# Sees the whole image before it sums over places.
build_deep = partial(build, tail=((128, 3, 2), (128, 3, 1)))
# A deeper generator against the same discriminator.
build_residual = partial(build, hidden=256, blocks=1)
