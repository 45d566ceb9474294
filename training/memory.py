"""What a discriminator knows by heart: how it scores images that it was never shown."""

from __future__ import annotations

import torch
from torch import Tensor

from training.data import Dataset
from training.gan import Gan
from training.norms import frozen_statistics
from training.sampling import draw_latents, forked

# Images of each kind that it is asked about: at least, at most.
LEAST, MOST = 32, 256


def gap(gan: Gan, seen: Dataset, unseen: Dataset) -> dict[str, float]:
    """``held_out_gap``: how far the scores of images that it never saw have fallen from those of training images, of
    the way down to generated ones (Karras et al. 2020, arXiv:2006.06676): 0 is no memory, 1 is nothing but memory.

    Nothing where there are too few images, or no way down. It leaves no trace in the networks nor in the random state.
    """
    if len(unseen) < LEAST:
        return {}
    with torch.no_grad(), forked(gan.device), frozen_statistics(gan.generator, gan.discriminator):
        torch.manual_seed(0)
        known, unknown = (_mean_score(gan, _images(gan, part), part.labels) for part in map(_some, (seen, unseen)))
        labels = _some(seen).labels
        n = min(MOST, len(seen))
        with gan.autocast():
            image = gan.generator(draw_latents(gan.recipe, n, gan.device), _labels(gan, labels)).float()
        made = _mean_score(gan, image, labels)
    return {"held_out_gap": (known - unknown) / (known - made)} if known > made else {}


def _mean_score(gan: Gan, image: Tensor, labels: Tensor | None) -> float:
    """In evaluation mode, and so of the images as they are."""
    gan.discriminator.eval()
    with gan.autocast():
        score: Tensor = gan.discriminator(image, _labels(gan, labels))
    gan.discriminator.train()
    return float(score.float().mean())


def _images(gan: Gan, part: Dataset) -> Tensor:
    low, high = gan.recipe.image_range
    return part.images.to(gan.device).float().mul_((high - low) / 255).add_(low)


def _labels(gan: Gan, labels: Tensor | None) -> Tensor | None:
    return labels.to(gan.device) if labels is not None and gan.classes else None


def _some(dataset: Dataset) -> Dataset:
    """Some images, always the same."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    return dataset.subset(order[:MOST])
