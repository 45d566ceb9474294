"""The second stage of the flagship and its finish: class by class, generated images get the moments of real ones.

A discriminator tells images apart one by one, and near the end of a training it no longer sees that a class has a
little too little of this and too much of that. Means and covariances of features show just that (Li et al. 2015,
arXiv:1502.02761; dos Santos et al. 2019, arXiv:1904.02762: features of a network that was trained beforehand). Between
two Gaussians the way from one to the other is known in closed form, a linear map (Olkin and Pukelsheim 1982), so each
generated image is told where its features should move to; the gradient is that of the Frechet distance itself.

The frozen networks are small classifiers of the run's own training images (:mod:`training.teacher`), several that
differ in their random start: what one alone is shown is soon fitted to that one. No judge takes part, neither its
weights nor its architecture, so that what a judge then says is news.

Where the last corrections are small, noise in the moments drowns them. For those there is :data:`FINE`: deeper
networks, all of which see every batch, and a map that leaves alone what may be chance (after Ledoit and Wolf 2004).
It also tells how far an image's margin (the logit of its class over the best other one) falls short of what nearly
all real images have: a push for the few that nobody can read, and none for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import teacher
from training.features import Convolution, Features


@dataclass(frozen=True)
class Plan:
    """The frozen networks and what is asked of them.

    Attributes:
        networks: features, kernel and stride of each one's convolutions; they take turns.
        window: images of a class over which the moments of generated images are averaged: fewer are noise, more lag
            behind.
        together: every network takes the moments of every batch, not only of those of its turn.
        shrink: leave alone what may be chance.
        margin: tell what falls short of the margins of real images.
    """

    networks: Sequence[Sequence[Convolution]]
    window: int
    together: bool = False
    shrink: bool = False
    margin: bool = False


SEEN = ((32, 4, 2), (64, 4, 2), (96, 3, 2))
_DEEPER = ((32, 4, 2), (64, 3, 1), (96, 3, 2), (128, 3, 1), (128, 3, 2))
COARSE = Plan((SEEN,) * 4, window=500)
FINE = Plan((_DEEPER,) * 2, window=1000, together=True, shrink=True, margin=True)

# Images that a frozen network is shown at most.
MOST_SHOWN = 300_000
# Principal components kept of each space.
COMPONENTS = 48
# Steps between two solutions for the map.
REFRESH = 50
# Added to every variance, which is 1 on average: directions that real images hardly use are not blown up.
RIDGE = 0.02
# Squared way, in a component's mean variance, from which on it counts linearly. A good generator's mean is below 1;
# 25 was slower and no better.
FAR = 1.0
# The share of a class's real images whose margins may be smaller.
UNCLEAR = 0.02


class Moments(nn.Module):
    """Mean [classes, d] and covariance [classes, d, d] of features, exponentially forgotten."""

    mean: Tensor
    second: Tensor

    def __init__(self, classes: int, d: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(classes, d, dtype=torch.float64))
        self.register_buffer("second", torch.zeros(classes, d, d, dtype=torch.float64))

    @property
    def covariance(self) -> Tensor:
        """float64 [classes, d, d]."""
        return self.second - self.mean[:, :, None] * self.mean[:, None, :]

    def add(self, features: Tensor, labels: Tensor, window: float) -> None:
        """Average in features float32 [n, d] of labels int64 [n]; ``window`` 0 replaces what was there."""
        x = features.double()
        for label in labels.unique().tolist():
            rows = x[labels == label]
            keep = (1 - 1 / window) ** len(rows) if window else 0.0
            self.mean[label].lerp_(rows.mean(0), 1 - keep)
            self.second[label].lerp_(rows.T @ rows / len(rows), 1 - keep)


class Space(nn.Module):
    """One pooled stage of the frozen network in its principal components, with both sides' moments."""

    basis: Tensor
    map: Tensor
    images: Tensor

    def __init__(self, features: int, classes: int, d: int) -> None:
        super().__init__()
        # Real images of each class.
        self.register_buffer("images", torch.zeros(classes, dtype=torch.float64))
        self.register_buffer("basis", torch.zeros(features, d))
        self.register_buffer("map", torch.zeros(classes, d, d))
        self.real, self.fake = Moments(classes, d), Moments(classes, d)

    def learn(self, features: Tensor, labels: Tensor) -> None:
        """Take the components and the real moments from features float32 [n, features]."""
        centred = features.double() - features.double().mean(0)
        d = self.basis.shape[1]
        values, vectors = _components(centred, d)
        scale = values[-d:].mean().clamp_min(1e-12).sqrt()
        self.basis.copy_(vectors[:, -d:] / scale)
        seen = features @ self.basis
        self.real.add(seen, labels, 0)
        # A class of few images borrows the shape of all.
        covariance = self.real.covariance
        counts = torch.bincount(labels, minlength=len(covariance)).double()
        self.images.copy_(counts)
        pooled = (covariance * counts[:, None, None]).sum(0) / counts.sum()
        share = (2 * d / (2 * d + counts))[:, None, None]
        mean = self.real.mean
        self.real.second.copy_(covariance.lerp(pooled.expand_as(covariance), share))
        self.real.second.add_(mean[:, :, None] * mean[:, None, :])

    def solve(self, window: float = 0) -> None:
        """The map of each class that takes the generated Gaussian to the real one:
        R (R F R)^(-1/2) R with R the root of the real covariance and F the generated one.

        If ``window`` is given, the images over which F was averaged, F is drawn towards a multiple of the real
        covariance by as much of its difference as the samples' size alone explains.
        """
        ridge = RIDGE * torch.eye(self.basis.shape[1], dtype=torch.float64, device=self.basis.device)
        real, fake = self.real.covariance + ridge, self.fake.covariance + ridge
        root = _power(real, 0.5)
        if window:
            whiten = _power(real, -0.5)
            # An average that forgets exponentially is worth twice its window.
            fake = root @ shrunk(whiten @ fake @ whiten, 1 / (1 / (2 * window) + 1 / self.images)) @ root
        between = _power(root @ fake @ root, -0.5)
        self.map.copy_(root @ between @ root)

    def target(self, features: Tensor, labels: Tensor) -> Tensor:
        """Where features float32 [n, d] should move to."""
        moved = (features.double() - self.fake.mean[labels]).float()
        target: Tensor = torch.bmm(moved[:, None], self.map[labels]).squeeze(1) + self.real.mean[labels].float()
        return target


