"""Whether an exact graph is as good as its float one, told by the judge and not by pixels."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.evaluate import Generated, evaluate_onnx, yardstick_for

# Each measure, and whether more of it is better.
MEASURES = {"label_accuracy": True, "frechet_ratio": False, "coverage": True, "precision": True}
RANGES = 5
DEVIATIONS = 2.0


@dataclass(frozen=True)
class Verdict:
    """What :func:`training.evaluate.evaluate_onnx` found of the float graph over its seed ranges, and of the exact one
    over the first of them."""

    float_results: Sequence[Mapping[str, Any]]
    exact_result: Mapping[str, Any]

    @property
    def measures(self) -> list[str]:
        """What can be compared: the float graph has a value in every range."""
        return [m for m in MEASURES if all(scores.get(m) is not None for scores in self.float_results)]

    @property
    def worse(self) -> list[str]:
        """The measures by which the exact graph is more than two standard deviations worse than the float mean."""
        return [name for name in self.measures if self.deviations(name) < -DEVIATIONS]

    def deviations(self, name: str) -> float:
        """By how many standard deviations of the float graph the exact one is better (negative: worse)."""
        values = [float(scores[name]) for scores in self.float_results]
        own = self.exact_result.get(name)
        if own is None:
            return float("-inf")
        apart = float(own) - statistics.mean(values)
        spread = statistics.stdev(values)
        if not spread:
            return 0.0 if not apart else float("inf") if (apart > 0) == MEASURES[name] else float("-inf")
        return (apart if MEASURES[name] else -apart) / spread

    def reason(self) -> str:
        """Why the float version is published instead; empty if it need not be."""
        told = [self._told(name) for name in self.worse]
        return f"the exact graph is worse than the float one: {', '.join(told)}" if told else ""

    def _told(self, name: str) -> str:
        own = self.exact_result.get(name)
        return f"{name} -" if own is None else f"{name} {own:.4f} ({self.deviations(name):+.1f} deviations)"


def judge(
    float_graph: bytes, exact_graph: bytes, dataset: str, *, images: int = 10_000, seeds: Sequence[int] = range(RANGES)
) -> Verdict:
    """Score the float graph over several seed ranges and the exact one over the first of them.

    Raises:
        DataError: the data set or a model cannot be used.
    """
    yardstick = yardstick_for(Generated(float_graph), dataset, images)

    def scores(graph: bytes, seed: int) -> dict[str, Any]:
        return evaluate_onnx(graph, dataset, images=images, seed=seed, yardstick=yardstick)

    return Verdict([scores(float_graph, seed) for seed in seeds], scores(exact_graph, seeds[0]))
