"""The pair for colour: a generator without checkerboards, and heads on the picture and on frozen features.

What a discriminator must learn of shapes it learns slowly, and from few pictures not at all. A classifier of the same
pictures learns it in minutes; so heads on its frozen features (Sauer et al. 2021, arXiv:2111.01007) tell real from
generated, each for itself, beside one on the raw picture. Each has spectral norm (Miyato et al. 2018, arXiv:1802.05957)
and a projection of the label (Miyato and Koyama 2018, arXiv:1802.05637). The classifier is taught at the start of the
run, on the run's own pictures; all of them are seen through :mod:`training.augment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import augment, teacher
from training.features import Convolution, Features, Taught
from training.measure.classifier import augment as moved
from training.networks import projection
from training.networks.projection import ConditionalBatchNorm
from training.networks.shape import Shape, scaled

# How far apart the small generator's classes begin: alike, they are the last thing that it learns.
APART = 0.6
# Real images from which the scale of features is taken.
CALIBRATED = 512
# Features by stage, and the stages whose features have a head.
SEEN = ((64, 3, 1), (64, 3, 1), (128, 3, 2), (128, 3, 1), (256, 3, 2), (256, 3, 1))
HEADED = (2, 4, 6)
# Features, kernel and stride of the convolutions of each head.
RAW = ((64, 3, 1), (128, 3, 2), (192, 3, 2))
HEADS = (((128, 3, 2), (192, 3, 2)), ((192, 3, 2), (192, 1, 1)), ((256, 1, 1), (256, 1, 1)))


class Up(nn.Module):
    """Nearest enlargement by two and a 3x3 convolution, as the one transposed convolution of 4x4 and stride 2 that
    equals them: every pixel is made of equally many weights, so there are no dots and no checkerboard (Odena et al.
    2016), in 4/9 of the work."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(before, after, 3, 3))
        nn.init.orthogonal_(self.weight)

    @property
    def kernel(self) -> Tensor:
        """float32 [before, after, 4, 4] of that transposed convolution."""
        w = self.weight
        return F.pad(w, (0, 1, 0, 1)) + F.pad(w, (1, 0, 0, 1)) + F.pad(w, (0, 1, 1, 0)) + F.pad(w, (1, 0, 1, 0))

    @torch.no_grad()
    def take(self, kernel: Tensor) -> None:
        """The inverse of :attr:`kernel`."""
        undo = torch.tensor([[1.0, 0, 0, 0], [-1, 1, 0, 0], [0, 0, 0, 1]], device=kernel.device)
        self.weight.copy_(torch.einsum("yi,abij,xj->abyx", undo, kernel, undo))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.kernel, None, 2, 1)

    def plain(self) -> nn.ConvTranspose2d:
        """PyTorch's own layer that computes the same."""
        before, after = self.weight.shape[:2]
        made = nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)
        made.weight = nn.Parameter(self.kernel.detach().clone(), requires_grad=False)
        return made


