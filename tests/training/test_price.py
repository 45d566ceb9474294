from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.conftest import small
from training import price
from training.data import Dataset
from training.measure import judge


@given(whole=st.floats(1e9, 1e17), image=st.floats(1e5, 1e8), norms=st.floats(0, 1e12), referee=st.floats(0, 1e9))
def test_looks_take_no_more_than_their_share_of_a_run_unless_they_are_the_fewest(
    whole: float, image: float, norms: float, referee: float
) -> None:
    looks = price.Cost(whole, image, norms).looks(referee)
    assert price.FEWEST <= looks.snapshots <= price.MOST
    assert price.LEAST_IMAGES <= looks.images <= price.IMAGES
    each = price.BESIDES + norms + looks.images * (image + referee)
    if looks.snapshots > price.FEWEST:
        assert (looks.snapshots + 2) * each <= whole * price.LOOKING * (1 + 1e-9)


def test_a_longer_run_is_looked_at_no_less_often_and_no_less_closely(digits: Dataset) -> None:
    cost = price.of(small("projgan-colour", digits, images=1000))
    found = [dataclasses.replace(cost, whole=whole).looks(3e8) for whole in (1e12, 1e13, 1e14, 1e15, 1e16)]
    assert found == sorted(found, key=lambda looks: (looks.images, looks.snapshots))
    assert found[0] == price.Looks(price.FEWEST, price.LEAST_IMAGES)
    assert found[-1] == price.Looks(price.MOST, price.IMAGES)


@pytest.mark.parametrize("recipe", ["gan", "wgan-gp", "cdcgan", "projgan", "projgan-heads", "projgan-colour"])
def test_a_runs_cost_grows_with_its_length_and_not_with_its_batch(recipe: str, digits: Dataset) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = (price.of(small(recipe, digits, images=images)) for images in (10_000, 20_000))
    assert two.whole == pytest.approx(2 * one.whole)
    assert two.image == one.image > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_in_half_precision_takes_less_and_is_looked_at_no_more(digits: Dataset) -> None:
    plain, half = (price.of(small("cgan", digits, images=10**8, precision=kind)) for kind in ("no", "bf16"))
    assert half.whole == pytest.approx(plain.whole / price.HALF)
    assert half.image == plain.image
    assert half.looks(2e7).images * half.looks(2e7).snapshots < plain.looks(2e7).images * plain.looks(2e7).snapshots


def test_the_cost_of_a_convolution_is_counted_as_by_hand() -> None:
    network = torch.nn.Conv2d(3, 8, 3, padding=1)
    assert price.of_image(network, 3, 16) == 3 * 8 * 9 * 16 * 16
    assert price.of_image(judge.Network(1, 10), 1, 28) > 1e6
