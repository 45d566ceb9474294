"""The second stage of the flagship: class by class, generated images get the real ones' moments in frozen features.

A discriminator tells images apart one by one, and near the end of a training it no longer sees that a class has a
little too little of this and too much of that. Means and covariances of features show just that (Li et al. 2015,
arXiv:1502.02761; dos Santos et al. 2019, arXiv:1904.02762: features of a network that was trained beforehand). Between
two Gaussians the way from one to the other is known in closed form, a linear map (Olkin and Pukelsheim 1982), so each
generated image is told where its features should move to; the gradient is that of the Frechet distance itself.

The frozen networks are small classifiers of the run's own training images (:mod:`training.teacher`), several that
differ in their random start: what one alone is shown is soon fitted to that one. No judge takes part, neither its
weights nor its architecture, so that what a judge then says is news.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import teacher
from training.networks.projected import Features

# Frozen networks, which take turns.
VIEWS = 4
# Principal components kept of each space.
COMPONENTS = 48
# Images of a class over which the moments of generated images are averaged: fewer are noise, more lag behind.
WINDOW = 500
# Steps between two solutions for the map.
REFRESH = 50
# Added to every variance, which is 1 on average: directions that real images hardly use are not blown up.
RIDGE = 0.02
# Squared way, in a component's mean variance, from which on it counts linearly. A good generator's mean is below 1;
# 25 was slower and no better.
FAR = 1.0


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

    def __init__(self, features: int, classes: int, d: int) -> None:
        super().__init__()
        self.register_buffer("basis", torch.zeros(features, d))
        self.register_buffer("map", torch.zeros(classes, d, d))
        self.real, self.fake = Moments(classes, d), Moments(classes, d)

    def learn(self, features: Tensor, labels: Tensor) -> None:
        """Take the components and the real moments from features float32 [n, features]."""
        centred = features.double() - features.double().mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(features))
        d = self.basis.shape[1]
        scale = values[-d:].mean().clamp_min(1e-12).sqrt()
        self.basis.copy_(vectors[:, -d:] / scale)
        seen = features @ self.basis
        self.real.add(seen, labels, 0)
        # A class of few images borrows the shape of all.
        covariance = self.real.covariance
        counts = torch.bincount(labels, minlength=len(covariance)).double()
        pooled = (covariance * counts[:, None, None]).sum(0) / counts.sum()
        share = (2 * d / (2 * d + counts))[:, None, None]
        mean = self.real.mean
        self.real.second.copy_(covariance.lerp(pooled.expand_as(covariance), share))
        self.real.second.add_(mean[:, :, None] * mean[:, None, :])

    def solve(self) -> None:
        """The map of each class that takes the generated Gaussian to the real one:
        R (R F R)^(-1/2) R with R the root of the real covariance and F the generated one."""
        ridge = RIDGE * torch.eye(self.basis.shape[1], dtype=torch.float64, device=self.basis.device)
        root = _power(self.real.covariance + ridge, 0.5)
        between = _power(root @ (self.fake.covariance + ridge) @ root, -0.5)
        self.map.copy_(root @ between @ root)

    def target(self, features: Tensor, labels: Tensor) -> Tensor:
        """Where features float32 [n, d] should move to."""
        moved = (features.double() - self.fake.mean[labels]).float()
        target: Tensor = torch.bmm(moved[:, None], self.map[labels]).squeeze(1) + self.real.mean[labels].float()
        return target


class View(nn.Module):
    """One frozen network with its spaces."""

    calls: Tensor

    def __init__(self, channels: int, classes: int, size: int, images: int) -> None:
        super().__init__()
        self.features = Features(channels)
        with torch.no_grad():
            probe = self._pooled(torch.zeros(2, channels, size, size))
        self.spaces = nn.ModuleList(
            Space(x.shape[1], classes, min(COMPONENTS, x.shape[1], max(1, images - 1))) for x in probe
        )
        self.classes = classes
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def _pooled(self, image: Tensor) -> list[Tensor]:
        """What is matched of images in tanh's range: pixels, coarse places of two stages, the last without places."""
        stages = self.features(image.contiguous(memory_format=torch.channels_last))
        return [
            image.flatten(1),
            F.adaptive_avg_pool2d(stages[-2], 2).flatten(1),
            F.adaptive_avg_pool2d(stages[-1], 2).flatten(1),
            stages[-1].mean((2, 3)),
        ]

    def _see(self, image: Tensor) -> list[Tensor]:
        return [x @ space.basis for x, space in zip(self._pooled(image), self._spaces, strict=True)]

    @property
    def _spaces(self) -> list[Space]:
        return [space for space in self.spaces if isinstance(space, Space)]

    @torch.no_grad()
    def teach(self, images: Tensor, labels: Tensor, *, seed: int, shown: int) -> None:
        """Train the network on uint8 [n, c, h, w] and labels int64 [n], showing it ``shown`` images at most,
        and take the real images' moments."""
        with torch.enable_grad():
            teacher.teach(self.features, images, labels, self.classes, seed=seed, shown=shown)
        parts = [self._pooled(chunk.float() / 127.5 - 1) for chunk in images.split(500)]
        for space, features in zip(self._spaces, zip(*parts, strict=True), strict=True):
            space.learn(torch.cat(features), labels)

    @torch.no_grad()
    def begin(self, image: Tensor, label: Tensor) -> None:
        """The first moments of generated images: float32 [n, c, h, w] with labels int64 [n], some of every class."""
        for space, features in zip(self._spaces, self._see(image), strict=True):
            space.fake.add(features, label, 0)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        """Mean squared way that features of generated images still have to go, a scalar; remembers their moments.

        Past a squared way of ``FAR`` it counts less and less than squared (Charbonnier et al. 1994): images that are
        all wrong, as a young generator's, should not drown what a discriminator says.
        """
        if self.calls % REFRESH == 0:
            for space in self._spaces:
                space.solve()
        self.calls += 1
        told = []
        for space, features in zip(self._spaces, self._see(image), strict=True):
            seen = features.detach()
            way = (features - space.target(seen, label)).square().sum(1)
            told.append(2 * FAR * ((1 + way / FAR).sqrt() - 1).mean())
            space.fake.add(seen, label, WINDOW)
        return torch.stack(told).mean()


