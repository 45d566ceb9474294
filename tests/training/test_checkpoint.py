from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from training import checkpoint


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 7, {"step": 7, "weights": torch.arange(3)})
    state, warnings = checkpoint.latest(tmp_path)
    assert state is not None
    assert state["step"] == 7
    assert torch.equal(state["weights"], torch.arange(3))
    assert warnings == []


def test_the_latest_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"step": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000002.pt", "step-000000003.pt"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})
    last = checkpoint.save(tmp_path, 2, {"step": 2})
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    state, warnings = checkpoint.latest(tmp_path)
    assert state == {"step": 1}
    assert "step-000000002.pt is damaged" in warnings[0]


def test_a_truncated_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})
    last = checkpoint.save(tmp_path, 2, {"step": 2})
    last.write_bytes(last.read_bytes()[:20])
    assert checkpoint.latest(tmp_path)[0] == {"step": 1}


def test_without_any_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "absent") == (None, [])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved by hand."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def saved_at(schedule: checkpoint.Schedule, clock: list[float], seconds: int, steps_a_second: float) -> list[int]:
    """The seconds after which a run at this speed saves a checkpoint."""
    saved = []
    for second in range(1, seconds + 1):
        clock[0] += 1
        step = int(second * steps_a_second)
        if schedule.due(step):
            schedule.saved(step)
            saved.append(second)
    return saved


def test_a_long_run_saves_soon_after_it_began_and_then_each_minute(clock: list[float]) -> None:
    schedule = checkpoint.Schedule(0, 10**9, 60.0)
    assert saved_at(schedule, clock, 250, 100) == [2, 6, 14, 30, 62, 122, 182, 242]


def test_a_short_run_saves_with_each_twentieth(clock: list[float]) -> None:
    schedule = checkpoint.Schedule(0, 6000, 60.0)
    assert saved_at(schedule, clock, 60, 100) == [2, *range(5, 60, 3)]


def test_a_run_of_seconds_does_not_save_all_the_time(clock: list[float]) -> None:
    schedule = checkpoint.Schedule(0, 10, 60.0)
    clock[0] += 0.5
    assert not schedule.due(9)
    clock[0] += 0.5
    assert schedule.due(9)


@pytest.mark.parametrize("total", [2_000, 200_000, 20_000_000])
def test_a_run_that_is_killed_all_the_time_gets_further_each_time(clock: list[float], total: int) -> None:
    reached = 0
    for _ in range(5):
        schedule, before = checkpoint.Schedule(reached, total, 60.0), reached
        for step in range(before, before + 500):
            clock[0] += 0.01
            if schedule.due(step):
                schedule.saved(step)
                reached = step
        assert reached > before
