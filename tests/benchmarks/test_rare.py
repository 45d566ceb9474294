"""What is compared is fair, and the table says what the record holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import rare


def test_a_fold_keeps_few_of_the_rare_classes_and_no_picture_that_is_tested() -> None:
    images, labels, tested, truth = next(rare.folds())
    kept = torch.bincount(labels, minlength=10).tolist()
    assert [kept[label] for label in rare.RARE] == [rare.KEPT] * len(rare.RARE)
    assert min(count for label, count in enumerate(kept) if label not in rare.RARE) > 10 * rare.KEPT
    assert min(torch.bincount(truth, minlength=10).tolist()) > 30
    seen = {image.numpy().tobytes() for image in images}
    shared = [image for image in tested if image.numpy().tobytes() in seen]
    # The set itself holds a few pictures twice.
    assert len(shared) <= 2


@pytest.mark.parametrize("arm", [rare.REPEATED, rare.SHIFTED])
def test_what_is_added_are_as_many_pictures_of_the_rare_classes_alone(arm: str) -> None:
    images, labels, _, _ = next(rare.folds())
    torch.manual_seed(0)
    shown, told = next(rare.more(arm, images, labels, Path("nowhere"), 0))
    assert shown.shape == (rare.MORE, 1, 8, 8)
    assert set(told.tolist()) <= set(rare.RARE)
    own = {image.numpy().tobytes() for image in images}
    assert all(image.numpy().tobytes() in own for image in shown) == (arm == rare.REPEATED)


def test_the_table_tells_means_and_in_how_many_folds_synthetic_pictures_were_better() -> None:
    shares = {rare.ALONE: 0.5, rare.REPEATED: 0.6, rare.SHIFTED: 0.7, rare.SYNTHETIC: 0.65}
    found = [
        {arm: {"rare": share + 0.01 * fold, "all": 0.9} for arm, share in shares.items()} for fold in range(rare.FOLDS)
    ]
    text = rare.table(found)
    assert f"| {rare.SYNTHETIC} | 0.670 (± 0.016) | 0.900 (± 0.000) |" in text
    for other, gain, better in ((rare.REPEATED, "+0.050", 5), (rare.SHIFTED, "-0.050", 0)):
        told = f"against {other}: {gain} of the rare classes' pictures (± 0.000 over folds), better in {better} of 5"
        assert told in text