class Matching(nn.Module):
    """The loss of the second stage, with everything it remembers as buffers: a checkpoint holds its state_dict."""

    turn: Tensor

    def __init__(self, channels: int, classes: int, size: int, images: int) -> None:
        super().__init__()
        self.views = nn.ModuleList(View(channels, classes, size, images) for _ in range(VIEWS))
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))

    @property
    def _views(self) -> list[View]:
        return [view for view in self.views if isinstance(view, View)]

    def teach(self, images: Tensor, labels: Tensor, *, seed: int, shown: int) -> None:
        """Train the frozen networks on uint8 [n, c, h, w] and labels int64 [n], showing each ``shown`` images at most,
        and take the real images' moments."""
        for index, view in enumerate(self._views):
            view.teach(images, labels, seed=seed * VIEWS + index, shown=shown)

    def begin(self, image: Tensor, label: Tensor) -> None:
        """The first moments of generated images: float32 [n, c, h, w] with labels int64 [n], some of every class."""
        for view in self._views:
            view.begin(image, label)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        """How far features of generated images still have to go, a scalar, as one network after the other sees it."""
        view = self._views[int(self.turn) % VIEWS]
        self.turn += 1
        told: Tensor = view(image, label)
        return told


def _power(matrices: Tensor, exponent: float) -> Tensor:
    """Symmetric positive definite [n, d, d] to a power."""
    values, vectors = torch.linalg.eigh(matrices)
    powered: Tensor = (vectors * values.clamp_min(1e-9).pow(exponent)[:, None, :]) @ vectors.transpose(1, 2)
    return powered
