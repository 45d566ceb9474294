from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from training.data import Dataset
from training.measure import unsupervised


@pytest.fixture(scope="module")
def halves(digits: Dataset) -> tuple[Dataset, Dataset]:
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    one, other = (digits.subset(rows) for rows in order.chunk(2))
    return one, other


@pytest.fixture(scope="module")
def words(halves: tuple[Dataset, Dataset]) -> unsupervised.Dictionary:
    torch.set_num_threads(1)
    return unsupervised.learn(halves[0].images)


def test_other_real_images_are_nearer_than_worse_ones(
    halves: tuple[Dataset, Dataset], words: unsupervised.Dictionary
) -> None:
    one, other = (half.images for half in halves)
    noisy = (other.float() + torch.randn(other.shape, generator=torch.Generator().manual_seed(0)) * 40).clamp(0, 255)
    found = [unsupervised.measure(words, one, fake) for fake in (other, noisy.to(torch.uint8), other.flip(2))]
    real, *worse = (each["unsupervised_frechet"] for each in found)
    assert all(isinstance(distance, float) and isinstance(real, float) and distance > 2 * real for distance in worse)
    recall = found[0]["unsupervised_recall"]
    assert isinstance(recall, float)
    assert recall > 0.8


def test_few_pictures_over_and_over_are_recalled_little(
    halves: tuple[Dataset, Dataset], words: unsupervised.Dictionary
) -> None:
    one, other = (half.images for half in halves)
    repeated = other[:10].repeat(60, 1, 1, 1)
    recall = unsupervised.measure(words, one, repeated)["unsupervised_recall"]
    assert isinstance(recall, float)
    assert recall < 0.3


def test_labels_take_no_part(halves: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSERVE_DATA", str(tmp_path))
    one = halves[0].subset(torch.arange(100))
    plain = unsupervised.for_dataset(one)
    assert torch.equal(unsupervised.for_dataset(one).words, plain.words), "it is kept"
    assert one.labels is not None
    other = dataclasses.replace(one, labels=one.labels.flip(0))
    assert torch.equal(unsupervised.for_dataset(other).words, plain.words)


def test_features_do_not_depend_on_the_images_beside_and_not_on_brightness(
    halves: tuple[Dataset, Dataset], words: unsupervised.Dictionary
) -> None:
    images = halves[1].images[:130]
    whole = words(images)
    assert whole.shape == (130, 4 * unsupervised.WORDS)
    torch.testing.assert_close(words(images[40:50]), whole[40:50], atol=1e-3, rtol=1e-3)
    dim = (images // 2).to(torch.uint8)
    torch.testing.assert_close(words(dim + 100), words(dim), atol=1e-3, rtol=1e-3)
