"""The gate lets nothing worse go live."""

import math

import pytest

from training.retrain.gate import RULES, compare

LIVE = {"judge": "j1", "dataset": "digits", "split": "test", "images": 1000, "frechet": 10.0, "coverage": 0.9}


def test_the_first_version_has_nothing_to_beat() -> None:
    assert compare(LIVE, None).better


def test_an_equal_version_passes() -> None:
    assert compare(LIVE, LIVE).better


@pytest.mark.parametrize(
    ("metric", "value", "passes"),
    [
        ("frechet", 9.0, True),
        ("frechet", 10.4, True),
        ("frechet", 10.6, False),
        ("frechet", math.nan, False),
        ("coverage", 0.895, True),
        ("coverage", 0.88, False),
    ],
)
def test_each_metric_may_get_worse_by_noise_only(metric: str, value: float, passes: bool) -> None:
    verdict = compare({**LIVE, metric: value}, LIVE)
    assert verdict.better is passes
    assert any(metric in reason for reason in verdict.reasons)


def test_one_worse_metric_outweighs_a_better_one() -> None:
    assert not compare({**LIVE, "frechet": 1.0, "coverage": 0.5}, LIVE).better


@pytest.mark.parametrize("key", ["judge", "dataset", "split", "images"])
def test_measurements_of_different_things_are_not_compared(key: str) -> None:
    verdict = compare({**LIVE, key: "other", "frechet": 0.1}, LIVE)
    assert not verdict.better
    assert key in verdict.reasons[0]


def test_a_metric_that_the_candidate_lacks_counts_against_it() -> None:
    assert not compare({key: LIVE[key] for key in LIVE if key != "coverage"}, LIVE).better


def test_nothing_measured_is_not_a_pass() -> None:
    same = {key: LIVE[key] for key in ("judge", "dataset", "split", "images")}
    assert not compare(same, same).better


def test_the_rules_can_be_read_from_a_card() -> None:
    assert "frechet may not rise by more than 5% or 1e-06" in RULES
