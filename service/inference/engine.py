"""One loaded model: an onnxruntime session, its provider, its warm-up.

A CPU engine is one session without threads of its own: each lane of the batcher runs it in the lane's thread, side
by side, so weights are in memory once.

A CUDA engine runs padded batches of a few sizes, each warmed before the first request. Every size has its buffers on
the device, bound once, and pinned ones on the host; where replaying a captured CUDA graph is faster than launching the
kernels one by one, it is replayed. All of it happens on one thread, as captured graphs belong to the thread that
captured them; the lanes prepare and encode meanwhile.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ganserve import signature
from ganserve.card import ModelCard, ModelCorrupt
from ganserve.latents import consecutive, latents
from service.inference import cuda

Device = Literal["auto", "cpu", "cuda"]
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
CUDA_BUCKETS = (1, 8, 32, 128, 256)
# A run shall not be captured into a CUDA graph, nor replayed from one.
NO_GRAPH = "-1"

log = logging.getLogger(__name__)


class DeviceUnavailable(RuntimeError):  # noqa: N818
    """The device that was asked for is not there."""


class Engine(Protocol):
    """What the batcher needs of a model."""

    card: ModelCard
    provider: str
    max_rows: int

    def run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """Images uint8 [n, h, w, c] of latents float32 [n, z] and labels int64 [n]; thread-safe; n <= max_rows."""


def providers(device: Device) -> tuple[list[Any], str]:
    """onnxruntime's provider list for a device, and the one that will carry the network.

    Raises:
        DeviceUnavailable: ``cuda`` was asked for and onnxruntime cannot use it; says why.
    """
    if device == "cpu":
        return [CPU], CPU
    if CUDA not in onnxruntime.get_available_providers():
        if device == "cuda":
            raise DeviceUnavailable(
                "GANSERVE_DEVICE is cuda, but this onnxruntime was built without CUDA: install ganserve[cuda], or "
                "set GANSERVE_DEVICE to cpu or auto"
            )
        return [CPU], CPU
    if (reason := _cuda_problem()) is not None:
        if device == "cuda":
            raise DeviceUnavailable(
                f"GANSERVE_DEVICE is cuda, but CUDA cannot be used ({reason}): check the driver with nvidia-smi and "
                "the libraries with pip install 'ganserve[cuda]', or set GANSERVE_DEVICE to cpu or auto"
            )
        return [CPU], CPU
    return [(CUDA, dict(CUDA_OPTIONS)), CPU], CUDA


# The exhaustive search would try every algorithm for every batch size at start. TF32 rounds weights to ten bits, which
# shows in the pixels.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}


def _cuda_problem() -> str | None:
    """Why CUDA cannot be used; None if it can."""
    reason = cuda.problem(cuda.load())
    if reason is None and (preload := getattr(onnxruntime, "preload_dlls", None)) is not None:
        preload()
    return reason


class Bound:
    """One batch size of a session: buffers at fixed addresses on the device, bound once, and pinned ones on the host.

    Args:
        graph: the number of its CUDA graph; other providers than CUDA pass over it.
    """

    def __init__(self, session: Any, card: ModelCard, size: int, graph: int, pinned: cuda.Pinned) -> None:
        self._session, self._pinned = session, pinned
        device = "cuda" if session.get_providers()[0] == CUDA else "cpu"
        shape = (size, card.image.height, card.image.width, card.image.channels)
        kinds: dict[str, tuple[tuple[int, ...], Any]] = {"latent": ((size, card.z), np.float32)}
        if card.conditional:
            kinds["label"] = ((size, 1), np.int64)
        self._binding = session.io_binding()
        self._hosts, self._devices = {}, {}
        for name, (extent, kind) in kinds.items():
            self._hosts[name] = pinned.empty(extent, kind)
            # What pads the first runs is computed as well, so it shall be numbers, and a label that there is.
            self._hosts[name][:] = 0
            self._devices[name] = onnxruntime.OrtValue.ortvalue_from_shape_and_type(extent, kind, device, 0)
            self._binding.bind_ortvalue_input(name, self._devices[name])
        self._image = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, device, 0)
        self._binding.bind_ortvalue_output("image", self._image)
        self._host_image = pinned.empty(shape, np.uint8)
        self._plain, self._graph = onnxruntime.RunOptions(), onnxruntime.RunOptions()
        self._plain.add_run_config_entry("gpu_graph_id", NO_GRAPH)
        self._graph.add_run_config_entry("gpu_graph_id", str(graph))
        self.replays = False

    def run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """The images of at most ``size`` rows; what pads them is what was there before."""
        n = len(latent)
        self._hosts["latent"][:n] = latent
        if label is not None:
            self._hosts["label"][:n, 0] = label
        for name, host in self._hosts.items():
            self._devices[name].update_inplace(host)
        self._session.run_with_iobinding(self._binding, self._graph if self.replays else self._plain)
        images: NDArray[np.uint8] = self._host_image
        if not self._pinned.fetch(images, self._image.data_ptr()):
            images = self._image.numpy()
        # The buffers are the next run's.
        return images[:n].copy()

    def choose(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None, runs: int = 7) -> None:
        """Replay the size's CUDA graph from here on if that is faster than launching its kernels."""
        took = {}
        for replays in (False, True):
            self.replays = replays
            # The first runs find algorithms, allocate and capture.
            for _ in range(3):
                self.run(latent, label)
            times = []
            for _ in range(runs):
                begun = time.perf_counter()
                self.run(latent, label)
                times.append(time.perf_counter() - begun)
            took[replays] = statistics.median(times)
        self.replays = took[True] < took[False]


