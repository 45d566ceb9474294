"""Judges of photographs: what they learn on a CPU too, and in what precision they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.data import Dataset
from training.measure import judge
from training.measure.photographs import Residual, Wide, fit_photographs


def stripes(n: int = 160) -> Dataset:
    """Upright and lying stripes in noise."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 60, (n, 3, 16, 16), dtype=torch.uint8, generator=random)
    labels = torch.arange(n) % 2
    images[labels == 0, :, :, ::4] = 255
    images[labels == 1, :, ::4, :] = 255
    return Dataset("stripes", images, labels, ("upright", "lying"))


@pytest.mark.parametrize("kind", [Wide, Residual])
def test_it_learns_and_is_kept_to_the_bit_in_half_the_bytes(kind: type[Wide | Residual], tmp_path: Path) -> None:
    dataset = stripes()
    network, accuracies = fit_photographs(kind, dataset, dataset, epochs=3, batch=16, rate=0.05, cut=True, mirror=True)
    assert max(accuracies) > 0.9
    judge.write(tmp_path / "stripes.safetensors", network, dataset, {})
    kept = judge.read(tmp_path / "stripes.safetensors")
    assert (tmp_path / "stripes.safetensors").stat().st_size < 2.2 * sum(p.numel() for p in network.parameters())
    again = kept.network.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in network.state_dict().items())
