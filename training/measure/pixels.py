"""Scores of a snapshot without any trained network: Frechet's distance (Heusel et al. 2017, arXiv:1706.08500) in the
leading principal components of held-out images' pixels. It serves every data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# With more pixels than this the components are found from so many images.
MANY_PIXELS = 2000


class PixelScore:
    """Frechet distance in the leading principal components of the pixels, with the ratio of variances."""

    def __init__(self, images: Tensor, components: int = 64) -> None:
        flat = images.flatten(1)
        wide = flat.shape[1] > MANY_PIXELS
        flat = (flat[:MANY_PIXELS] if wide else flat).double() / 255
        self.mean = flat.mean(0)
        centred = flat - self.mean
        rank = min(components, *flat.shape)
        # An edge of the images' number instead of the pixels': 12,288 of these would take minutes.
        product = centred @ centred.T if wide else centred.T @ centred
        values, vectors = torch.linalg.eigh(product / max(1, len(flat) - 1))
        if wide:
            vectors = torch.nn.functional.normalize(centred.T @ vectors, dim=0)
        self.basis = vectors[:, -rank:]
        self.variance = values[-rank:].clamp_min(0)

    def __call__(self, images: Tensor, labels: Tensor | None) -> dict[str, Any]:
        features = (images.flatten(1).double() / 255 - self.mean) @ self.basis
        mean = features.mean(0)
        centred = features - mean
        covariance = centred.T @ centred / max(1, len(features) - 1)
        distance = frechet(torch.zeros_like(mean), torch.diag(self.variance), mean, covariance)
        ratio = float(covariance.trace() / self.variance.sum())
        scores = {"score": distance, "pixel_frechet": distance, "variance_ratio": ratio}
        if labels is not None:
            scores["within_class_variance_ratio"] = self._within(features, labels)
        return scores

    def _within(self, features: Tensor, labels: Tensor) -> float:
        spread = [features[labels == c].var(0).sum() for c in labels.unique()]
        return float(torch.stack(spread).mean() / self.variance.sum())


def frechet(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2)); the trace of the root from eigenvalues of A^(1/2) B A^(1/2)."""
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def collapsed(scores: Mapping[str, Any]) -> str | None:
    """The reason why a generator with these scores has collapsed, or None."""
    ratio = scores["variance_ratio"]
    if ratio < 0.02:
        return f"all images look alike (their variance is {ratio:.1%} of the real images')"
    within = scores.get("within_class_variance_ratio")
    if within is not None and within < 0.01:
        return f"all images of a class look alike (their variance is {within:.1%} of the real images')"
    return None