@dataclass(eq=False)
class OnnxEngine:
    """A session on one model file.

    Attributes:
        buckets: batch sizes to pad to; empty where any size gives the same pixels, as on the CPU.
        bound: the buffers of each bucket, where runs are bound to fixed ones, as on CUDA.
        thread: where bound runs happen.
    """

    card: ModelCard
    provider: str
    session: Any = field(repr=False)
    max_rows: int
    buckets: tuple[int, ...] = ()
    bound: dict[int, Bound] = field(default_factory=dict, repr=False)
    thread: ThreadPoolExecutor | None = field(default=None, repr=False)

    @classmethod
    def open(
        cls,
        card: ModelCard,
        content: bytes,
        *,
        device: Device = "cpu",
        max_rows: int = 32,
        threads: int = 1,
        buckets: tuple[int, ...] | None = None,
        graphs: bool = True,
        pinned: cuda.Pinned | None = None,
    ) -> OnnxEngine:
        """Load, check and warm the network in ``content`` (whose digest the caller has compared with the card's).

        Args:
            buckets: bind runs to buffers of these batch sizes; unset: only on CUDA, of ``CUDA_BUCKETS``.
            graphs: replay CUDA graphs where they help.
            pinned: where pinned buffers come from; unset: from the driver, where CUDA is used.

        Raises:
            ModelCorrupt: the file is no network of the card's signature.
            DeviceUnavailable: see :func:`providers`.
        """
        wanted, provider = providers(device)
        if provider != CUDA and buckets is None:
            return cls._open_free(card, content, max_rows, threads)
        chosen = buckets or CUDA_BUCKETS
        pinned = pinned or (_pinned() if provider == CUDA else cuda.Pinned(None))
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"device-{card.name}")
        engine: OnnxEngine | None = None
        if provider == CUDA and graphs:
            captured = [(CUDA, {**CUDA_OPTIONS, "enable_cuda_graph": "1"}), CPU]
            try:
                engine = thread.submit(cls._bind, card, content, captured, threads, chosen, pinned, thread).result()
            except ModelCorrupt as error:
                # A node that only the CPU has cannot be captured, for one.
                log.warning("no CUDA graphs: %s", _first_line(error))
        if engine is None:
            engine = thread.submit(cls._bind, card, content, wanted, threads, chosen, pinned, thread).result()
        if engine.provider == provider:
            return engine
        if device == "cuda":
            raise DeviceUnavailable(
                "GANSERVE_DEVICE is cuda, but onnxruntime fell back to the CPU: see its log"
            )
        return cls._open_free(card, content, max_rows, threads)

    @classmethod
    def _open_free(cls, card: ModelCard, content: bytes, max_rows: int, threads: int) -> OnnxEngine:
        """On the CPU, where each run brings its own arrays."""
        engine = cls(card, CPU, cls._session(card, content, [CPU], threads), max_rows)
        engine._check_signature()
        engine._warm_up()
        return engine

    @classmethod
    def _bind(
        cls,
        card: ModelCard,
        content: bytes,
        wanted: list[Any],
        threads: int,
        buckets: tuple[int, ...],
        pinned: cuda.Pinned,
        thread: ThreadPoolExecutor,
    ) -> OnnxEngine:
        """On the thread of the device."""
        session = cls._session(card, content, wanted, threads)
        engine = cls(card, session.get_providers()[0], session, buckets[-1], buckets)
        engine._check_signature()
        try:
            for index, size in enumerate(buckets):
                bound = engine.bound[size] = Bound(session, card, size, index + 1, pinned)
                if _captures(wanted):
                    bound.choose(*_sample(card, size))
        except Exception as error:
            raise ModelCorrupt(
                f"{card.name} version {card.version}: its network fails in a run ({_first_line(error)})"
            ) from error
        engine._warm_up()
        engine.thread = thread
        return engine

    @staticmethod
    def _session(card: ModelCard, content: bytes, wanted: list[Any], threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # Idle lanes shall not burn cores that other lanes could use.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(content, options, providers=wanted)
        except Exception as error:
            raise ModelCorrupt(
                f"{card.name} version {card.version}: onnxruntime cannot load model.onnx ({_first_line(error)})"
            ) from error

    def run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """Images uint8 [n, h, w, c] of latents float32 [n, z] and labels int64 [n]."""
        if self.thread is not None:
            return self.thread.submit(self._run, latent, label).result()
        return self._run(latent, label)

    def _run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        n = len(latent)
        size = next(size for size in self.buckets if size >= n) if self.buckets else n
        if size in self.bound:
            return self.bound[size].run(latent, label)
        feed: dict[str, Any] = {"latent": latent}
        if label is not None:
            feed["label"] = label.reshape(-1, 1)
        if size > n:
            feed = {
                key: np.concatenate([value, np.repeat(value[-1:], size - n, 0)])
                for key, value in feed.items()
            }
        images: NDArray[np.uint8] = self.session.run(None, feed)[0]
        return images[:n] if size > n else images

    def _check_signature(self) -> None:
        try:
            signature.check(self.session, self.card)
        except signature.SignatureMismatch as error:
            raise ModelCorrupt(f"{self.card.name} version {self.card.version}: model.onnx: {error}") from error

    def _warm_up(self) -> None:
        """Run every size once, and see that a row's pixels do not depend on the batch it is in.

        Matrix kernels may sum in another order for other shapes. Where that shows, one fixed batch size is used from
        then on: slower, and the promise holds that an address names one image.
        """
        card = self.card
        sizes = self.buckets or tuple(dict.fromkeys((1, 2, 3, 8, self.max_rows)))
        rows = max(sizes)
        latent, label = _sample(card, rows)
        try:
            whole = self.run(latent, label)
            shape = (rows, card.image.height, card.image.width, card.image.channels)
            if whole.shape != shape:
                raise ModelCorrupt(
                    f"{card.name} version {card.version}: the network gives {whole.shape}, its card says {shape}"
                )
            same = all(
                np.array_equal(self.run(latent[:n], None if label is None else label[:n]), whole[:n])
                for n in sizes
            )
        except ModelCorrupt:
            raise
        except Exception as error:
            raise ModelCorrupt(
                f"{card.name} version {card.version}: its network fails in a run ({_first_line(error)})"
            ) from error
        if not same:
            fixed = self.buckets[-2] if len(self.buckets) > 1 else min(16, self.max_rows)
            log.warning(
                "%s version %d: pixels depend on the batch size on %s; every run is padded to %d",
                card.name,
                card.version,
                self.provider,
                fixed,
            )
            self.buckets, self.max_rows = (fixed,), fixed
            self.bound = {size: bound for size, bound in self.bound.items() if size == fixed}


def _sample(card: ModelCard, rows: int) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Latents of the first seeds, and the classes in turn."""
    label = np.arange(rows, dtype=np.int64) % len(card.classes) if card.conditional else None
    return latents(card.latent_recipe, consecutive(0, rows), card.z), label


def _captures(wanted: list[Any]) -> bool:
    return any("enable_cuda_graph" in choice[1] for choice in wanted if isinstance(choice, tuple))


@lru_cache(maxsize=1)
def _pinned() -> cuda.Pinned:
    """The pinned memory of this process."""
    return cuda.Pinned(cuda.load())


class DummyEngine:
    """A model without a network, for tests: pixel values tell label and latent."""

    provider = "dummy"

    def __init__(self, card: ModelCard, max_rows: int = 32) -> None:
        self.card = card
        self.max_rows = max_rows
        self.batches: list[int] = []
        # Tests close it to hold the lanes, and set what a run shall raise.
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """The mean of the latent, and the label, in every pixel."""
        self.batches.append(len(latent))
        self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        shape = self.card.image
        value = (np.abs(latent[:, 0]) * 1000).astype(np.int64) % 251
        if label is not None:
            value = (value + label * 7) % 256
        pixels = np.broadcast_to(
            value.astype(np.uint8)[:, None, None, None],
            (len(latent), shape.height, shape.width, shape.channels),
        )
        return np.ascontiguousarray(pixels)


def _first_line(error: Exception) -> str:
    lines: Sequence[str] = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
