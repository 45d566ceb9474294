"""The cost model: what rows take at the measured rate, and what follows for who is admitted, when to ask again, and
what the event loop may run itself. No threads and no clock in it; callers hold the lock and tell the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from service.inference.engine import Engine

# What the event loop runs itself may keep it so long from everything else.
INLINE_SECONDS = 0.02
# Waiting may be expected to take this share of a request's time. What is admitted closer to its deadline misses it,
# as runs slow down, answers are encoded, and the event loop has its own queue.
ADMITTED_SHARE = 0.3
# How long a full queue is watched before it tells how fast the lanes really are.
PACE_SECONDS = 0.5
# What the newest run weighs in the cost of a row, and the newest watch in the pace.
_ROW_WEIGHT, _PACE_WEIGHT = 0.1, 0.5


class Pace:
    """How long rows take, from what they have taken.

    Args:
        lanes: seconds of runs that a second can bring at most.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        # Seconds of a run a row, by model name; smoothed.
        self.cost: dict[str, float] = {}
        # Seconds of runs that a second brings while rows wait. Between runs lanes encode, and wait for Python's lock
        # and for the cores that answer others, so it is less than there are lanes.
        self.speed = float(lanes)
        self._since: float | None = None
        self._worked = 0.0

    def ran(self, name: str, rows: int, seconds: float) -> None:
        """A run of so many rows took so long."""
        cost = self.cost.get(name)
        new = seconds / rows
        self.cost[name] = new if cost is None else (1 - _ROW_WEIGHT) * cost + _ROW_WEIGHT * new

    def keep(self, seconds: float, now: float, *, waiting: bool) -> None:
        """The end of a run, at ``now``: a second's worth of runs is measured as long as rows are ``waiting``."""
        if not waiting:
            self._since = None
        elif self._since is None:
            self._since, self._worked = now, 0.0
        else:
            self._worked += seconds
            if now - self._since >= PACE_SECONDS:
                seen = min(self.lanes, self._worked / (now - self._since))
                self.speed += _PACE_WEIGHT * (seen - self.speed)
                self._since, self._worked = now, 0.0

    def seconds(self, waiting: Iterable[tuple[str, int]]) -> float:
        """How long the rows that wait, by model, will take from now on; a model that never ran counts nothing."""
        return sum(rows * self.cost.get(name, 0.0) for name, rows in waiting) / self.speed

    def inline_rows(self, engine: Engine) -> int:
        """Rows that the event loop may run at once: none of an engine whose pace is not known yet."""
        cost = self.cost.get(engine.card.name)
        return min(engine.max_rows, int(INLINE_SECONDS / cost)) if cost else 0


def too_late(wait: float, timeout: float) -> bool:
    """What starts after ``wait`` seconds would likely not be done within ``timeout``."""
    return wait > ADMITTED_SHARE * timeout


def retry_after(wait: float) -> int:
    """Whole seconds, at least one, after which what waits now is done."""
    return max(1, math.ceil(wait))
