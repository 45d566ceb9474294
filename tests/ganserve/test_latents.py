from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from ganserve.latents import MAX_SEED, RECIPES, consecutive, latents, philox4x32_10

seeds_ = st.integers(0, MAX_SEED - 1)
recipes_ = st.sampled_from(RECIPES)


def words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint32)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_known_answers(counter: str, key: str, expected: str) -> None:
    assert philox4x32_10(words(counter), words(key)).tolist() == words(expected).tolist()


GOLDEN = {
    "philox-normal/v1": {
        0: [0.991137683391571, -0.9246625900268555, -0.6176089644432068, -0.48206859827041626],
        1: [0.38040074706077576, -0.29627788066864014, -0.2492334246635437, -1.00383722782135],
        2**53 - 1: [-1.378544807434082, -0.6003620624542236, -0.3515344560146332, -0.5042804479598999],
    },
    "philox-uniform/v1": {
        0: [-0.20190705358982086, 0.7610403895378113, 0.4714255630970001, 0.21096371114253998],
        1: [0.7805183529853821, 0.7893694043159485, 0.1714518964290619, 0.422536164522171],
        2**53 - 1: [-0.3541983962059021, 0.1307407170534134, 0.6556763052940369, 0.30622002482414246],
    },
    "philox-grid/v1": {
        0: [-0.25, 1.1875, 0.625, 0.28125],
        42: [0.28125, -0.09375, -1.4375, -0.40625],
        2**53 - 1: [-0.46875, 0.15625, 0.9375, 0.40625],
    },
    "philox-uniform-grid/v1": {
        0: [-0.203125, 0.7578125, 0.46875, 0.2109375],
        2**53 - 1: [-0.359375, 0.125, 0.6484375, 0.3046875],
    },
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_golden_latents_stay_what_they_are(recipe: str) -> None:
    for seed, values in GOLDEN[recipe].items():
        assert latents(recipe, [seed], 4)[0].tolist() == values


def test_the_uniform_recipe_follows_its_definition_word_by_word() -> None:
    first = words("6627e8d5 e169c58d bc57ac4c 9b00dbd8").astype(np.float64)
    expected = (2 * (first + 0.5) / 2**32 - 1).astype(np.float32)
    assert latents("philox-uniform/v1", [0], 4)[0].tolist() == expected.tolist()


def test_the_normal_recipe_is_box_and_mullers() -> None:
    u = (words("6627e8d5 e169c58d bc57ac4c 9b00dbd8").astype(np.float64) + 0.5) / 2**32
    expected = []
    for a, b in ((u[0], u[1]), (u[2], u[3])):
        radius = np.sqrt(-2 * np.log(a))
        expected += [radius * np.cos(2 * np.pi * b), radius * np.sin(2 * np.pi * b)]
    assert latents("philox-normal/v1", [0], 4)[0].tolist() == np.array(expected, np.float32).tolist()


@given(recipe=recipes_, seed=seeds_, n=st.integers(1, 40), z=st.integers(1, 130))
@settings(deadline=None, max_examples=60)
def test_row_i_of_consecutive_seeds_is_the_single_vector_of_seed_plus_i(recipe: str, seed: int, n: int, z: int) -> None:
    rows = latents(recipe, consecutive(seed, n), z)
    assert rows.shape == (n, z)
    assert rows.dtype == np.float32
    for i in range(n):
        assert np.array_equal(rows[i], latents(recipe, [(seed + i) % MAX_SEED], z)[0])


@given(recipe=recipes_, seed=seeds_, z=st.integers(1, 130), more=st.integers(0, 60))
@settings(deadline=None)
def test_a_longer_vector_begins_with_the_shorter(recipe: str, seed: int, z: int, more: int) -> None:
    assert np.array_equal(latents(recipe, [seed], z + more)[0, :z], latents(recipe, [seed], z)[0])


@pytest.mark.parametrize("recipe", RECIPES)
def test_rows_do_not_depend_on_their_place_in_the_batch(recipe: str) -> None:
    seeds = np.random.default_rng(0).integers(0, MAX_SEED, 5000, dtype=np.uint64)
    whole = latents(recipe, seeds, 100)
    for start, n in ((0, 1), (1, 2), (17, 3), (100, 33), (4001, 999)):
        assert np.array_equal(latents(recipe, seeds[start : start + n], 100), whole[start : start + n])


@pytest.mark.parametrize("z", [1, 62, 100])
def test_thousands_of_rows_are_each_the_single_vector(z: int) -> None:
    """The sine, cosine and logarithm of a vector loop's last elements must be those of its body."""
    seeds = np.random.default_rng(z).integers(0, MAX_SEED, 3000, dtype=np.uint64)
    rows = latents("philox-normal/v1", seeds, z)
    singles = np.concatenate([latents("philox-normal/v1", seeds[i : i + 1], z) for i in range(len(seeds))])
    assert np.array_equal(rows, singles)


def test_seeds_wrap_around_at_2_to_the_53() -> None:
    assert consecutive(MAX_SEED - 1, 3).tolist() == [MAX_SEED - 1, 0, 1]


@pytest.mark.parametrize("seed", [-1, MAX_SEED])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        consecutive(seed, 1)


@pytest.mark.parametrize(
    "seeds", [np.array([MAX_SEED], np.uint64), [0, -1], np.array([-1]), [2**63], [0, 2**64], [-(2**70), 0]]
)
def test_seeds_beyond_the_range_make_no_latents(seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        latents("philox-normal/v1", seeds, 4)


@pytest.mark.parametrize("seeds", [[0.5], [1.0], ["1"], [True]])
def test_a_seed_that_is_no_whole_number_makes_no_latents(seeds: ArrayLike) -> None:
    with pytest.raises(ValueError, match="expected whole numbers"):
        latents("philox-normal/v1", seeds, 4)


def test_no_seeds_make_no_rows() -> None:
    assert latents("philox-normal/v1", [], 4).shape == (0, 4)


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(ValueError, match="philox-normal/v1"):
        latents("mersenne/v1", [0], 4)


def test_moments_are_those_of_the_distributions() -> None:
    normal = latents("philox-normal/v1", np.arange(4000), 64)
    uniform = latents("philox-uniform/v1", np.arange(4000), 64)
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert abs(uniform.mean()) < 0.01
    assert abs(uniform.std() - 3**-0.5) < 0.01
    assert uniform.min() > -1
    assert uniform.max() < 1
