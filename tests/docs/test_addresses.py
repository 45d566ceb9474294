"""The specification of addresses, held to the code number by number."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ganserve import grid, latents, philox, proof

PAGE = (Path(__file__).parents[2] / "docs" / "addresses.md").read_text(encoding="utf-8")


def cells(pattern: str) -> list[tuple[str, ...]]:
    found = re.findall(pattern, PAGE, re.M)
    assert found, "the page has such rows"
    return found


def words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint32)


def test_every_known_answer_of_philox_is_the_codes() -> None:
    rows = cells(r"^\| `((?:[0-9a-f]{8} ?){4})` \| `((?:[0-9a-f]{8} ?){2})` \| `((?:[0-9a-f]{8} ?){4})` \|$")
    assert len(rows) == 3
    for counter, key, output in rows:
        assert latents.philox4x32_10(words(counter), words(key)).tolist() == words(output).tolist()


def test_every_latent_is_the_codes_and_every_recipe_has_some() -> None:
    rows = cells(r"^\| `(philox-[\w/-]+)` \| (\d+) \| ([-0-9., e]+) \|$")
    assert {recipe for recipe, _, _ in rows} == set(latents.RECIPES)
    for recipe, seed, values in rows:
        told = [float(value) for value in values.split(",")]
        assert latents.latents(recipe, [int(seed)], len(told))[0].tolist() == told


def test_the_constants_of_the_rounds_are_the_codes() -> None:
    (told,) = cells(r"(?s)product = (0x\w+) \* c0.*product = (0x\w+) \* c2.*k0 \+ (0x\w+), k1 \+ (0x\w+)")
    assert [int(word, 16) for word in told] == [*map(int, philox._MULTIPLIERS), *map(int, philox._WEYL)]


def test_the_largest_seed_is_the_codes() -> None:
    assert "`0 <= seed < 2**53`" in PAGE
    assert latents.MAX_SEED == 2**53


def test_every_threshold_of_the_grid_is_the_codes() -> None:
    groups = cells(r"(-?\d+), (-?\d+), (-?\d+) have(?: the thresholds)? (\d+),\s+(\d+),\s+(\d+)")
    assert len(groups) == 3
    for group in groups:
        k, thresholds = (list(map(int, part)) for part in (group[:3], group[3:]))
        assert grid.THRESHOLDS[np.array(k) + 127].tolist() == thresholds
    assert f"The {len(grid.THRESHOLDS)} thresholds" in PAGE


def test_the_proof_is_of_as_many_addresses_as_the_code_takes() -> None:
    assert f"the pixels of {proof.ADDRESSES} addresses" in PAGE
    assert f"`i = 0 .. {proof.ADDRESSES - 1}`" in PAGE
