"""A request made definite."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganserve.address import Layout
from ganserve.labels import UnknownLabel
from ganserve.settings import Settings
from service.http.errors import Invalid
from service.plan import Bounds, Plan, plan, single
from service.schema import GenerateRequest
from tests.tiny import card

CARD = card("m")


def made(form: Any = "png", settings: dict[str, Any] | None = None, **asked: Any) -> Plan:
    request = GenerateRequest.model_validate(asked)
    most = Bounds.of(Settings(data=Path("none"), **(settings or {})))
    return plan(request, CARD, form, "CPUExecutionProvider", most)


def test_seeds_and_labels_are_one_a_row() -> None:
    address = made(label=[2, "one"], n=5, seed=7).address
    assert address.seeds.tolist() == [7, 8, 9, 10, 11]
    assert address.labels.tolist() == [2, 1, 2, 1, 2]
    assert (address.model, address.version, address.graph) == (CARD.name, CARD.version, CARD.sha256)


@pytest.mark.parametrize(("asked", "n"), [({}, 1), ({"seeds": [4, 4, 4]}, 3), ({"label": [0, 1]}, 2), ({"n": 9}, 9)])
def test_the_number_follows_from_what_is_listed(asked: dict[str, Any], n: int) -> None:
    assert len(made(**asked).rows) == n


def test_an_answer_is_repeatable_only_where_its_seeds_were_named() -> None:
    assert "ETag" not in made(n=2).headers()
    assert made(n=2, seed=0).headers()["ETag"] == made(seeds=[0, 1]).etag


def test_tiles_that_are_not_laid_out_have_no_layout_in_their_tag() -> None:
    assert made("npz", seed=1, columns=1, padding=9).etag == made("npz", seed=1).etag
    assert made("png", seed=1, padding=9).etag != made("png", seed=1).etag


def test_a_single_image_has_no_border() -> None:
    plan = single(CARD, 2, 42, "CPUExecutionProvider")
    assert plan.address.layout == Layout(columns=1, padding=0, scale=1)
    assert (plan.rows.seeds.tolist(), plan.seeded, plan.versioned) == ([42], True, True)  # type: ignore[union-attr]


def test_many_seeds_that_are_no_row_are_left_out_of_the_header() -> None:
    seeds = np.arange(0, 2000, 2).tolist()
    assert "X-Seed" not in made(seeds=seeds).headers()
    assert made(seeds=seeds[:3]).headers()["X-Seed"] == "0,2,4"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"seed": 1, "seeds": [2]}, "exclude each other"),
        ({"n": 3, "seeds": [1, 2]}, "n is 3 but 2 seeds"),
        ({"n": 1025}, "at most 1024"),
        ({"n": 1, "label": [0, 1]}, "2 labels for 1 images"),
        ({"n": 1024, "scale": 32}, "lower n or scale"),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_be_right(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        made(**asked)


def test_a_webp_has_a_longest_side() -> None:
    with pytest.raises(Invalid, match="WebP takes at most 16383"):
        made("webp", n=100, columns=1, scale=32)


def test_a_label_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(UnknownLabel):
        made(label="nine")
