from __future__ import annotations

import math

import pytest
import torch

from training.measure import metrics
from training.measure.metrics import Comparison, Sample


def sample(features: torch.Tensor, seen: torch.Tensor | None = None, asked: torch.Tensor | None = None) -> Sample:
    """Features with logits that see the classes ``seen``."""
    n = len(features)
    seen = torch.arange(n) % 4 if seen is None else seen
    return Sample(features, torch.nn.functional.one_hot(seen, 4).float() * 20, asked)


@pytest.fixture
def gaussian() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(600, 8)


def compare(real: torch.Tensor, fake: Sample) -> Comparison:
    return Comparison(sample(real), fake, torch.randn(500, real.shape[1]))


def number(value: metrics.Value) -> float:
    assert isinstance(value, float)
    return value


def test_the_frechet_distance_of_shifted_gaussians_is_the_squared_shift(gaussian: torch.Tensor) -> None:
    shifted = compare(gaussian, sample(gaussian + torch.tensor([3.0] + [0.0] * 7)))
    assert metrics.frechet(shifted) == pytest.approx(9.0, rel=1e-4)


def test_the_frechet_distance_of_scaled_gaussians_is_that_of_their_deviations(gaussian: torch.Tensor) -> None:
    centred = gaussian - gaussian.mean(0)
    expected = float(centred.var(0).sum())
    assert metrics.frechet(compare(centred, sample(centred * 2))) == pytest.approx(expected, rel=1e-4)


def test_a_set_beside_itself_is_perfect(gaussian: torch.Tensor) -> None:
    same = compare(gaussian, sample(gaussian))
    assert metrics.precision(same) == metrics.recall(same) == metrics.coverage(same) == 1
    assert metrics.frechet(same) == pytest.approx(0, abs=1e-3)
    assert abs(number(metrics.kid(same))) < 0.05


def test_sets_far_apart_share_nothing(gaussian: torch.Tensor) -> None:
    apart = compare(gaussian, sample(gaussian + 100))
    assert metrics.precision(apart) == metrics.recall(apart) == metrics.coverage(apart) == metrics.density(apart) == 0


def test_one_picture_for_all_covers_nearly_nothing(gaussian: torch.Tensor) -> None:
    one = gaussian[:1].repeat(600, 1) + torch.randn(600, 8) * 1e-3
    collapsed = compare(gaussian, sample(one))
    assert metrics.precision(collapsed) == 1
    assert number(metrics.coverage(collapsed)) < 0.05
    assert number(metrics.within_class_variance_ratio(collapsed)) < 0.01


def test_density_of_two_samples_of_one_distribution_is_near_one(gaussian: torch.Tensor) -> None:
    other = compare(gaussian, sample(torch.randn(600, 8)))
    assert metrics.density(other) == pytest.approx(1, abs=0.15)


def test_label_accuracy_is_the_share_that_shows_what_was_asked_for(gaussian: torch.Tensor) -> None:
    asked = torch.arange(600) % 4
    seen = asked.clone()
    seen[:60] = (seen[:60] + 1) % 4
    assert metrics.label_accuracy(compare(gaussian, sample(gaussian, seen, asked))) == pytest.approx(0.9)
    assert metrics.label_accuracy(compare(gaussian, sample(gaussian))) is None


def test_a_missing_class_shows_in_histogram_and_divergence(gaussian: torch.Tensor) -> None:
    even = compare(gaussian, sample(gaussian))
    assert metrics.class_histogram(even) == [150] * 4
    assert metrics.class_kl(even) == pytest.approx(0, abs=1e-9)
    lacking = compare(gaussian, sample(gaussian, torch.arange(600) % 2))
    assert metrics.class_histogram(lacking) == [300, 300, 0, 0]
    assert metrics.class_kl(lacking) == pytest.approx(math.log(2))


def test_the_classifier_score_of_sure_and_even_answers_is_the_number_of_classes(gaussian: torch.Tensor) -> None:
    assert metrics.classifier_score(compare(gaussian, sample(gaussian))) == pytest.approx(4, rel=1e-3)


def test_copies_of_training_images_are_found(gaussian: torch.Tensor) -> None:
    train = torch.randn(500, 8)
    copies = torch.cat([train[:300] + 1e-4, torch.randn(300, 8)])
    assert metrics.copied(Comparison(sample(gaussian), sample(copies), train)) == pytest.approx(0.5, abs=0.02)


def test_every_metric_is_measured_once_under_its_name(gaussian: torch.Tensor) -> None:
    found, left_out = metrics.measure(compare(gaussian, sample(gaussian)))
    assert found.keys() == metrics.METRICS.keys()
    assert left_out == {}
