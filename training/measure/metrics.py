"""Metrics of generated images beside real ones, in a judge's features; each registers itself by name.

Every metric is a function of a :class:`Comparison`. Frechet distance, KID and the classifier score are torchmetrics';
precision and recall follow Kynkaanniemi et al. 2019 (arXiv:1904.06991), density and coverage Naeem et al. 2020
(arXiv:2002.09797), all four with k = 5 neighbours.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

NEIGHBOURS = 5

Value = float | list[int] | None


class Undefined(ValueError):  # noqa: N818  a fact about the data, not a failure
    """A metric has no value for this data; the message says why."""


@dataclass(frozen=True)
class Sample:
    """Images as the judge sees them: features float32 [n, f], logits float32 [n, classes], labels int64 [n] or
    None (the labels that were asked for, or the true ones)."""

    features: Tensor
    logits: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Comparison:
    """Generated images beside real ones; ``train`` are features of training images, for the copy check."""

    real: Sample
    fake: Sample
    train: Tensor

    @cached_property
    def real_radii(self) -> Tensor:
        """Distance of each real image to its k-th neighbour among the real ones: float32 [n]."""
        return neighbour_radii(self.real.features)

    @cached_property
    def distances(self) -> Tensor:
        """float32 [real, fake]."""
        return torch.cdist(self.real.features, self.fake.features)


METRICS: dict[str, Callable[[Comparison], Value]] = {}


def metric(function: Callable[[Comparison], Value]) -> Callable[[Comparison], Value]:
    """Register a metric under its function's name."""
    METRICS[function.__name__] = function
    return function


def measure(comparison: Comparison) -> tuple[dict[str, Value], dict[str, str]]:
    """Every registered metric, numbers rounded to six digits; and of those that have no value, the reason."""
    found: dict[str, Value] = {}
    left_out: dict[str, str] = {}
    for name in METRICS:
        value, reason = value_of(name, comparison)
        found[name] = round(value, 6) if isinstance(value, float) else value
        if reason:
            left_out[name] = reason
    return found, left_out


def value_of(name: str, comparison: Comparison) -> tuple[Value, str]:
    """One metric, and an empty text; or None, and why it has no value for this data."""
    try:
        value = METRICS[name](comparison)
    except Undefined as error:
        return None, str(error)
    if isinstance(value, float) and not math.isfinite(value):
        return None, "it is not a number for these images"
    return value, ""


def _needs(comparison: Comparison, least: int) -> None:
    """Raises Undefined with fewer images on either side."""
    for kind, sample in (("real", comparison.real), ("generated", comparison.fake)):
        if len(sample.features) < least:
            raise Undefined(f"{len(sample.features)} {kind} images are too few: it takes {least}")


class _Ready(nn.Module):
    """Stands where torchmetrics expects a network: what it is fed are features already."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = features

    def forward(self, x: Tensor) -> Tensor:
        return x


@metric
def frechet(c: Comparison) -> float:
    """Frechet distance between Gaussians fitted to both sets of features."""
    _needs(c, 2)
    from torchmetrics.image.fid import FrechetInceptionDistance  # seconds, that a training need not wait for

    fid = FrechetInceptionDistance(feature=_Ready(c.real.features.shape[1]))
    fid.set_dtype(torch.float64)
    fid.update(c.real.features.double(), real=True)
    fid.update(c.fake.features.double(), real=False)
    return float(fid.compute())


@metric
def kid(c: Comparison) -> float:
    """Kernel distance, the mean over 50 subsets of up to 1,000."""
    _needs(c, 2)
    size = min(1000, len(c.real.features), len(c.fake.features))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that features are kept in memory is meant
        from torchmetrics.image.kid import KernelInceptionDistance

        kernel = KernelInceptionDistance(feature=_Ready(c.real.features.shape[1]), subsets=50, subset_size=size)
    kernel.update(c.real.features, real=True)
    kernel.update(c.fake.features, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return float(kernel.compute()[0])


@metric
def precision(c: Comparison) -> float:
    """Share of generated images inside the neighbourhood of some real image."""
    _needs(c, NEIGHBOURS + 1)
    return float((c.distances <= c.real_radii[:, None]).any(0).float().mean())


@metric
def recall(c: Comparison) -> float:
    """Share of real images inside the neighbourhood of some generated image."""
    _needs(c, NEIGHBOURS + 1)
    radii = neighbour_radii(c.fake.features)
    return float((c.distances <= radii[None]).any(1).float().mean())


@metric
def density(c: Comparison) -> float:
    """Neighbourhoods of real images that a generated image is in, over k."""
    _needs(c, NEIGHBOURS + 1)
    return float((c.distances <= c.real_radii[:, None]).sum(0).float().mean() / NEIGHBOURS)


@metric
def coverage(c: Comparison) -> float:
    """Share of real images with a generated one inside their neighbourhood."""
    _needs(c, NEIGHBOURS + 1)
    return float((c.distances.min(1).values <= c.real_radii).float().mean())


@metric
def classifier_score(c: Comparison) -> float:
    """The inception score with the judge in inception's place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        from torchmetrics.image.inception import InceptionScore

        score = InceptionScore(feature=_Ready(c.fake.logits.shape[1]), splits=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        score.update(c.fake.logits)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the spread over one split is not a number, and not used
            return float(score.compute()[0])


@metric
def label_accuracy(c: Comparison) -> float | None:
    """Share of generated images in which the judge sees the label that was asked for.

    Only of classes that are among the real images: of the others nothing is known.
    """
    if c.fake.labels is None:
        return None
    right = c.fake.logits.argmax(1) == c.fake.labels
    if c.real.labels is not None:
        right = right[torch.isin(c.fake.labels, c.real.labels)]
    if not len(right):
        raise Undefined("no class that was asked for is among the real images")
    return float(right.float().mean())


@metric
def class_histogram(c: Comparison) -> list[int]:
    """Generated images a class, as the judge sees them."""
    counts: list[int] = torch.bincount(c.fake.logits.argmax(1), minlength=c.fake.logits.shape[1]).tolist()
    return counts


@metric
def class_kl(c: Comparison) -> float:
    """Kullback-Leibler divergence of the class histogram from the uniform one, in nats."""
    counts = torch.tensor(class_histogram(c), dtype=torch.float64)
    share = counts / counts.sum()
    return float((share[share > 0] * (share[share > 0] * len(share)).log()).sum())


@metric
def within_class_variance_ratio(c: Comparison) -> float:
    """Variance of features inside the judge's classes, generated over real; near 0 when a class has one picture."""
    real = _within(c.real)
    if not real > 0:
        raise Undefined("the real images of each class are all alike")
    return _within(c.fake) / real


@metric
def copied(c: Comparison) -> float:
    """Share of generated images closer to a training image than 99.9 % of the real test images are to theirs."""
    real = _nearest(c.real.features, c.train)
    return float((_nearest(c.fake.features, c.train) < torch.quantile(real, 0.001)).float().mean())


def neighbour_radii(features: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """Distance to the k-th nearest other row: float32 [n]."""
    k = min(k, len(features) - 1)
    return torch.cat([torch.cdist(part, features).kthvalue(k + 1, dim=1).values for part in features.split(2000)])


def _nearest(features: Tensor, others: Tensor) -> Tensor:
    return torch.cat([torch.cdist(part, others).min(1).values for part in features.split(1000)])


def _within(sample: Sample) -> float:
    seen = sample.logits.argmax(1)
    parts = [sample.features[seen == c] for c in seen.unique()]
    spread = [part.var(0).sum() for part in parts if len(part) > 1]
    return float(torch.stack(spread).mean()) if spread else math.nan
