"""Whether an exact graph is as good as its float one, told by the judge and not by pixels."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.evaluate import evaluate_onnx

# Each measure, and whether more of it is better.
MEASURES = {"label_accuracy": True, "frechet_ratio": False, "coverage": True, "precision": True}
RANGES = 5
DEVIATIONS = 2.0


@dataclass(frozen=True)
class Verdict:
    """The float graph's scores over its seed ranges, the exact graph's, and by which measures it is worse."""

    float_scores: list[dict[str, float]]
    exact_scores: dict[str, float]

    @property
    def worse(self) -> list[str]:
        """The measures by which the exact graph is more than two standard deviations worse than the float mean."""
        return [name for name in self.exact_scores if self.deviations(name) < -DEVIATIONS]

    def deviations(self, name: str) -> float:
        """By how many standard deviations of the float graph the exact one is better (negative: worse)."""
        values = [scores[name] for scores in self.float_scores]
        apart = self.exact_scores[name] - statistics.mean(values)
        spread = statistics.stdev(values)
        if not spread:
            return 0.0 if not apart else float("inf") if (apart > 0) == MEASURES[name] else float("-inf")
        return (apart if MEASURES[name] else -apart) / spread

    def reason(self) -> str:
        """Why the float version is published instead; empty if it need not be."""
        scores = self.exact_scores
        told = [f"{name} {scores[name]:.4f} ({self.deviations(name):+.1f} deviations)" for name in self.worse]
        return f"the exact graph is worse than the float one: {', '.join(told)}" if told else ""


def judge(
    float_graph: bytes, exact_graph: bytes, dataset: str, *, images: int = 10_000, seeds: Sequence[int] = range(RANGES)
) -> Verdict:
    """Score the float graph over several seed ranges and the exact one over the first of them.

    Raises:
        DataError: the data set or a model cannot be used.
    """
    scores = [_scores(evaluate_onnx(float_graph, dataset, images=images, seed=seed)) for seed in seeds]
    return Verdict(scores, _scores(evaluate_onnx(exact_graph, dataset, images=images, seed=seeds[0])))


def _scores(result: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(result[name]) for name in MEASURES if result.get(name) is not None}
