"""Real images come in an order that is the seed's alone."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from tests.training.conftest import small
from training.batches import Batches
from training.data import Dataset
from training.run import RunRefused, configure


def test_a_batch_is_decided_by_seed_and_number_and_an_epoch_shows_no_image_twice(few: Dataset) -> None:
    config = small("cgan", few, seed=3)
    one, two = (Batches(few, config, Accelerator(cpu=True)) for _ in range(2))
    an_epoch = [one.take(draw) for draw in range(one.an_epoch)]
    for draw in (5, 0, one.an_epoch + 2):
        image, label = two.take(draw)
        assert torch.equal(image, one.take(draw)[0])
        assert label is not None
        assert torch.equal(label, one.take(draw)[1])  # type: ignore[arg-type]
    shown = torch.cat([image.flatten(1) for image, _ in an_epoch])
    assert len(shown.unique(dim=0)) == len(shown) == one.an_epoch * 16
    assert (float(shown.min()), float(shown.max())) == (-1.0, 1.0)


def test_snapshots_are_scored_in_the_classes_own_proportions(digits: Dataset) -> None:
    assert digits.labels is not None
    kept = digits.subset(torch.nonzero((digits.labels != 3) | (torch.arange(len(digits)) % 9 == 0)).squeeze(1))
    batches = Batches(kept, small("projgan", kept), Accelerator(cpu=True))
    labels = batches.drawn_labels(2000)
    assert labels is not None
    assert kept.labels is not None
    share = (kept.labels == 3).float().mean()
    assert abs((labels == 3).float().mean() - share) < 0.01
    assert torch.equal(labels, batches.drawn_labels(2000))  # type: ignore[arg-type]


def test_fewer_images_than_a_batch_are_shown_as_often_as_one_another(
    digits: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    few = digits.subset(torch.arange(5))
    batches = Batches(few, configure("gan", few, overrides={"batch": 12}), Accelerator(cpu=True))
    assert "5 training images, fewer than a batch of 12" in caplog.text
    assert batches.an_epoch == 1
    shown = [batches.take(draw).image for draw in range(2)]
    known = (few.images.float() * (2 / 255) - 1).flatten(1)
    for image in shown:
        times = (image.flatten(1)[:, None] - known).abs().amax(2).lt(1e-5).sum(0).tolist()
        assert sum(times) == 12
        assert set(times) == {2, 3}
    assert not torch.equal(*shown)


def test_a_class_without_images_is_named(digits: Dataset) -> None:
    assert digits.labels is not None
    kept = digits.subset(torch.nonzero(digits.labels != 3).squeeze(1))
    with pytest.raises(RunRefused, match="no training image of class 3"):
        Batches(kept, small("cgan", kept), Accelerator(cpu=True))
