"""A version is slower where it is so beyond what one and the same version is from itself."""

from __future__ import annotations

import pytest

from benchmarks.before_after.__main__ import judge, tenths, turn

STEADY = [{"before": 100.0, "again": 100.0 + i % 2, "after": 100.0} for i in range(9)]


def test_what_is_measured_to_do_the_same_is_as_fast() -> None:
    told = judge(STEADY)
    assert told["ratio"] == pytest.approx(1, abs=0.01)
    assert not told["slower"]


def test_four_hundredths_less_is_slower_on_a_steady_machine() -> None:
    assert judge([{**each, "after": 95.0} for each in STEADY])["slower"]
    assert not judge([{**each, "after": 98.5} for each in STEADY])["slower"]


def test_four_hundredths_less_is_not_told_from_a_machine_that_shakes_by_a_tenth() -> None:
    shaken = [{"before": 100.0, "again": 90.0 + 5 * (i % 5), "after": 95.0} for i in range(9)]
    assert not judge(shaken)["slower"]
    assert judge([{**each, "after": 80.0} for each in shaken])["slower"]


def test_every_side_takes_every_turn_equally_often() -> None:
    orders = list(turn(9))
    for place in range(3):
        assert sorted(order[place] for order in orders) == ["after"] * 3 + ["again"] * 3 + ["before"] * 3


def test_tenths_lie_between_the_values_beside_them() -> None:
    assert [tenths([3.0, 1.0, 2.0], share) for share in (0, 0.25, 0.5, 1)] == [1.0, 1.5, 2.0, 3.0]
