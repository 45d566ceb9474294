import ctypes
import gc
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from ganserve.card import ModelCorrupt
from ganserve.latents import consecutive, latents
from service.inference import cuda, engine
from service.inference.engine import CPU, CUDA, CUDA_BUCKETS, Bound, DeviceUnavailable, OnnxEngine, providers
from tests.tiny import SIDE, Z, card, network

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


class Driver:
    """NVIDIA's driver as far as it is called, on ordinary memory."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.pinned, self.copies = status, [], 0
        self.kept: list[Any] = []

    def cuMemHostAlloc(self, made: Any, size: Any, flags: Any) -> int:  # noqa: N802  the driver's name
        self.kept.append(ctypes.create_string_buffer(size.value))
        self.pinned.append(size.value)
        made._obj.value = ctypes.addressof(self.kept[-1])
        return self.status

    def cuMemcpyDtoH_v2(self, host: Any, device: Any, size: Any) -> int:  # noqa: N802
        self.copies += 1
        if self.status == 0:
            ctypes.memmove(host, device, size.value)
        return self.status


def sizes(opened: OnnxEngine, conditional: bool) -> list[NDArray[np.uint8]]:
    found = []
    for n in (5, 1, 3, 8, 2):
        noise = latents("philox-normal/v1", consecutive(n, n), Z)
        found.append(opened.run(noise, np.arange(n) % 3 if conditional else None))
    return found


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("driver", [None, Driver(), Driver(status=2)], ids=["no driver", "driver", "it refuses"])
def test_runs_bound_to_buffers_give_the_pixels_of_free_runs(conditional: bool, driver: Driver | None) -> None:
    described, content = card("m", conditional=conditional), network(conditional=conditional)
    pinned = cuda.Pinned(driver)
    bound = OnnxEngine.open(described, content, buckets=(1, 4, 8), pinned=pinned)
    assert (set(bound.bound), bound.max_rows) == ({1, 4, 8}, 8)
    for ours, free in zip(
        sizes(bound, conditional), sizes(OnnxEngine.open(described, content), conditional), strict=True
    ):
        assert np.array_equal(ours, free)


def test_results_of_bound_runs_stay_when_the_buffers_are_used_again() -> None:
    opened = OnnxEngine.open(card("m"), network(), buckets=(8,), pinned=cuda.Pinned(Driver()))
    first = opened.run(LATENT, np.zeros(5, np.int64))
    kept = first.copy()
    opened.run(-LATENT, np.ones(5, np.int64))
    assert np.array_equal(first, kept)


def test_bound_runs_of_several_lanes_take_turns() -> None:
    opened = OnnxEngine.open(card("m"), network(), buckets=(1, 8))
    expected = [opened.run(LATENT, np.full(5, label % 3)) for label in range(12)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda label: opened.run(LATENT, np.full(5, label % 3)), range(12)))
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_pinned_buffers_of_a_closed_engine_serve_the_next() -> None:
    driver = Driver()
    pinned = cuda.Pinned(driver)
    for _ in range(3):
        opened = OnnxEngine.open(card("m"), network(), buckets=(1, 8), pinned=pinned)
        opened.run(LATENT, np.zeros(5, np.int64))
        del opened
        gc.collect()
    # Latents, labels and images of two sizes.
    assert len(driver.pinned) == 6


@pytest.mark.parametrize("faster", [True, False])
def test_a_graph_is_replayed_only_where_that_is_faster(monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    opened = OnnxEngine.open(card("m"), network(), buckets=(8,))
    seen: list[bool] = []

    def run(self: Bound, latent: Any, label: Any) -> None:
        seen.append(self.replays)
        time.sleep(0.02 if self.replays != faster else 0)

    monkeypatch.setattr(Bound, "run", run)
    opened.bound[8].choose(LATENT, None, runs=3)
    assert opened.bound[8].replays is faster
    assert set(seen) == {True, False}


class Sessions:
    """onnxruntime's sessions as on a machine with a GPU, carried by the CPU; ``refuses`` a session with graphs."""

    def __init__(self, refuses: bool = False, falls_back: bool = False) -> None:
        self.refuses, self.falls_back = refuses, falls_back
        self.asked: list[dict[str, str]] = []
        self.real = onnxruntime.InferenceSession

    def __call__(self, content: bytes, options: Any, providers: list[Any]) -> Any:
        if providers[0] == CPU:
            return self.real(content, options, providers=providers)
        self.asked.append(providers[0][1])
        if self.refuses and "enable_cuda_graph" in providers[0][1]:
            raise RuntimeError("not all nodes are partitioned to CUDA")
        made = self.real(content, options, providers=[CPU])
        if not self.falls_back:
            # Buffers ask for the first provider of the session, and go by the second: the device is the CPU here.
            told = iter([[CUDA, CPU]])
            made.get_providers = lambda: next(told, [CPU])
        return made


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(engine, "_cuda_problem", lambda: None)


@pytest.mark.usefixtures("gpu")
def test_cuda_searches_heuristically_and_warms_every_size_before_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions()
    monkeypatch.setattr(engine.onnxruntime, "InferenceSession", sessions)
    opened = OnnxEngine.open(card("m"), network(), device="cuda", pinned=cuda.Pinned(Driver()))
    assert (opened.provider, opened.max_rows) == (CUDA, CUDA_BUCKETS[-1])
    assert tuple(opened.bound) == CUDA_BUCKETS
    assert sessions.asked == [
        {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0", "enable_cuda_graph": "1"}
    ]
    free = OnnxEngine.open(card("m"), network()).run(LATENT, np.zeros(5, np.int64))
    assert np.array_equal(opened.run(LATENT, np.zeros(5, np.int64)), free)


@pytest.mark.usefixtures("gpu")
def test_a_network_that_cannot_be_captured_runs_without_graphs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = Sessions(refuses=True)
    monkeypatch.setattr(engine.onnxruntime, "InferenceSession", sessions)
    with caplog.at_level(logging.WARNING):
        opened = OnnxEngine.open(card("m"), network(), device="cuda", pinned=cuda.Pinned(None))
    assert "no CUDA graphs" in caplog.text
    assert "enable_cuda_graph" not in sessions.asked[-1]
    assert not any(bound.replays for bound in opened.bound.values())


@pytest.mark.usefixtures("gpu")
def test_a_session_that_falls_back_to_the_cpu_refuses_cuda_and_serves_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.onnxruntime, "InferenceSession", Sessions(falls_back=True))
    with pytest.raises(DeviceUnavailable, match="fell back"):
        OnnxEngine.open(card("m"), network(), device="cuda", pinned=cuda.Pinned(None))
    opened = OnnxEngine.open(card("m"), network(), device="auto", pinned=cuda.Pinned(None))
    assert (opened.provider, opened.max_rows, opened.bound) == (CPU, 32, {})
