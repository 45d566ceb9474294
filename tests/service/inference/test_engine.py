import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from ganserve.card import ModelCorrupt
from ganserve.latents import consecutive, latents
from service.inference import cuda, engine
from service.inference.engine import CPU, CUDA, CUDA_BUCKETS, DeviceUnavailable, OnnxEngine, Placement, providers
from tests.tiny import SIDE, Z, card, network

LATENT = latents("philox-normal/v1", consecutive(0, 5), Z)


def test_a_network_gives_bytes_of_its_cards_shape() -> None:
    opened = OnnxEngine.open(card("m"), network())
    images = opened.run(LATENT, np.zeros(5, np.int64))
    assert images.shape == (5, SIDE, SIDE, 1)
    assert images.dtype == np.uint8
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

    def run(self, outputs: None, feed: dict[str, Any], options: Any) -> list[Any]:
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


def sizes(opened: OnnxEngine, conditional: bool) -> list[NDArray[np.uint8]]:
    found = []
    for n in (5, 1, 3, 8, 2):
        noise = latents("philox-normal/v1", consecutive(n, n), Z)
        found.append(opened.run(noise, np.arange(n) % 3 if conditional else None))
    return found


@pytest.mark.parametrize("conditional", [True, False])
def test_runs_padded_to_a_few_sizes_give_the_pixels_of_free_runs(conditional: bool) -> None:
    described, content = card("m", conditional=conditional), network(conditional=conditional)
    padded = OnnxEngine.open(described, content, Placement(buckets=(1, 4, 8)))
    assert (padded.buckets, padded.max_rows) == ((1, 4, 8), 8)
    free = OnnxEngine.open(described, content)
    for ours, theirs in zip(sizes(padded, conditional), sizes(free, conditional), strict=True):
        assert np.array_equal(ours, theirs)


def test_cuda_without_cuda_refuses_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(DeviceUnavailable, match="ganserve\\[cuda\\]"):
        providers("cuda")
    assert providers("auto")[1] == CPU


def test_cuda_without_a_gpu_refuses_and_auto_takes_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(engine, "_cuda_problem", lambda: "no NVIDIA driver")
    with pytest.raises(DeviceUnavailable, match="no NVIDIA driver"):
        providers("cuda")
    assert providers("auto") == ([CPU], CPU)
    monkeypatch.setattr(engine, "_cuda_problem", lambda: None)
    assert providers("auto")[1] == CUDA
    assert providers("cpu") == ([CPU], CPU)


class Driver:
    """NVIDIA's driver as far as it is asked."""

    def __init__(self, status: int, devices: int) -> None:
        self.status, self.devices = status, devices

    def cuInit(self, flags: int) -> int:  # noqa: N802  the driver's name
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.devices
        return 0


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (None, "no NVIDIA driver"),
        (Driver(100, 1), "the driver finds no GPU"),
        (Driver(0, 0), "the driver finds no GPU"),
        (Driver(0, 1), None),
    ],
)
def test_a_gpu_is_there_when_the_driver_says_so(driver: Driver | None, reason: str | None) -> None:
    assert cuda.problem(driver) == reason


class Sessions:
    """onnxruntime's sessions as on a machine with a GPU, carried by the CPU; each notes the sizes that it ran."""

    def __init__(self, falls_back: bool = False) -> None:
        self.falls_back = falls_back
        self.asked: list[dict[str, str]] = []
        self.ran: list[tuple[int, str]] = []
        self.real = onnxruntime.InferenceSession

    def __call__(self, content: bytes, options: Any, providers: list[Any]) -> Any:
        made = self.real(content, options, providers=[CPU])
        if providers[0] == CPU:
            return made
        self.asked.append(providers[0][1])
        if not self.falls_back:
            made.get_providers = lambda: [CUDA, CPU]
        run = made.run

        def noted(outputs: Any, feed: dict[str, Any], options: Any) -> Any:
            self.ran.append((len(feed["latent"]), threading.current_thread().name))
            return run(outputs, feed, options)

        made.run = noted
        return made


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(engine, "_cuda_problem", lambda: None)


@pytest.mark.usefixtures("gpu")
def test_cuda_searches_heuristically_and_warms_every_size_before_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions()
    monkeypatch.setattr(onnxruntime, "InferenceSession", sessions)
    opened = OnnxEngine.open(card("m"), network(), Placement("cuda"))
    assert (opened.provider, opened.max_rows, opened.buckets) == (CUDA, CUDA_BUCKETS[-1], CUDA_BUCKETS)
    assert sessions.asked == [{"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}]
    assert {size for size, _ in sessions.ran} == set(CUDA_BUCKETS)
    sessions.ran.clear()
    free = OnnxEngine.open(card("m"), network()).run(LATENT, np.zeros(5, np.int64))
    assert np.array_equal(opened.run(LATENT, np.zeros(5, np.int64)), free)
    assert [size for size, _ in sessions.ran] == [8]


@pytest.mark.usefixtures("gpu")
def test_runs_of_several_lanes_take_turns_on_the_thread_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions()
    monkeypatch.setattr(onnxruntime, "InferenceSession", sessions)
    opened = OnnxEngine.open(card("m"), network(), Placement("cuda"))
    expected = [opened.run(LATENT, np.full(5, label % 3)) for label in range(12)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda label: opened.run(LATENT, np.full(5, label % 3)), range(12)))
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    assert len({thread for _, thread in sessions.ran}) == 1


@pytest.mark.usefixtures("gpu")
def test_a_session_that_falls_back_to_the_cpu_refuses_cuda_and_serves_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", Sessions(falls_back=True))
    with pytest.raises(DeviceUnavailable, match="fell back"):
        OnnxEngine.open(card("m"), network(), Placement("cuda"))
    opened = OnnxEngine.open(card("m"), network(), Placement("auto"))
    assert (opened.provider, opened.max_rows, opened.buckets) == (CPU, 32, ())
