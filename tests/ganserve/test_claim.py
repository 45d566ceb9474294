"""An address as text is read back as it was written, and nothing that a stranger writes does harm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganserve.address import Address, Layout
from ganserve.card import VersionNotFound
from ganserve.claim import MAX_IMAGES, Claim, NoAddress
from ganserve.labels import UnknownLabel
from ganserve.latents import MAX_SEED, consecutive
from tests.tiny import card

CARD = card("m", version=3, sha256="ab" * 32)
PLAIN = card("plain", conditional=False, classes=[])
SIDE = CARD.image.height

seeds = st.one_of(
    st.builds(consecutive, st.integers(0, MAX_SEED - 1), st.integers(1, 40)),
    st.lists(st.integers(0, MAX_SEED - 1), min_size=1, max_size=40).map(lambda found: np.array(found, np.uint64)),
)
layouts = st.builds(Layout, st.none() | st.integers(1, 50), st.integers(0, 64), st.integers(1, 32))


def size(address: Address) -> tuple[int, int]:
    return address.layout.size(len(address.seeds), SIDE, SIDE)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    seeds=seeds,
    turn=st.lists(st.integers(0, 2), min_size=1, max_size=40),
    layout=layouts,
    truncation=st.none() | st.integers(1, 99),
)
def test_an_address_is_read_back_from_its_text(
    seeds: np.ndarray, turn: list[int], layout: Layout, truncation: int | None
) -> None:
    labels = np.resize(np.array(turn, np.int64), len(seeds))
    told = Address(CARD.name, 3, CARD.latent_recipe, CARD.sha256, labels, seeds, layout, truncation)
    read = Claim.parse(told.query()).at(CARD, size(told))
    if len(seeds) == 1:
        # One image has no columns.
        layout = Layout(None, layout.padding, layout.scale)
    assert read == Address(CARD.name, 3, CARD.latent_recipe, CARD.sha256, labels, seeds, layout, truncation)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.text(alphabet=st.sampled_from("model=version&labels,seed=ns12309%-./ \0é"), max_size=60) | st.text())
def test_any_text_is_an_address_or_is_refused_with_a_sentence(text: str) -> None:
    said = "expected"
    try:
        Claim.parse(text)
    except NoAddress as error:
        said = str(error)
    assert 0 < len(said) < 300
    assert "\n" not in said


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "no seed"),
        ("seed=1&seeds=2,3", "no seed, or two"),
        ("seed=-1", "whole number from 0"),
        (f"seed={MAX_SEED}", "whole number from 0"),
        ("seed=²", "whole number"),
        ("seed=1&seed=2", "given twice"),
        ("seed=1&n=0", "whole number from 1"),
        ("seed=1&n=" + "9" * 10_000, "whole number from 1"),
        (f"seed=1&n={MAX_IMAGES + 1}", "to 65536"),
        ("seeds=1,2&n=3", "2 seeds"),
        ("seeds=" + "1," * 70_000 + "1", "more than 65536 seeds"),
        ("seed=1&labels=1,x", "whole number"),
        ("seed=1&label=1&labels=1", "exclude each other"),
        ("seed=1&columns=0", "whole number from 1"),
        ("seed=1&padding=65", "to 64"),
        ("seed=1&scale=33", "to 32"),
        ("seed=1&truncation=0", "hundredths"),
        ("seed=1&truncation=nan", "hundredths"),
        ("seed=1&truncation=0.123", "hundredths"),
        ("seed=1&version=0", "whole number from 1"),
        ("seed=1&model=../../etc/passwd", "is no name"),
        ("seed=1&graph=xyz", "digits of a sha256"),
        ("seed=1&shell=rm", "is no part of an address"),
        ("&".join(["label=1"] * 70_000), "too many parts"),
        ("seed=1&label=" + "," * 70_000, "more than 65536 labels"),
    ],
)
def test_what_is_no_address_is_refused_with_what_would_be_right(query: str, words: str) -> None:
    with pytest.raises(NoAddress, match=words):
        Claim.parse(query)


@pytest.mark.parametrize(
    ("query", "width", "layout"),
    [
        ("seed=1&label=2", SIDE, Layout(None, 0, 1)),
        ("seed=1&label=2", SIDE + 4, Layout(None, 2, 1)),
        ("seed=1&label=2", 3 * SIDE, Layout(None, 0, 3)),
        ("seed=1&n=4", 2 * SIDE + 6, Layout(None, 2, 1)),
        ("seed=1&n=4&padding=0", 2 * SIDE, Layout(None, 0, 1)),
        ("seed=1&n=4&scale=2", 4 * SIDE + 6, Layout(None, 2, 2)),
    ],
)
def test_a_layout_that_a_sender_leaves_out_is_the_one_that_gives_the_pictures_size(
    query: str, width: int, layout: Layout
) -> None:
    assert Claim.parse(query).at(CARD, (width, width)).layout == layout


@pytest.mark.parametrize("told", ["seed=1&n=4&columns=1", "seed=1&n=5&padding=0", "seed=1&n=65536&scale=32"])
def test_a_layout_of_another_size_is_refused_before_anything_is_made(told: str) -> None:
    with pytest.raises(NoAddress, match="must give its size"):
        Claim.parse(told).at(CARD, (2 * SIDE, 2 * SIDE))


def test_another_graph_is_an_unknown_version() -> None:
    Claim.parse("seed=1&graph=" + "ab" * 8).at(CARD, (SIDE, SIDE))
    with pytest.raises(VersionNotFound, match="another server's model"):
        Claim.parse("seed=1&graph=" + "cd" * 8).at(CARD, (SIDE, SIDE))


def test_labels_are_names_or_indices_as_everywhere() -> None:
    named = Claim.parse("seed=1&n=3&label=two,0&padding=0&columns=3").at(CARD, (3 * SIDE, SIDE))
    assert named.labels.tolist() == [2, 0, 2]
    repeated = Claim.parse("seed=1&label=two&label=0&columns=2&padding=0").at(CARD, (2 * SIDE, SIDE))
    assert repeated.labels.tolist() == [2, 0]
    assert Claim.parse("seed=1&label=-").at(PLAIN, (SIDE, SIDE)).labels.tolist() == [0]
    commas = card("commas", classes=["a,b", "c"])
    assert Claim.parse("seed=1&label=a%2Cb").at(commas, (SIDE, SIDE)).labels.tolist() == [0]
    for wrong in ("label=none", "labels=3", "label=1,2,0&n=2&padding=0&columns=2"):
        with pytest.raises((UnknownLabel, NoAddress)):
            Claim.parse(f"seed=1&{wrong}").at(CARD, ((2 if "n=2" in wrong else 1) * SIDE, SIDE))


OLD: dict[str, Any] = {"X-Model": "m", "X-Model-Version": "3", "X-Seed": "42", "X-Latent-Recipe": "r", "X-Label": "two"}


def test_a_single_image_from_before_there_were_marks_is_read_by_its_texts() -> None:
    claim = Claim.of_texts(OLD)
    assert claim is not None
    address = claim.at(CARD, (SIDE, SIDE))
    assert (address.labels.tolist(), address.seeds.tolist(), address.layout.padding) == ([2], [42], 0)
    assert Claim.of_texts({**OLD, "X-Label": "a&seed=7"}) is not None, "a name is never taken for more than a name"


@pytest.mark.parametrize("gone", ["X-Model", "X-Model-Version", "X-Seed", "X-Label"])
def test_older_texts_that_do_not_tell_all_are_no_address(gone: str) -> None:
    assert Claim.of_texts({name: text for name, text in OLD.items() if name != gone}) is None


def test_an_address_inside_a_picture_names_model_and_version() -> None:
    with pytest.raises(NoAddress, match="no model and version"):
        Claim.of_texts({"Address": "seed=1&padding=0"})
