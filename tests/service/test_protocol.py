"""The wire format's two ends understand each other; what a server refuses is in tests/service/api/test_v2.py."""

import json

import numpy as np
import pytest

from ganserve.latents import consecutive, latents
from service import protocol
from service.http.errors import BadRequest
from tests.tiny import SIDE, Z, card

LATENT = latents("philox-normal/v1", consecutive(5, 3), Z)
LABEL = np.array([2, 0, 1], np.int64)


@pytest.mark.parametrize("conditional", [True, False])
def test_what_a_client_asks_is_what_the_server_reads(conditional: bool) -> None:
    model = card("m", conditional=conditional)
    body, length = protocol.request(model, LATENT, LABEL if conditional else None)
    asked = protocol.read(body, str(length), model, 3)
    assert asked.binary
    assert np.array_equal(asked.latent, LATENT)
    assert asked.latent.flags.aligned
    if conditional:
        assert asked.label is not None
        assert np.array_equal(asked.label, LABEL)
    else:
        assert asked.label is None


def test_what_the_server_answers_is_what_the_client_reads() -> None:
    model = card("m")
    pixels = np.arange(3 * SIDE * SIDE, dtype=np.uint8).reshape(3, SIDE, SIDE, 1)
    asked = protocol.Inference("an id", LATENT, LABEL, True, None)
    body, length = protocol.answer(asked, model, pixels)
    assert length is not None
    assert json.loads(body[:length])["id"] == "an id"
    assert np.array_equal(protocol.images(body, str(length), model, 3), pixels)


@pytest.mark.parametrize("n", [2, 4])
def test_an_answer_of_another_number_of_images_is_none(n: int) -> None:
    model = card("m")
    pixels = np.zeros((3, SIDE, SIDE, 1), np.uint8)
    body, length = protocol.answer(protocol.Inference(None, LATENT, LABEL, True, None), model, pixels)
    with pytest.raises(ValueError, match="its shape is"):
        protocol.images(body, str(length), model, n)


def test_a_request_for_more_images_than_allowed_is_refused() -> None:
    model = card("m")
    body, length = protocol.request(model, LATENT, LABEL)
    with pytest.raises(BadRequest, match="from 1 to 2"):
        protocol.read(body, str(length), model, 2)
