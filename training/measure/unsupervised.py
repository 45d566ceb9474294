"""Features of images that know no classes, for distances that no classifier can flatter.

A dictionary of small patches, learnt on the training split by k-means after whitening, and how near each part of an
image is to each of its words (Coates, Ng and Lee 2011, "An analysis of single-layer networks in unsupervised feature
learning"): no label takes part, and nothing of a judge. It sees texture, colour and rough layout, and less of whole
shapes than a classifier does. It is learnt in half a minute, when it is first needed, and kept by the data's
fingerprint.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from ganserve import files
from training.data import Dataset, fingerprint
from training.measure.judge import private
from training.measure.metrics import Comparison, Sample, Value, value_of

# Edge of a patch, words, patches that they are learnt from, and rounds of k-means.
EDGE, WORDS, PATCHES, ROUNDS = 6, 128, 100_000, 25
# Added to the variances that whitening divides by, and to those of a patch's contrast, both of pixels in 0..255.
FLOOR, CONTRAST = 0.1, 10.0
METRICS = ("frechet", "recall")


@dataclass(frozen=True)
class Dictionary:
    """``words`` [n, patch] in the whitened space of patches, into which ``mean`` and ``whiten`` lead."""

    mean: Tensor
    whiten: Tensor
    words: Tensor

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 [n, 4 * words] of uint8 [n, c, h, w]: how much nearer than the mean distance each word is,
        summed over each quarter of the image."""
        return torch.cat([self._features(part) for part in images.split(100)])

    def _features(self, images: Tensor) -> Tensor:
        across = images.shape[3] - EDGE + 1
        distance = torch.cdist((_patches(images.float()) - self.mean) @ self.whiten.T, self.words)
        near = F.relu(distance.mean(2, keepdim=True) - distance)
        places = near.view(len(images), -1, across, len(self.words)).permute(0, 3, 1, 2)
        return F.adaptive_avg_pool2d(places, 2).flatten(1)


def _patches(images: Tensor) -> Tensor:
    """Every patch [n, places, patch] of images in 0..255, its brightness and contrast taken away."""
    found = F.unfold(images, EDGE).transpose(1, 2)
    found = found - found.mean(2, keepdim=True)
    return found / (found.var(2, keepdim=True) + CONTRAST).sqrt()


@torch.no_grad()
def learn(images: Tensor, seed: int = 0) -> Dictionary:
    """The dictionary of images uint8 [n, c, h, w]."""
    drawn = torch.Generator().manual_seed(seed)
    places = (images.shape[2] - EDGE + 1) ** 2
    each = max(1, min(places, -(-PATCHES // len(images))))
    rows = torch.randperm(len(images), generator=drawn)[: PATCHES // each]
    parts = []
    for part in images[rows].split(500):
        chosen = torch.randint(places, (len(part), each, 1), generator=drawn)
        seen = _patches(part.float())
        parts.append(seen.gather(1, chosen.expand(-1, -1, seen.shape[2])).flatten(0, 1))
    patches = torch.cat(parts).double()
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    whiten = vectors @ torch.diag((values.clamp_min(0) + FLOOR).rsqrt()) @ vectors.T
    white = ((patches - mean) @ whiten.T).float()
    words = white[torch.randperm(len(white), generator=drawn)[:WORDS]].clone()
    for _ in range(ROUNDS):
        nearest = torch.cat([torch.cdist(part, words).argmin(1) for part in white.split(10_000)])
        counts = torch.bincount(nearest, minlength=len(words)).clamp_min(1)
        sums = torch.zeros_like(words).index_add_(0, nearest, white)
        # A word that nothing is near stays where it is.
        words = torch.where(torch.bincount(nearest, minlength=len(words))[:, None] > 0, sums / counts[:, None], words)
    return Dictionary(mean.float(), whiten.float(), words)


def for_dataset(train: Dataset) -> Dictionary:
    """The dictionary of a training split, learnt now if it is not there yet."""
    cache = Path(os.environ.get("GANSERVE_DATA", "var")) / "judges"
    path = cache / f"{private(train.name)}words-{fingerprint(train)}.safetensors"
    try:
        return Dictionary(**from_safetensors(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        learnt = learn(train.images)
        files.replace(path, to_safetensors({name: tensor.contiguous() for name, tensor in vars(learnt).items()}))
        return learnt


def measure(words: Dictionary, real: Tensor, fake: Tensor) -> dict[str, Value]:
    """``unsupervised_frechet`` and ``unsupervised_recall`` of generated images beside real ones, both uint8
    [n, c, h, w]."""
    seen = [Sample(features, features[:, :1], None) for features in map(words, (real, fake))]
    comparison = Comparison(seen[0], seen[1], seen[0].features)
    return {f"unsupervised_{name}": value_of(name, comparison)[0] for name in METRICS}
