"""What a run is asked for, and how often it looks up from its steps."""

from __future__ import annotations

import pytest

from training.run import Intervals


@pytest.mark.parametrize(
    ("snapshots", "steps", "apart"),
    [(None, 100_000, 5000), (None, 400, 157), (None, 10, 157), (20, 400, 20), (4, 2, 1)],
)
def test_short_runs_have_fewer_snapshots_unless_told_how_many(snapshots: int | None, steps: int, apart: int) -> None:
    assert Intervals(snapshots=snapshots).snapshot_steps(steps, 64) == apart
