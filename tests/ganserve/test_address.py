import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganserve import png
from ganserve.address import Address, Layout, NoAddress
from ganserve.latents import MAX_SEED, consecutive
from tests.tiny import card

CARD = card("m", version=3, sha256="ab" * 32)


def address(first: int = 42, n: int = 4, **changes: Any) -> Address:
    made = Address.of(CARD, np.arange(n, dtype=np.int64) % 3, consecutive(first, n), Layout(2, 1, 3))
    return dataclasses.replace(made, **changes)


CHANGES: list[dict[str, Any]] = [
    {"model": "other"},
    {"version": 4},
    {"graph": "cd" * 32},
    {"labels": np.zeros(4, np.int64)},
    {"seeds": consecutive(43, 4)},
    {"layout": Layout(4, 1, 3)},
    {"layout": Layout(None, 1, 3)},
    {"layout": Layout(2, 0, 3)},
    {"layout": Layout(2, 1, 1)},
    {"truncation": 70},
]


def test_equal_addresses_are_equal_values() -> None:
    assert address() == address()
    assert len({address(), address(), address(seeds=consecutive(1, 4))}) == 2
    assert address() != "m"


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_pixels_changes_the_address_and_its_tag(change: dict[str, Any]) -> None:
    assert address(**change) != address()
    assert address(**change).tag("encoders", "png") != address().tag("encoders", "png")


def test_the_tag_tells_encoders_and_format_too() -> None:
    tags = {address().tag(made_by, form) for made_by in ("1", "2") for form in ("png", "webp")}
    assert len(tags) == 4


def test_the_tag_of_an_address_stays_from_release_to_release() -> None:
    # Clients and caches keep tags for a year.
    assert address().tag("1|CPUExecutionProvider", "png") == "1184553f8a85eb99b9e82712518e4a7e"


def test_a_row_of_seeds_is_told_by_its_first_and_others_one_by_one() -> None:
    assert address(MAX_SEED - 1).seed == str(MAX_SEED - 1)
    assert address(seeds=np.array([5, 8, 6, 7], np.uint64)).seed == "5,8,6,7"


@pytest.mark.parametrize("seeds", [[7], [5, 8], [MAX_SEED - 1]])
def test_the_text_inside_a_png_is_read_back(seeds: list[int]) -> None:
    told = address(n=len(seeds), seeds=np.array(seeds, np.uint64))
    file = png.encode(np.zeros((2, 2, 1), np.uint8), told.text())
    read = Address.parse({str(name): value for name, value in Image.open(io.BytesIO(file)).info.items()})
    assert read.text() == told.text()
    assert (read.model, read.version, read.recipe, read.seeds.tolist()) == ("m", 3, CARD.latent_recipe, seeds)


@pytest.mark.parametrize(
    "change",
    [
        {"X-Seed": ""},
        {"X-Seed": "1,,2"},
        {"X-Seed": str(MAX_SEED)},
        {"X-Seed": "-1"},
        {"X-Seed": "9" * 30},
        {"X-Model-Version": "0"},
        {"X-Model-Version": "one"},
        {"X-Model-Version": "²"},
    ],
)
def test_what_is_no_address_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(NoAddress):
        Address.parse(address().text() | change)


@pytest.mark.parametrize("name", ["X-Model", "X-Model-Version", "X-Seed", "X-Latent-Recipe"])
def test_an_address_with_a_part_missing_is_refused_by_its_name(name: str) -> None:
    told = address().text()
    del told[name]
    with pytest.raises(NoAddress, match=name):
        Address.parse(told)
