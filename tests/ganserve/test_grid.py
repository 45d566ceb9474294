from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganserve.grid import STEPS, THRESHOLDS, grid_latents, grid_walk, to_grid, truncated
from ganserve.latents import MAX_SEED, consecutive

seeds_ = st.integers(0, MAX_SEED - 1)
recipes_ = st.sampled_from(sorted(STEPS))
NORMAL, UNIFORM = "philox-grid/v1", "philox-uniform-grid/v1"


def plain_words(seed: int, n: int) -> list[int]:
    """Philox4x32-10 by Python's own whole numbers, one word after the other."""
    found: list[int] = []
    for block in range(-(-n // 4)):
        x, key = [block, 0, 0, 0], [seed % 2**32, seed // 2**32]
        for _ in range(10):
            a, b = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
            x = [b // 2**32 ^ x[1] ^ key[0], b % 2**32, a // 2**32 ^ x[3] ^ key[1], a % 2**32]
            key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
        found += x
    return found[:n]


def plain_steps(recipe: str, seed: int, z: int) -> list[int]:
    words = plain_words(seed, z)
    if recipe == UNIFORM:
        return [word // 2**24 - 128 for word in words]
    thresholds = [round(2**31 * math.erfc(-(k + 0.5) / 32 / math.sqrt(2))) for k in range(-127, 127)]
    return [sum(t <= word for t in thresholds) - 127 for word in words]


@pytest.mark.parametrize(
    ("seed", "steps"),
    [
        (0, [-8, 38, 20, 9, 61, -11, 16, -57]),
        (42, [9, -3, -46, -13, 72, -14, 1, -4]),
        (2**53 - 1, [-15, 5, 30, 13, -26, -13, 12, 39]),
    ],
)
def test_the_first_values_are_the_published_ones(seed: int, steps: list[int]) -> None:
    assert (grid_latents(NORMAL, [seed], 8)[0] * 32).tolist() == steps


def test_the_thresholds_are_the_published_ones() -> None:
    assert len(THRESHOLDS) == 254
    assert THRESHOLDS[:3].tolist() == [165651, 188683, 214719]
    assert THRESHOLDS[126:129].tolist() == [2120712174, 2174255122, 2227771934]
    assert THRESHOLDS[-3:].tolist() == [4294752577, 4294778613, 4294801645]


def test_the_thresholds_are_the_rounded_normal_distribution() -> None:
    exact = [2**31 * math.erfc(-(k + 0.5) / 32 / math.sqrt(2)) for k in range(-127, 127)]
    assert THRESHOLDS.tolist() == [round(t) for t in exact]
    # Far enough from a half for double precision to decide.
    assert min(abs(t - math.floor(t) - 0.5) for t in exact) > 0.002


@given(recipe=recipes_, seed=seeds_, z=st.integers(1, 70))
@settings(deadline=None, max_examples=40)
def test_a_second_plain_implementation_agrees(recipe: str, seed: int, z: int) -> None:
    expected = [step / STEPS[recipe] for step in plain_steps(recipe, seed, z)]
    assert grid_latents(recipe, [seed], z)[0].tolist() == expected


@given(recipe=recipes_, seed=seeds_, n=st.integers(1, 40), z=st.integers(1, 130))
@settings(deadline=None, max_examples=60)
def test_row_i_is_the_single_vector_of_seed_plus_i(recipe: str, seed: int, n: int, z: int) -> None:
    rows = grid_latents(recipe, consecutive(seed, n), z)
    assert rows.shape == (n, z)
    assert rows.dtype == np.float32
    for i in range(n):
        assert np.array_equal(rows[i], grid_latents(recipe, [(seed + i) % MAX_SEED], z)[0])


@given(recipe=recipes_, seed=seeds_, z=st.integers(1, 130), more=st.integers(0, 60))
@settings(deadline=None)
def test_a_longer_vector_begins_with_the_shorter(recipe: str, seed: int, z: int, more: int) -> None:
    assert np.array_equal(grid_latents(recipe, [seed], z + more)[0, :z], grid_latents(recipe, [seed], z)[0])


def test_many_words_are_looked_up_as_few_are_searched() -> None:
    seeds = np.arange(40_000)
    rows = grid_latents(NORMAL, seeds, 64)
    for first in range(0, 40_000, 997):
        assert np.array_equal(rows[first : first + 3], grid_latents(NORMAL, seeds[first : first + 3], 64))
    # A word of the far tails takes the other way.
    assert np.abs(rows).max() > 3.9


@pytest.mark.parametrize("word", [0, 165650, 165651, 2**31 - 1, 2**31, 4294801644, 4294801645, 2**32 - 1])
def test_a_word_at_a_threshold_counts_as_past_it(word: int) -> None:
    from ganserve.grid import _normal

    expected = sum(int(t) <= word for t in THRESHOLDS) - 127
    for shape in ((1, 1, 2, 2), (2000, 1, 2, 2)):
        assert np.unique(_normal(np.full(shape, word, np.uint64))).tolist() == [expected]


@pytest.mark.parametrize(("recipe", "low", "high"), [(NORMAL, -127, 127), (UNIFORM, -128, 127)])
def test_values_are_whole_steps_within_the_range(recipe: str, low: int, high: int) -> None:
    steps = grid_latents(recipe, np.arange(20_000), 100).astype(np.float64) * STEPS[recipe]
    assert np.array_equal(steps, np.rint(steps))
    assert steps.min() >= low
    assert steps.max() <= high


def test_moments_are_those_of_the_distributions() -> None:
    normal, uniform = (grid_latents(recipe, np.arange(4000), 64) for recipe in (NORMAL, UNIFORM))
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert abs(uniform.mean() + 1 / 256) < 0.01
    assert abs(uniform.std() - 3**-0.5) < 0.01


@given(steps=st.lists(st.integers(-128, 127), min_size=1), hundredths=st.integers(1, 100))
def test_truncation_rounds_halves_away_from_zero(steps: list[int], hundredths: int) -> None:
    def plain(k: int) -> int:
        magnitude = math.floor(Fraction(abs(k) * hundredths, 100) + Fraction(1, 2))
        return magnitude if k >= 0 else -magnitude

    assert truncated(np.array(steps, np.int16), hundredths).tolist() == [plain(k) for k in steps]


@pytest.mark.parametrize("recipe", sorted(STEPS))
def test_a_truncation_of_one_hundred_changes_nothing_and_of_one_leaves_almost_nothing(recipe: str) -> None:
    whole = grid_latents(recipe, [1, 2], 50)
    assert np.array_equal(grid_latents(recipe, [1, 2], 50, truncation=100), whole)
    least = grid_latents(recipe, [1, 2], 50, truncation=1) * STEPS[recipe]
    assert np.abs(least).max() <= 1


@pytest.mark.parametrize("hundredths", [0, -1, 101])
def test_a_truncation_out_of_range_is_refused(hundredths: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 100"):
        grid_latents(NORMAL, [0], 4, truncation=hundredths)


def test_a_recipe_of_no_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="philox-grid/v1"):
        grid_latents("philox-normal/v1", [0], 4)


@pytest.mark.parametrize("seed", [-1, MAX_SEED, 0.5])
def test_a_seed_that_is_none_makes_no_latents(seed: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        grid_latents(NORMAL, [seed], 4)


@given(recipe=recipes_, first=seeds_, last=seeds_, frames=st.integers(2, 9))
@settings(deadline=None, max_examples=40)
def test_a_walk_stays_on_the_grid_and_ends_at_its_seeds(recipe: str, first: int, last: int, frames: int) -> None:
    path = grid_walk(recipe, first, last, 20, frames)
    assert path.dtype == np.float32
    assert path.shape == (frames, 20)
    assert np.array_equal(path[[0, -1]], grid_latents(recipe, [first, last], 20))
    assert np.array_equal(path, to_grid(recipe, path))


def test_a_walk_goes_along_the_circle() -> None:
    path = grid_walk(NORMAL, 1, 2, 100, 3)
    lengths = np.linalg.norm(path, axis=1)
    assert lengths[1] > 0.9 * lengths[[0, 2]].min()
    straight = np.linalg.norm(path[[0, 2]].mean(0))
    assert straight < 0.8 * lengths[1]


def test_what_lies_beyond_the_grid_is_clipped_to_it() -> None:
    assert to_grid(NORMAL, [-9.0, 9.0, 0.02, 1 / 64]).tolist() == [-127 / 32, 127 / 32, 1 / 32, 0.0]
    assert to_grid(UNIFORM, [-1.0, 1.0]).tolist() == [-1.0, 127 / 128]
