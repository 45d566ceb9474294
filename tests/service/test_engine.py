import logging
from typing import Any

import numpy as np
import pytest

from service import engine
from service.engine import CPU, CUDA, DeviceUnavailable, OnnxEngine, providers
from service.latents import consecutive, latents
from service.repository import ModelCorrupt
from tests.service.conftest import SIDE, Z, card, network

LATENT = latents("philox-normal/v1", consecutive(0, 5), Z)


def test_a_network_gives_bytes_of_its_cards_shape() -> None:
    opened = OnnxEngine.open(card("m"), network())
    images = opened.run(LATENT, np.zeros(5, np.int64))
    assert (images.shape, images.dtype) == ((5, SIDE, SIDE, 1), np.uint8)
    assert opened.provider == CPU


def test_the_label_changes_the_image() -> None:
    opened = OnnxEngine.open(card("m"), network())
    zero, one = (opened.run(LATENT, np.full(5, label)) for label in (0, 1))
    assert not np.array_equal(zero, one)


@pytest.mark.parametrize(
    ("described", "content", "words"),
    [
        (card("m"), b"no network", "cannot load"),
        (card("m"), network()[:200], "cannot load"),
        (card("m"), network(conditional=False), "its card says"),
        (card("m", z=Z + 1), network(), "its card says"),
        (card("m", channels=3), network(), "its card says"),
        (card("m", classes=["a", "b", "c", "d"]), network(), "fails in a run"),
    ],
)
def test_what_is_not_the_cards_network_is_refused(described: Any, content: bytes, words: str) -> None:
    with pytest.raises(ModelCorrupt, match=words):
        OnnxEngine.open(described, content)


class Shifty:
    """A session whose pixels depend on the batch size."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, outputs: None, feed: dict[str, Any]) -> list[Any]:
        n = len(feed["latent"])
        self.sizes.append(n)
        return [np.full((n, SIDE, SIDE, 1), n, np.uint8)]


def test_where_pixels_depend_on_the_batch_every_run_is_padded_to_one_size(caplog: pytest.LogCaptureFixture) -> None:
    session = Shifty()
    shifty = OnnxEngine(card("m"), CPU, session, 32)
    with caplog.at_level(logging.WARNING):
        shifty._warm_up()
    assert "pixels depend on the batch size" in caplog.text
    session.sizes.clear()
    for n in (1, 5, shifty.max_rows):
        images = shifty.run(np.zeros((n, Z), np.float32), np.zeros(n, np.int64))
        assert len(images) == n
        assert (images == shifty.max_rows).all()
    assert set(session.sizes) == {shifty.max_rows}


def test_buckets_pad_to_the_next_size_and_return_only_what_was_asked() -> None:
    opened = OnnxEngine.open(card("m"), network())
    free = opened.run(LATENT, np.arange(5) % 3)
    opened.buckets = (1, 8)
    assert np.array_equal(opened.run(LATENT, np.arange(5) % 3), free)


def test_cuda_without_cuda_refuses_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(DeviceUnavailable, match="ganserve\\[cuda\\]"):
        providers("cuda")
    assert providers("auto")[1] == CPU


def test_cuda_without_a_gpu_refuses_and_auto_takes_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(engine, "_cuda_problem", lambda: "no NVIDIA driver")
    with pytest.raises(DeviceUnavailable, match="no NVIDIA driver"):
        providers("cuda")
    assert providers("auto") == ([CPU], CPU)
    monkeypatch.setattr(engine, "_cuda_problem", lambda: None)
    assert providers("auto")[1] == CUDA
    assert providers("cpu") == ([CPU], CPU)
