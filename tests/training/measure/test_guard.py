from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from training.data import Dataset, split_held_out
from training.measure import guard, judge


@pytest.fixture(scope="module")
def parts(digits: Dataset) -> tuple[Dataset, guard.JudgeScore]:
    """The digits to take images from, and scores against the others by a judge of their own."""
    torch.set_num_threads(1)
    rest, held_out = split_held_out(digits, share=0.3)
    network, _ = judge.fit(rest, held_out, epochs=10)
    return rest, guard.JudgeScore(judge.Judge(network, "", digits.classes), held_out)


def scores(**changed: Any) -> dict[str, Any]:
    healthy = {"class_shares": [1.0] * 10, "within_class_variance_ratio": 1.0, "coverage": 0.9, "precision": 0.9}
    return {**healthy, "score": 0.5, "label_accuracy": None, **changed}


def last(watch: guard.Guard, found: dict[str, Any]) -> str:
    """The reason for which the third snapshot in a row ends the run."""
    for _ in range(watch.patience - 1):
        assert watch.check(found)
    with pytest.raises(guard.CollapseError) as caught:
        watch.check(found)
    return str(caught.value)


def test_real_images_raise_no_warning(parts: tuple[Dataset, guard.JudgeScore]) -> None:
    rest, score = parts
    found = score(rest.images, rest.labels)
    assert guard.Guard().check(found) == []
    assert found["label_accuracy"] > 0.9
    assert found["within_class_variance_ratio"] == pytest.approx(1, abs=0.3)
    assert found["score"] == found["frechet"]


def test_worse_images_score_worse(parts: tuple[Dataset, guard.JudgeScore]) -> None:
    rest, score = parts
    noise = torch.randint(0, 256, rest.images.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mixed = torch.where(torch.arange(len(rest))[:, None, None, None] % 2 == 0, rest.images, noise)
    real, half, none = (score(images, rest.labels)["score"] for images in (rest.images, mixed, noise))
    assert real < half < none


def test_one_picture_for_all_stops_the_run(parts: tuple[Dataset, guard.JudgeScore]) -> None:
    rest, score = parts
    reason = last(guard.Guard(), score(rest.images[:1].repeat(500, 1, 1, 1), None))
    assert "9 of 10 classes are hardly ever made" in reason


def test_one_picture_a_class_stops_the_run_though_every_label_is_right(parts: tuple[Dataset, guard.JudgeScore]) -> None:
    rest, score = parts
    assert rest.labels is not None
    seen = score.judge(rest.images)[0].argmax(1)
    one_each = torch.stack([rest.images[seen == c][0] for c in range(10)])
    found = score(one_each.repeat(50, 1, 1, 1), torch.arange(500) % 10)
    assert found["label_accuracy"] == 1
    assert "images of a class look alike" in last(guard.Guard(), found)


def test_a_few_missing_classes_only_warn() -> None:
    watch = guard.Guard()
    for _ in range(5):
        assert watch.check(scores(class_shares=[0.0, 0.05] + [1.25] * 8)) == [
            "2 of 10 classes are hardly ever made (by number: [0, 1])"
        ]


def test_poor_images_that_cover_nothing_only_warn_and_real_looking_ones_stop() -> None:
    watch = guard.Guard()
    for _ in range(5):
        assert len(watch.check(scores(coverage=0.001, precision=0.01))) == 1
    assert "covered" in last(guard.Guard(), scores(coverage=0.001, precision=0.9))


def test_a_recovery_starts_the_count_again() -> None:
    watch = guard.Guard()
    hopeless = scores(within_class_variance_ratio=0.001)
    for _ in range(3):
        watch.check(hopeless)
        watch.check(hopeless)
        assert watch.check(scores()) == []


@pytest.mark.parametrize("name", ["score", "coverage", "logit_gap"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_stops_at_once_and_is_named(name: str, value: float) -> None:
    found, gap = (scores(), value) if name == "logit_gap" else (scores(**{name: value}), 1.0)
    with pytest.raises(guard.CollapseError, match=f"not a number: {name}"):
        guard.Guard().check(found, logit_gap=gap)


def test_a_discriminator_that_is_sure_of_everything_warns() -> None:
    assert guard.Guard().check(scores(), logit_gap=8.0) == []
    assert "sure of everything" in guard.Guard().check(scores(), logit_gap=40.0)[0]


def test_a_class_that_the_reference_lacks_is_not_missed(parts: tuple[Dataset, guard.JudgeScore]) -> None:
    rest, score = parts
    seen = score.judge(rest.images)[0].argmax(1)
    few = rest.subset((seen < 5).nonzero().squeeze(1))
    narrow = guard.JudgeScore(score.judge, few)
    assert guard.Guard().check(narrow(few.images, few.labels)) == []


def test_other_real_images_are_at_the_floor_and_hardly_ever_copies(parts: tuple[Dataset, guard.JudgeScore]) -> None:
    rest, score = parts
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(3))
    one, two, three = (rest.subset(rows) for rows in order.chunk(3))
    found = guard.scorer(one, two, score.judge)(three.images, three.labels)
    assert 0.5 < found["frechet_ratio"] < 2
    assert found["near_copies"] < 0.05
    assert found["recall"] > 0.8
    assert guard.Guard().check(found) == []


def test_copies_of_training_images_are_seen_and_told(parts: tuple[Dataset, guard.JudgeScore]) -> None:
    rest, score = parts
    one, two = (rest.subset(rows) for rows in torch.arange(len(rest)).chunk(2))
    watch = guard.scorer(one, two, score.judge)
    found = watch(two.images, two.labels)
    assert found["near_copies"] > 0.9
    assert guard.copies(found)
    assert any("nearly copies" in warning for warning in guard.Guard().check(found))


def test_with_too_few_held_out_images_one_half_of_the_others_is_held_against_the_other(
    parts: tuple[Dataset, guard.JudgeScore],
) -> None:
    rest, score = parts
    few = rest.subset(torch.arange(20))
    watch = guard.scorer(few, rest, score.judge)
    assert isinstance(watch, guard.JudgeScore)
    assert watch.known is not None
    assert len(watch.reference.features) + len(watch.known.features) == len(rest)
    assert watch(rest.images, rest.labels)["frechet_ratio"] < 1.5


def test_a_discriminator_that_knows_its_images_by_heart_is_told() -> None:
    assert guard.Guard().check(scores(held_out_gap=0.2)) == []
    assert "by heart" in guard.Guard().check(scores(held_out_gap=0.8))[0]


def test_the_young_are_warned_of_but_not_stopped() -> None:
    watch = guard.Guard()
    for _ in range(watch.patience + 1):
        assert watch.check(scores(class_shares=[10.0] + [0.0] * 9), young=True)
    assert watch.strikes == 0


def test_a_data_set_without_a_judge_is_watched_by_its_pixels(digits: Dataset) -> None:
    rest, held_out = split_held_out(digits)
    score = guard.scorer(held_out, rest)
    assert "class_shares" not in score(rest.images, rest.labels)
    assert guard.Guard().check(score(rest.images, rest.labels)) == []
    assert "look alike" in last(guard.Guard(), score(torch.full_like(rest.images, 128), rest.labels))


def test_mnist_is_watched_by_its_shipped_judge() -> None:
    images = torch.randint(0, 256, (300, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    named = Dataset("ylecun/mnist", images, torch.arange(300) % 10, tuple("0123456789"))
    assert isinstance(guard.scorer(named, named, judge.shipped(named)), guard.JudgeScore)
