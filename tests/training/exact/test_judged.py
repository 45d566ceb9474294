from __future__ import annotations

import pytest

from training.exact import judged
from training.exact.judged import Verdict

FLOAT = [
    {"label_accuracy": 0.99 + 0.001 * step, "frechet_ratio": 1.5 + 0.01 * step, "coverage": 0.9, "precision": 0.9}
    for step in (-2, -1, 0, 1, 2)
]
EQUAL = {"label_accuracy": 0.99, "frechet_ratio": 1.5, "coverage": 0.9, "precision": 0.9}


def test_an_exact_graph_of_the_same_scores_is_not_worse() -> None:
    verdict = Verdict(FLOAT, EQUAL)
    assert verdict.worse == []
    assert verdict.reason() == ""


@pytest.mark.parametrize(("measure", "value"), [("label_accuracy", 0.98), ("frechet_ratio", 1.6), ("coverage", 0.89)])
def test_more_than_two_deviations_on_the_wrong_side_are_worse(measure: str, value: float) -> None:
    verdict = Verdict(FLOAT, EQUAL | {measure: value})
    assert verdict.worse == [measure]
    assert verdict.reason().startswith(f"the exact graph is worse than the float one: {measure} ")


@pytest.mark.parametrize(("measure", "value"), [("label_accuracy", 0.998), ("frechet_ratio", 1.1), ("coverage", 0.99)])
def test_better_scores_are_not_worse(measure: str, value: float) -> None:
    assert Verdict(FLOAT, EQUAL | {measure: value}).worse == []


def test_two_deviations_are_still_allowed() -> None:
    spread = 0.001 * (10 / 4) ** 0.5
    for times, worse in ((1.9, []), (2.1, ["label_accuracy"])):
        assert Verdict(FLOAT, EQUAL | {"label_accuracy": 0.99 - times * spread}).worse == worse


def test_a_measure_that_the_exact_graph_alone_has_not_is_worse_and_one_that_both_lack_is_none() -> None:
    without = [{**scores, "coverage": None} for scores in FLOAT]
    assert Verdict(without, {**EQUAL, "coverage": None}).worse == []
    verdict = Verdict(FLOAT, {**EQUAL, "coverage": None})
    assert verdict.worse == ["coverage"]
    assert verdict.reason().endswith(": coverage -")


def test_the_float_graph_is_scored_over_five_seed_ranges_and_the_exact_one_over_the_first_by_one_yardstick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[bytes, int]] = []
    one = object()

    def score(graph: bytes, dataset: str, *, images: int, seed: int, yardstick: object) -> dict[str, float | None]:
        assert yardstick is one
        asked.append((graph, seed))
        return {**FLOAT[seed], "label_accuracy": None, "kid": 0.5}

    monkeypatch.setattr(judged, "Generated", lambda graph: graph)
    monkeypatch.setattr(judged, "yardstick_for", lambda graph, dataset, images: one)
    monkeypatch.setattr(judged, "evaluate_onnx", score)
    verdict = judged.judge(b"float", b"exact", "digits")
    assert asked == [*((b"float", seed) for seed in range(5)), (b"exact", 0)]
    # An unconditional model has no label to hit.
    assert verdict.measures == ["frechet_ratio", "coverage", "precision"]
    assert verdict.worse == []
