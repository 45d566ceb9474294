import dataclasses
from typing import Any

import numpy as np
import pytest

from ganserve import encode
from ganserve.address import Address, Layout
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


def test_the_text_of_a_truncated_picture_says_so() -> None:
    assert address(truncation=70).text()["X-Truncation"] == "0.7"
    assert "X-Truncation" not in address().text()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "model=m&version=3&labels=0,1,2&seed=42&n=4&columns=2&padding=1&scale=3&graph=abababababababab"),
        ({"labels": np.full(4, 2)}, "labels=2&seed=42&n=4"),
        ({"labels": np.array([0, 2, 0, 2])}, "labels=0,2&seed=42&n=4"),
        ({"seeds": np.array([5, 8, 6, 7], np.uint64)}, "seeds=5,8,6,7&n=4"),
        ({"layout": Layout()}, "n=4&padding=0&graph="),
        ({"truncation": 7}, "truncation=0.07&graph="),
        ({"graph": ""}, "padding=1&scale=3"),
    ],
)
def test_the_whole_address_is_one_line_of_ascii(changes: dict[str, Any], told: str) -> None:
    line = address(**changes).query()
    assert told in line
    assert line.isascii()


@pytest.mark.parametrize("turn", [[0], [1, 1], [0, 1, 2], [2, 2, 0], [0, 0, 1, 0]])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 64])
def test_labels_in_turn_are_told_as_what_repeats(turn: list[int], n: int) -> None:
    labels = np.resize(np.array(turn, np.int64), n)
    query = address(n=n, labels=labels).query()
    told = query.partition("labels=")[2].partition("&")[0].split(",")
    assert np.resize(np.array(told, np.int64), n).tolist() == labels.tolist()
    assert len(told) <= max(len(turn), 1)


def test_a_sheet_is_as_large_as_the_encoder_makes_it() -> None:
    for n in (1, 2, 5, 17):
        for layout in (Layout(), Layout(3, 2, 1), Layout(40, 0, 2), Layout(1, 5, 3)):
            sheet = encode.grid(np.zeros((n, 7, 6, 1), np.uint8), layout.columns, layout.padding, layout.scale)
            assert layout.size(n, 7, 6) == (sheet.shape[1], sheet.shape[0])
