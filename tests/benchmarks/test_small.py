from __future__ import annotations

from pathlib import Path

import torch

from benchmarks import small
from training.data import load


def digits(each: int = 250) -> small.Made:
    drawn = torch.Generator().manual_seed(0)
    return small.Made(
        {str(d): torch.randint(0, 256, (each, 8, 8), dtype=torch.uint8, generator=drawn) for d in range(10)}
    )


def test_odd_sets_have_the_classes_and_counts_that_they_are_called_by() -> None:
    odd = small.twelve(digits()).some(small.TWELVE, 5)
    assert [len(pictures) for pictures in odd.classes.values()] == list(small.TWELVE)
    assert max(small.TWELVE) == 20 * min(small.TWELVE)
    inked = small.fifty(digits(30)).some((20,) * 50, 5)
    assert len(inked.classes) == 50
    assert inked.dataset("fifty").images.shape == (1000, 3, 8, 8)


def test_what_is_laid_down_reads_as_what_was_meant(tmp_path: Path) -> None:
    made = small.fifty(digits(4)).some((2,) * 50, 5)
    made.write(tmp_path / "fifty" / "train")
    read, meant = load(str(tmp_path / "fifty")), made.dataset("fifty")
    assert read.classes == meant.classes
    assert torch.equal(read.images, meant.images)
    assert read.labels is not None
    assert meant.labels is not None
    assert torch.equal(read.labels, meant.labels)