class View(nn.Module):
    """One frozen network with its spaces."""

    calls: Tensor
    weight: Tensor
    bias: Tensor
    clear: Tensor

    def __init__(
        self,
        channels: int,
        classes: int,
        size: int,
        images: int,
        plan: Plan,
        stages: Sequence[Convolution],
    ) -> None:
        super().__init__()
        self.plan = plan
        self.features = Features(channels, stages)
        # The network's last layer, and the least margin of each class that is clear enough.
        self.register_buffer("weight", torch.zeros(classes, stages[-1][0]))
        self.register_buffer("bias", torch.zeros(classes))
        self.register_buffer("clear", torch.zeros(classes))
        with torch.no_grad():
            probe = self._pooled(torch.zeros(2, channels, size, size))
        self.spaces = nn.ModuleList(
            Space(x.shape[1], classes, min(COMPONENTS, x.shape[1], max(1, images - 1))) for x in probe
        )
        self.classes = classes
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def _pooled(self, image: Tensor) -> list[Tensor]:
        """What is matched of images in tanh's range: pixels, coarse places of two stages, and, last of all, the last
        stage without places."""
        stages = self.features(image.contiguous(memory_format=torch.channels_last))
        return [
            image.flatten(1),
            F.adaptive_avg_pool2d(stages[-2], 2).flatten(1),
            F.adaptive_avg_pool2d(stages[-1], 2).flatten(1),
            stages[-1].mean((2, 3)),
        ]

    @property
    def _spaces(self) -> list[Space]:
        return [space for space in self.spaces if isinstance(space, Space)]

    @torch.no_grad()
    def teach(self, images: Tensor, labels: Tensor, *, seed: int, shown: int) -> None:
        """Train the network on uint8 [n, c, h, w] and labels int64 [n], showing it ``shown`` images at most,
        and take the real images' moments."""
        with torch.enable_grad():
            shown = min(shown, MOST_SHOWN)
            convolutions, last = teacher.teach(self.features.plan, images, labels, self.classes, seed=seed, shown=shown)
        self.features.load(convolutions)
        parts = [self._pooled(chunk.float() / 127.5 - 1) for chunk in images.split(500)]
        columns = [torch.cat(features) for features in zip(*parts, strict=True)]
        for space, features in zip(self._spaces, columns, strict=True):
            space.learn(features, labels)
        # Margins are counted in deviations of the real ones.
        self.weight.copy_(last.weight)
        self.bias.copy_(last.bias)
        scale = self._margin(columns[-1], labels).std()
        self.weight.div_(scale)
        self.bias.div_(scale)
        margin = self._margin(columns[-1], labels)
        for label in labels.unique().tolist():
            self.clear[label] = margin[labels == label].quantile(UNCLEAR)

    def _margin(self, features: Tensor, label: Tensor) -> Tensor:
        """The logit of the label over the best other one, float32 [n]."""
        logits = F.linear(features, self.weight, self.bias)
        own = logits.gather(1, label[:, None])
        return (own - logits.scatter(1, label[:, None], -torch.inf).amax(1, keepdim=True)).squeeze(1)

    @torch.no_grad()
    def see(self, image: Tensor, label: Tensor, window: float) -> None:
        """Take the moments of generated images, float32 [n, c, h, w] with labels int64 [n]; ``window`` 0 forgets what
        was there, and then there must be some of every class."""
        self._remember(self._pooled(image), label, window)

    def _remember(self, pooled: list[Tensor], label: Tensor, window: float) -> None:
        for space, features in zip(self._spaces, pooled, strict=True):
            space.fake.add(features.detach() @ space.basis, label, window)

    def forward(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared way that features of generated images still have to go, and by how much margins fall short of
        clear ones (0 where the plan does not ask), two scalars; remembers the moments.

        Past a squared way of ``FAR`` it counts less and less than squared (Charbonnier et al. 1994): images that are
        all wrong, as a young generator's, should not drown what a discriminator says.
        """
        if self.calls % REFRESH == 0:
            for space in self._spaces:
                space.solve(self.plan.window if self.plan.shrink else 0)
        self.calls += 1
        pooled = self._pooled(image)
        told = []
        for space, features in zip(self._spaces, pooled, strict=True):
            placed = features @ space.basis
            way = (placed - space.target(placed.detach(), label)).square().sum(1)
            told.append(2 * FAR * ((1 + way / FAR).sqrt() - 1).mean())
        self._remember(pooled, label, self.plan.window)
        distance = torch.stack(told).mean()
        if not self.plan.margin:
            return distance, torch.zeros_like(distance)
        return distance, F.relu(self.clear[label] - self._margin(pooled[-1], label)).mean()


class Matching(nn.Module):
    """The loss beside the discriminator's, with everything it remembers as buffers: a checkpoint holds its
    state_dict."""

    turn: Tensor

    def __init__(self, channels: int, classes: int, size: int, images: int, plan: Plan = COARSE) -> None:
        super().__init__()
        self.plan = plan
        self.views = nn.ModuleList(View(channels, classes, size, images, plan, stages) for stages in plan.networks)
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))

    @property
    def _views(self) -> list[View]:
        return [view for view in self.views if isinstance(view, View)]

    def teach(self, images: Tensor, labels: Tensor, *, seed: int, shown: int) -> None:
        """Train the frozen networks on uint8 [n, c, h, w] and labels int64 [n], showing each ``shown`` images at most,
        and take the real images' moments."""
        for index, view in enumerate(self._views):
            view.teach(images, labels, seed=seed * len(self.views) + index, shown=shown)

    def begin(self, image: Tensor, label: Tensor) -> None:
        """The first moments of generated images: float32 [n, c, h, w] with labels int64 [n], some of every class."""
        for view in self._views:
            view.see(image, label, 0)

    def forward(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """How far features of generated images still have to go, and how much they lack in margin, two scalars, as
        one network after the other sees it."""
        turn = int(self.turn) % len(self.views)
        self.turn += 1
        told: tuple[Tensor, Tensor] = self._views[turn](image, label)
        if self.plan.together:
            for index, view in enumerate(self._views):
                if index != turn:
                    view.see(image, label, self.plan.window)
        return told


def shrunk(whitened: Tensor, images: Tensor) -> Tensor:
    """Sample covariances float64 [n, d, d], of so many ``images`` [n] each, whose true value may be a multiple of the
    identity: drawn towards it by the share of the difference that chance explains (Ledoit and Wolf 2004)."""
    d = whitened.shape[1]
    size = whitened.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    plain = size * torch.eye(d, dtype=whitened.dtype, device=whitened.device)
    apart = whitened - plain
    chance = d * (d + 1) * size.square() / images[:, None, None]
    share = (chance / apart.square().sum((1, 2), keepdim=True).clamp_min(1e-12)).clamp(0, 1)
    return plain + (1 - share) * apart


def _components(centred: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Variances, in rising order, and directions, as columns, of the principal components of float64 [n, features]:
    of all or, where there are fewer images than features, of those that ``d`` are to be taken from."""
    n, features = centred.shape
    if d <= n < features:
        # Few images of many pixels span few directions: to look for the others lasts a thousand times as long.
        _, spread, directions = torch.linalg.svd(centred, full_matrices=False)
        return spread.flip(0).square() / n, directions.flip(0).T
    values, vectors = torch.linalg.eigh(centred.T @ centred / n)
    return values, vectors


def _power(matrices: Tensor, exponent: float) -> Tensor:
    """Symmetric positive definite [n, d, d] to a power."""
    values, vectors = torch.linalg.eigh(matrices)
    powered: Tensor = (vectors * values.clamp_min(1e-9).pow(exponent)[:, None, :]) @ vectors.transpose(1, 2)
    return powered
