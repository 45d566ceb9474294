from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.exact import ExactError
from training.exact.layers import Frame, Layer, Net
from training.exact.quantise import LEVELS, SUM_LIMIT, Program, _scale, check, pixel_table, quantise, sum_bound
from training.exact.ranges import Range, calibrate


def program(inputs: int = 6, scale: float = 1.0, shift: float = 0.0) -> Program:
    random = np.random.default_rng(0)
    hidden = Layer(random.normal(0, 1, (inputs, 8)), np.full((2, 8), scale), np.full((2, 8), shift), None, 0.0, 8)
    last = Layer(random.normal(0, 1, (8, 4)), np.ones((1, 4)), np.zeros((1, 4)), None, None, 1)
    net = Net((hidden, last), Frame(2, 2, 1, 0), 1, 2, inputs)
    seen = [np.eye(len(layer.weight)) for layer in net.layers]
    return quantise(net, calibrate(net, "philox-grid/v1", 64), seen, "philox-grid/v1", (-1.0, 1.0))


def test_a_weight_past_63_is_refused() -> None:
    whole = program()
    weight = whole.steps[0].weight.copy()
    weight[0, 0] = -64
    with pytest.raises(ExactError, match="a weight of 64"):
        check(replace(whole, steps=(replace(whole.steps[0], weight=weight), *whole.steps[1:])))


def test_a_sum_that_may_reach_2_to_the_24_is_refused() -> None:
    whole = program()
    room = SUM_LIMIT - sum_bound(whole.steps[1].weight, 0)
    fits, over = (whole.steps[1].shift * 0 + np.float32(room.min() - less) for less in (1, 0))
    check(replace(whole, steps=(whole.steps[0], replace(whole.steps[1], shift=fits))))
    with pytest.raises(ExactError, match="may reach 16777216"):
        check(replace(whole, steps=(whole.steps[0], replace(whole.steps[1], shift=over))))


def test_a_shift_that_is_no_whole_number_is_refused() -> None:
    whole = program()
    shift = whole.steps[0].shift + np.float32(0.5)
    with pytest.raises(ExactError, match="no whole number"):
        check(replace(whole, steps=(replace(whole.steps[0], shift=shift), whole.steps[1])))


@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-9, 0.0, -1e-7, 1e6])
@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0, 1e4])
def test_no_scale_and_shift_of_a_class_leave_the_bounds(scale: float, shift: float) -> None:
    check(program(scale=scale, shift=shift))


def test_a_class_of_no_scale_gives_its_shift() -> None:
    step = program(scale=0.0, shift=3.0).steps[0]
    given = np.rint(step.shift * step.factor)
    assert (given == LEVELS).all()


def test_a_very_wide_layer_keeps_its_sums_by_coarser_weights() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (20_000, 2))
    scale = _scale(weight, 128)
    whole = np.rint(weight / scale)
    assert 10 < np.abs(whole).max() < 63
    assert sum_bound(whole, 128).max() < SUM_LIMIT


@given(
    weights=st.lists(st.integers(-63, 63), min_size=1, max_size=12),
    before=st.integers(0, 255),
    data=st.data(),
)
@settings(deadline=None)
def test_no_levels_exceed_the_bound_of_a_sum(weights: list[int], before: int, data: st.DataObject) -> None:
    column = np.array(weights, np.int8)[:, None]
    levels = data.draw(st.lists(st.integers(0, 255), min_size=len(weights), max_size=len(weights)))
    total = sum(w * (level - before) for w, level in zip(weights, levels, strict=True))
    assert abs(total) <= sum_bound(column, before)[0]


@pytest.mark.parametrize("image_range", [(-1.0, 1.0), (-0.5, 0.5)])
def test_the_table_spans_all_pixels_in_1024_steps(image_range: tuple[float, float]) -> None:
    low, high, table = pixel_table(image_range)
    assert (table[0], table[-1], len(table)) == (0, 255, 1024)
    assert (np.diff(table.astype(int)) >= 0).all()
    assert len(set(table.tolist())) == 256
    assert low == pytest.approx(-high)


def test_ranges_are_seen_on_own_seeds_and_the_same_each_time() -> None:
    random = np.random.default_rng(0)
    layers = (
        Layer(random.normal(0, 1, (6, 8)), np.ones((1, 8)), np.zeros((1, 8)), None, 0.2, 8),
        Layer(random.normal(0, 1, (8, 4)), np.ones((1, 4)), np.zeros((1, 4)), None, None, 1),
    )
    net = Net(layers, Frame(2, 2, 1, 0), 1, 0, 6)
    (seen,), (again,) = calibrate(net, "philox-grid/v1", 128), calibrate(net, "philox-grid/v1", 128)
    assert isinstance(seen, Range)
    assert np.array_equal(seen.high, again.high)
    assert (seen.low < 0).all()
    assert (seen.high > 0).all()
