from __future__ import annotations

import math

import pytest
import torch

from training.losses import LOSSES, gradient_penalty, zero_centred_penalty

REAL, FAKE = torch.tensor([2.0, 0.5]), torch.tensor([-1.0, 3.0])


def test_bce_is_goodfellows_non_saturating_game() -> None:
    loss = LOSSES["bce"]
    d = -(torch.sigmoid(REAL).log().mean() + (1 - torch.sigmoid(FAKE)).log().mean())
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(d.item(), rel=1e-6)
    assert loss.generator(FAKE, REAL).item() == pytest.approx(-torch.sigmoid(FAKE).log().mean().item(), rel=1e-6)


def test_wasserstein_is_the_difference_of_means() -> None:
    assert LOSSES["wasserstein"].discriminator(REAL, FAKE).item() == pytest.approx(1.0 - 1.25)


def test_hinge_ignores_scores_beyond_the_margin() -> None:
    assert LOSSES["hinge"].discriminator(REAL, FAKE).item() == pytest.approx(0.25 + 2.0)


def test_relativistic_is_even_when_scores_are_equal() -> None:
    loss = LOSSES["relativistic"]
    assert loss.discriminator(REAL, REAL).item() == pytest.approx(math.log(2))
    assert loss.generator(REAL, REAL).item() == pytest.approx(math.log(2))


def test_the_gradient_penalty_vanishes_for_a_critic_of_slope_one() -> None:
    direction = torch.randn(1, 1, 4, 4)
    direction /= direction.norm()
    images = torch.randn(2, 5, 1, 4, 4)
    penalty = gradient_penalty(lambda x: (x * direction).sum((1, 2, 3)), images[0], images[1])
    assert penalty.item() == pytest.approx(0, abs=1e-10)


def test_the_zero_centred_penalty_is_half_the_squared_slope() -> None:
    images = torch.randn(5, 1, 2, 2)
    assert zero_centred_penalty(lambda x: 3 * x.sum((1, 2, 3)), images).item() == pytest.approx(18.0)