class Generator(nn.Module):
    """Linear to features x base x base, then ``plan``: (features, whether it enlarges) of each 3x3 convolution, and one
    to the image. Conditional batch norm before each ReLU."""

    def __init__(self, shape: Shape, first: int, plan: Sequence[tuple[int, bool]], base: int) -> None:
        super().__init__()
        self.width, self.base = first, base
        self.project = nn.Linear(shape.z, first * base * base)
        layers: list[nn.Module] = []
        norms = [ConditionalBatchNorm(first, shape.classes)]
        before = first
        for after, enlarges in plan:
            layers.append(Up(before, after) if enlarges else nn.Conv2d(before, after, 3, 1, 1, bias=False))
            norms.append(ConditionalBatchNorm(after, shape.classes))
            before = after
        self.layers, self.norms = nn.ModuleList(layers), nn.ModuleList(norms)
        self.out = nn.Conv2d(before, shape.channels, 3, 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.orthogonal_(module.weight)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        x = self.project(latent).view(-1, self.width, self.base, self.base)
        x = torch.relu(self.norms[0](x, label))
        for layer, norm in zip(self.layers, self.norms[1:], strict=True):
            x = torch.relu(norm(layer(x), label))
        return torch.tanh(self.out(x))


class Spectral(nn.Module):
    """A weight over its spectral norm, by one power iteration for each pass that is to change it (PyTorch's own
    parametrisation makes one for every pass in training mode)."""

    left: Tensor
    right: Tensor

    def __init__(self, *shape: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.orthogonal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        self.register_buffer("left", F.normalize(torch.randn(shape[0]), dim=0))
        self.register_buffer("right", torch.zeros(self.weight[0].numel()))
        for _ in range(15):
            self._iterate()

    @torch.no_grad()
    def _iterate(self) -> None:
        rows = self.weight.flatten(1)
        self.right.copy_(F.normalize(rows.T @ self.left, dim=0))
        self.left.copy_(F.normalize(rows @ self.right, dim=0))

    def forward(self) -> Tensor:
        """float32, of the weight's shape."""
        if self.training and torch.is_grad_enabled() and self.weight.requires_grad:
            self._iterate()
        norm = torch.dot(self.left.clone(), self.weight.flatten(1) @ self.right.clone())
        return self.weight / norm


class Head(nn.Module):
    """Convolutions with leaky ReLU, a mean over places, and a logit: linear plus <embedding(label), features>."""

    def __init__(self, before: int, plan: Sequence[Convolution], classes: int) -> None:
        super().__init__()
        self.strides = [stride for _, _, stride in plan]
        layers = []
        for after, kernel, _ in plan:
            layers.append(Spectral(after, before, kernel, kernel))
            before = after
        self.layers = nn.ModuleList(layers)
        self.linear, self.embed = Spectral(1, before), Spectral(classes, before, bias=False)

    def weights(self) -> list[Tensor]:
        """Of its layers in turn, normalised, in full precision."""
        return [layer() for layer in (*self.layers, self.linear, self.embed)]

    def forward(self, x: Tensor, label: Tensor, weights: list[Tensor]) -> Tensor:
        *layers, linear, embed = weights
        for layer, weight, stride in zip(self.layers, layers, self.strides, strict=True):
            bias = layer.bias
            assert isinstance(bias, Tensor)
            x = F.leaky_relu_(F.conv2d(x, weight, bias, stride, weight.shape[2] // 2), 0.1)
        told = x.float().mean((2, 3)) * 4
        assert self.linear.bias is not None
        score: Tensor = (told * (linear + embed[label])).sum(1) + self.linear.bias
        return score


class Discriminator(Taught):
    """Scores [batch, heads]: of the picture and of three stages of frozen features.

    ``varied``: images are seen through :mod:`training.augment`, without which few of them are known by heart.
    """

    scale: Tensor

    def __init__(self, shape: Shape, width: float, *, varied: bool = True) -> None:
        super().__init__()
        self.classes, self.varied = shape.classes, varied
        first = (48, 6, 4) if shape.size > 32 else (48, 4, 2)
        self.features = Features(shape.channels, tuple((int(n * width), k, s) for n, k, s in (first, *SEEN)))
        self.register_buffer("scale", torch.ones(len(HEADED)))
        self.shuffle = 4 if shape.size > 32 else 2
        seen = [shape.channels * self.shuffle**2, *(self.features.plan[stage][0] for stage in HEADED)]
        plans = [tuple((int(n * width), k, s) for n, k, s in plan) for plan in (RAW, *HEADS)]
        self.heads = nn.ModuleList(Head(n, plan, shape.classes) for n, plan in zip(seen, plans, strict=True))

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        if self.training and self.varied:
            image = augment.differentiable(image)
        image = image.contiguous(memory_format=torch.channels_last)
        views = [F.pixel_unshuffle(image, self.shuffle), *self._seen(image)]
        with torch.autocast(image.device.type, enabled=False):
            weights = [head.weights() for head in self.heads if isinstance(head, Head)]
        parts = zip(self.heads, views, weights, strict=True)
        return torch.stack([head(view, label, weight) for head, view, weight in parts], 1)

    def _seen(self, image: Tensor) -> list[Tensor]:
        stages = self.features(image)
        return [stages[stage] * scale.to(stages[stage].dtype) for stage, scale in zip(HEADED, self.scale, strict=True)]

    def teach(self, images: Tensor, labels: Tensor, *, seed: int, shown: int, mirror: bool) -> None:
        """As :meth:`training.features.Taught.teach`."""
        plan, change = self.features.plan, partial(_changed, mirror=mirror)
        stages, _ = teacher.teach(
            plan, images, labels, self.classes, seed=seed, shown=shown, passes=100, batch=256, change=change
        )
        self.features.load(stages)
        with torch.no_grad():
            self.scale.fill_(1)
            seen = self._seen(images[:CALIBRATED].float() / 127.5 - 1)
            self.scale.copy_(torch.stack([1 / x.square().mean().sqrt().clamp_min(1e-6) for x in seen]))


def _changed(image: Tensor, *, mirror: bool) -> Tensor:
    """What the frozen network is shown of images in 0..1, in tanh's range."""
    image = moved(image, 0.08, flip=mirror) * 2 - 1
    return augment.cutout(augment.colour(image))


def build(shape: Shape, width: float) -> tuple[nn.Module, nn.Module]:
    """27 M multiply-adds an image at 32 pixels, 30 M at 64; a discriminator of 24 M on features of 45 M."""
    base, doublings = shape.base_and_doublings
    if base == 8:
        base, doublings = 4, doublings + 1
    first, plan = {
        2: (128, ((64, True), (64, False), (32, True))),
        3: (256, ((96, True), (96, False), (48, True), (48, False), (32, True))),
        4: (192, ((96, True), (96, False), (48, True), (32, True), (16, True))),
    }[doublings]
    (first,) = scaled((first,), width)
    widths = scaled(tuple(after for after, _ in plan), width)
    layers = [(after, enlarges) for after, (_, enlarges) in zip(widths, plan, strict=True)]
    return Generator(shape, first, layers, base), Discriminator(shape, width)


def build_light(shape: Shape, width: float) -> tuple[nn.Module, nn.Module]:
    """The generator of :mod:`training.networks.projection` against heads of half the width, for pictures that are too
    many to be known by heart."""
    generator, _ = projection.build(shape, width, apart=APART)
    return generator, Discriminator(shape, width / 2, varied=False)
