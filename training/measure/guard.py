"""Watching a generator while it trains: quick scores by the judge, and the guard that warns and then stops.

    score = guard.scorer(held_out, rest)                            # once a run
    watch = guard.Guard()
    scores = score(images, labels)                                  # at every snapshot
    for warning in watch.check(scores, logit_gap=gap): ...          # raises CollapseError with the reason

The images to compare with are the held-out part of the training split, never the test split; where that is small, half
of the other part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from training.data import Dataset
from training.measure.judge import Judge
from training.measure.metrics import Comparison, Sample, neighbour_radii, value_of
from training.measure.pixels import PixelScore, collapsed

IMAGES = 2000
# Fewer held-out images than this are too few to compare with.
FEW = 200
QUICK = (
    "frechet",
    "coverage",
    "precision",
    "recall",
    "label_accuracy",
    "class_histogram",
    "class_kl",
    "within_class_variance_ratio",
)

# A class is missing when it gets less than this share of what it has among the real images.
MISSING = 0.1
# Below the first a warning, below the second the end.
WITHIN_CLASS = (0.25, 0.02)
# Low coverage alone is poor quality, which a weak recipe may have to its honest end; of images that look real it is
# a collapse: the same few, over and over.
COVERAGE = (0.1, 0.02)
LOOKS_REAL = 0.5
# Logits of real images less those of generated ones: past this the discriminator is sure of everything.
LOGIT_GAP = 20.0
# A generated image is a near copy if it is closer to a training image than all but this share of training images are
# to each other; so about as many of honest ones are, and this many times as many are a warning.
NEAR, COPIES = 0.01, 5.0
# Of the way from the discriminator's scores of training images down to those of generated ones.
KNOWN_BY_HEART = 0.5


Score = Callable[[Tensor, Tensor | None], dict[str, Any]]


class CollapseError(RuntimeError):
    """The generator makes the same few images, or none at all; the message says how that was seen."""


def see(judge: Judge, images: Tensor, labels: Tensor | None) -> Sample:
    """uint8 [n, c, h, w] as the judge sees them."""
    logits, features = judge(images)
    return Sample(features, logits, labels)


def reference(judge: Judge, held_out: Dataset, limit: int = IMAGES) -> Sample:
    """Real images to compare with: the first ``limit`` of the held-out part in a fixed, shuffled order."""
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))[:limit]
    chosen = held_out.subset(order)
    return see(judge, chosen.images, chosen.labels)


def quick_scores(fake: Sample, reference: Sample) -> dict[str, Any]:
    """Scores of generated images beside real ones.

    ``score`` chooses snapshots, lower is better: the Frechet distance. ``class_shares`` are the shares of the
    classes, each over its share among the real images.
    """
    comparison = Comparison(reference, fake, reference.features)
    scores: dict[str, Any] = {name: value_of(name, comparison)[0] for name in QUICK}
    classes = reference.logits.shape[1]
    real = torch.bincount(reference.logits.argmax(1), minlength=classes) / len(reference.logits)
    made = torch.tensor(scores["class_histogram"]) / len(fake.features)
    # A class that the reference lacks cannot be missed.
    shares = torch.where(real > 0, made / real.clamp_min(1e-12), 1.0)
    variance = fake.features.var(0).sum() / reference.features.var(0).sum()
    return {
        "score": scores["frechet"],
        **scores,
        "class_shares": [round(share, 4) for share in shares.tolist()],
        "variance_ratio": float(variance),
    }


class JudgeScore:
    """:func:`quick_scores` with its judge and reference bound, as the trainer's loop wants it; with other real images,
    which the run trains on, beside them: ``frechet_ratio`` is the distance over theirs, ``near_copies`` the share of
    generated images that are copies of them, or nearly."""

    def __init__(self, judge: Judge, held_out: Dataset, known: Dataset | None = None, limit: int = IMAGES) -> None:
        self.judge, self.reference = judge, reference(judge, held_out, limit)
        self.known = None if known is None else reference(judge, known, limit)
        self.floor, self.near = None, 0.0
        if self.known is not None:
            self.floor = value_of("frechet", Comparison(self.reference, self.known, self.known.features))[0]
            apart = neighbour_radii(self.known.features, 1)
            # What is in the set twice tells nothing of copies.
            if len(apart := apart[apart > 0]):
                self.near = float(apart.quantile(NEAR))

    def __call__(self, images: Tensor, labels: Tensor | None) -> dict[str, Any]:
        fake = see(self.judge, images, labels)
        scores = quick_scores(fake, self.reference)
        if self.known is None:
            return scores
        nearest = torch.cat([torch.cdist(part, self.known.features).min(1).values for part in fake.features.split(500)])
        floor = self.floor if isinstance(self.floor, float) and self.floor > 0 else None
        return {
            **scores,
            "frechet_ratio": scores["frechet"] / floor if floor and scores["frechet"] is not None else None,
            "near_copies": float((nearest < self.near).float().mean()),
        }


def scorer(held_out: Dataset, rest: Dataset, referee: Judge | None = None, *, limit: int = IMAGES) -> Score:
    """A function of (images uint8 [n, c, h, w], labels int64 [n] or None) to scores; lower ``score`` is better.

    By the ``referee``, with at most ``limit`` real images, or by pixels, which any data set has.
    """
    if referee is None:
        return PixelScore((held_out if len(held_out) >= FEW else rest).images[:5000])
    if len(held_out) >= FEW:
        return JudgeScore(referee, held_out, rest, limit)
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(1))
    one, other = (rest.subset(half) for half in order.chunk(2))
    return JudgeScore(referee, one, other, limit)


@dataclass
class Guard:
    """Warns at the first sign, and stops after ``patience`` snapshots on end that show a generator without hope.

    A few missing classes only warn: several classic recipes drop some and are honest work all the same. While it is
    ``young`` a generator is only warned of, since one grey blur, or one digit, is where many of them begin.
    """

    patience: int = 3
    strikes: int = field(default=0)

    def check(self, scores: Mapping[str, Any], *, logit_gap: float | None = None, young: bool = False) -> list[str]:
        """The warnings of one snapshot, in words.

        Raises:
            CollapseError: a score is not a number, or this is the last of ``patience`` hopeless snapshots on end.
        """
        lost = [name for name, value in {**scores, "logit_gap": logit_gap}.items() if _lost(value)]
        if lost:
            raise CollapseError(f"not a number: {', '.join(lost)}")
        warnings, hopeless = _signs(scores, logit_gap)
        self.strikes = self.strikes + 1 if hopeless and not young else 0
        if self.strikes >= self.patience:
            raise CollapseError(f"{'; '.join(hopeless)} (for {self.strikes} snapshots on end)")
        return hopeless + warnings


def _signs(scores: Mapping[str, Any], logit_gap: float | None) -> tuple[list[str], list[str]]:
    """Signs that warn, and signs of no hope."""
    warnings: list[str] = []
    hopeless: list[str] = []
    if logit_gap is not None and abs(logit_gap) > LOGIT_GAP:
        warnings.append(f"the discriminator is sure of everything: its logits are {logit_gap:.0f} apart")
    warnings += _overfitting(scores)
    if "class_shares" not in scores:
        flat = collapsed(scores)
        return warnings, [flat] if flat else []
    shares = scores["class_shares"]
    missing = [index for index, share in enumerate(shares) if share < MISSING]
    if missing:
        told = f"{len(missing)} of {len(shares)} classes are hardly ever made (by number: {missing})"
        (hopeless if len(missing) > len(shares) / 2 else warnings).append(told)
    within, covered = scores["within_class_variance_ratio"], scores["coverage"]
    if within is not None and within < WITHIN_CLASS[0]:
        told = f"images of a class look alike: their variance is {within:.1%} of that of real images"
        (hopeless if within < WITHIN_CLASS[1] else warnings).append(told)
    if covered is not None and covered < COVERAGE[0]:
        told = f"{covered:.1%} of the real images are covered, with a precision of {scores['precision']:.1%}"
        same_few = covered < COVERAGE[1] and scores["precision"] > LOOKS_REAL
        (hopeless if same_few else warnings).append(told)
    return warnings, hopeless


def copies(scores: Mapping[str, Any]) -> bool:
    """Whether more of the images are near copies of training images than honest ones would be."""
    return (scores.get("near_copies") or 0.0) > NEAR * COPIES


def _overfitting(scores: Mapping[str, Any]) -> list[str]:
    """Signs that warn: the snapshot that is kept is the best by held-out images, and no copying one, as it is."""
    told = []
    if copies(scores):
        told.append(
            f"{scores['near_copies']:.1%} of the images are nearly copies of training images: more pictures would "
            "help, or a shorter run"
        )
    gap = scores.get("held_out_gap")
    if gap is not None and gap > KNOWN_BY_HEART:
        told.append(
            f"the discriminator knows its training images by heart: those that it never saw are {gap:.0%} of the way "
            "down to generated ones"
        )
    return told


def _lost(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
