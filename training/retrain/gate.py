"""The gate: may a new version replace the live one?

It may if it beats or matches the live version on the same judge, the same data and as many images. The first
version of a model has nothing to beat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What two measurements must agree in to be comparable at all.
SAME = ("judge", "dataset", "split", "images", "labels")


@dataclass(frozen=True)
class Rule:
    """One metric that must not get worse by more than measurement noise.

    ``relative`` is a share of the live version's value, ``absolute`` is in the metric's own unit; the larger
    counts.
    """

    metric: str
    higher_is_better: bool
    relative: float = 0.0
    absolute: float = 0.0

    def __str__(self) -> str:
        way = "may not fall" if self.higher_is_better else "may not rise"
        return f"{self.metric} {way} by more than {self.slack()}"

    def slack(self) -> str:
        """The tolerance in words."""
        parts = [f"{self.relative:.0%}"] if self.relative else []
        return " or ".join([*parts, *([f"{self.absolute:g}"] if self.absolute else [])])

    def holds(self, candidate: float, live: float) -> bool:
        """Whether the candidate's value is good enough. NaN never is."""
        if math.isnan(candidate):
            return False
        margin = max(self.relative * abs(live), self.absolute)
        worse = live - candidate if self.higher_is_better else candidate - live
        return math.isnan(live) or worse <= margin


_RULES = (
    Rule("frechet", higher_is_better=False, relative=0.05, absolute=1e-6),
    Rule("coverage", higher_is_better=True, absolute=0.01),
    Rule("precision", higher_is_better=True, absolute=0.01),
    Rule("label_accuracy", higher_is_better=True, absolute=0.005),
)
RULES = tuple(str(rule) for rule in _RULES)


@dataclass(frozen=True)
class Verdict:
    """What the gate found, and why."""

    better: bool
    reasons: tuple[str, ...]


def compare(candidate: Mapping[str, Any], live: Mapping[str, Any] | None) -> Verdict:
    """Hold a candidate's metrics against those of the live version (None: there is none)."""
    if live is None:
        return Verdict(True, ("no version is live: nothing to beat",))
    for key in SAME:
        if candidate.get(key) != live.get(key):
            return Verdict(
                False,
                (f"not comparable: {key} is {candidate.get(key)!r}, the live version's {live.get(key)!r}",),
            )
    reasons: list[str] = []
    better, compared = True, 0
    for rule in _RULES:
        new, old = _number(candidate.get(rule.metric)), _number(live.get(rule.metric))
        if old is None:
            continue
        compared += 1
        if new is None:
            better = False
            reasons.append(f"{rule.metric}: not measured, {old:.4g} live")
            continue
        held = rule.holds(new, old)
        better = better and held
        reasons.append(f"{rule.metric}: {new:.4g}, {old:.4g} live: {'holds' if held else 'worse'}")
    if not compared:
        return Verdict(False, (f"nothing to compare: neither of {', '.join(r.metric for r in _RULES)} was measured",))
    return Verdict(better, tuple(reasons))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
