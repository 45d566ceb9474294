"""The cost model alone: what rows take, and what follows from it."""

import pytest

from service.inference.pace import INLINE_SECONDS, PACE_SECONDS, Pace, retry_after, too_late
from tests.engines import DummyEngine
from tests.tiny import card


def test_what_waits_takes_what_its_rows_have_cost_shared_by_the_lanes() -> None:
    pace = Pace(2)
    pace.ran("m", 10, 1.0)
    pace.ran("slow", 1, 0.5)
    assert pace.seconds([("m", 20), ("slow", 4)]) == pytest.approx((20 * 0.1 + 4 * 0.5) / 2)
    assert pace.seconds([("never ran", 1000)]) == 0


def test_one_run_out_of_the_ordinary_moves_the_cost_by_a_tenth() -> None:
    pace = Pace(1)
    pace.ran("m", 1, 0.1)
    pace.ran("m", 1, 1.1)
    assert pace.cost["m"] == pytest.approx(0.2)


def test_the_speed_counts_what_lanes_do_between_runs() -> None:
    pace, now = Pace(1), 0.0
    for _ in range(200):
        # Ten milliseconds of runs, thirty of encoding: a quarter of what the runs alone would promise.
        now += 0.04
        pace.keep(0.01, now, waiting=True)
    assert pace.speed == pytest.approx(0.25, abs=0.01)


def test_lanes_without_work_are_not_taken_for_slow_ones() -> None:
    pace, now = Pace(2), 0.0
    for _ in range(50):
        now += 2 * PACE_SECONDS
        pace.keep(0.01, now, waiting=False)
        pace.keep(0.01, now, waiting=True)
    assert pace.speed == 2


def test_runs_of_more_lanes_than_there_are_promise_no_more() -> None:
    pace = Pace(2)
    pace.keep(9, 0.0, waiting=True)
    pace.keep(9, PACE_SECONDS, waiting=True)
    assert pace.speed == 2


def test_the_event_loop_runs_as_many_rows_as_keep_it_a_moment_and_none_of_an_unknown_pace() -> None:
    pace, engine = Pace(1), DummyEngine(card("m"), max_rows=8)
    assert pace.inline_rows(engine) == 0
    pace.cost["m"] = INLINE_SECONDS / 3.5
    assert pace.inline_rows(engine) == 3
    pace.cost["m"] = INLINE_SECONDS / 1000
    assert pace.inline_rows(engine) == 8
    pace.cost["m"] = 2 * INLINE_SECONDS
    assert pace.inline_rows(engine) == 0


def test_what_would_start_late_in_its_time_is_refused() -> None:
    assert not too_late(9, 30)
    assert too_late(9.1, 30)


@pytest.mark.parametrize(("wait", "seconds"), [(0, 1), (0.2, 1), (1.0, 1), (1.01, 2), (10, 10)])
def test_retry_after_is_whole_seconds_until_what_waits_is_done(wait: float, seconds: int) -> None:
    assert retry_after(wait) == seconds
