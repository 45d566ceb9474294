from __future__ import annotations

import numpy as np

from training.exact.layers import Frame, Layer, Net
from training.exact.rounding import moments, rounded

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(0, 1, (40, 6))
SCALE = np.abs(WEIGHT).max(0) / 7


def test_inputs_that_go_their_own_ways_round_each_weight_for_itself() -> None:
    assert np.array_equal(rounded(WEIGHT, SCALE, np.eye(40), 63), np.rint(WEIGHT / SCALE))


def test_weights_stay_whole_and_within_the_limit() -> None:
    inputs = np.abs(RANDOM.normal(1, 1, (500, 40)))
    whole = rounded(WEIGHT, SCALE, inputs.T @ inputs / 500, 5)
    assert np.array_equal(whole, np.rint(whole))
    assert np.abs(whole).max() == 5


def test_the_outputs_of_inputs_that_go_together_err_a_fraction_of_what_plain_rounding_does() -> None:
    inputs = np.maximum(RANDOM.normal(0, 1, (2000, 5)) @ RANDOM.normal(0, 1, (5, 40)) + 1, 0)
    whole = rounded(WEIGHT, SCALE, inputs.T @ inputs / 2000, 63)
    chosen, plain = (np.square(inputs @ (w * SCALE - WEIGHT)).mean() for w in (whole, np.rint(WEIGHT / SCALE)))
    assert chosen < 0.3 * plain


def test_the_moments_of_the_first_layer_are_those_of_latents() -> None:
    layer = Layer(RANDOM.normal(0, 1, (6, 8)), np.ones((1, 8)), np.zeros((1, 8)), None, 0.0, 8)
    last = Layer(RANDOM.normal(0, 1, (8, 4)), np.ones((1, 4)), np.zeros((1, 4)), None, None, 1)
    first, second = moments(Net((layer, last), Frame(2, 2, 1, 0), 1, 0, 6), "philox-grid/v1", 2048)
    assert np.abs(first - np.eye(6)).max() < 0.1
    assert second.shape == (8, 8)
    # What a ReLU gave has no negative products.
    assert second.min() >= 0
