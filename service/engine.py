"""One loaded model: an onnxruntime session, its provider, its warm-up.

A CPU engine is one session without threads of its own: each lane of the batcher runs it in the lane's thread, side
by side, so weights are in memory once. A CUDA engine runs padded batches of the few sizes that were warmed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.latents import consecutive, latents
from service.repository import ModelCard, ModelCorrupt

Device = Literal["auto", "cpu", "cuda"]
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
CUDA_BUCKETS = (1, 8, 32, 128)

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
    return [(CUDA, {"cudnn_conv_algo_search": "HEURISTIC"}), CPU], CUDA


def _cuda_problem() -> str | None:
    """Why CUDA cannot be used; None if it can. A driver without a device is the usual case on a CPU machine."""
    import ctypes

    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the driver finds no GPU"
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is not None:
        preload()
    return None


@dataclass(eq=False)
class OnnxEngine:
    """A session on one model file.

    Attributes:
        buckets: batch sizes to pad to; empty where any size gives the same pixels, as on the CPU.
    """

    card: ModelCard
    provider: str
    session: Any = field(repr=False)
    max_rows: int
    buckets: tuple[int, ...] = ()

    @classmethod
    def open(
        cls, card: ModelCard, content: bytes, *, device: Device = "cpu", max_rows: int = 32, threads: int = 1
    ) -> OnnxEngine:
        """Load, check and warm the network in ``content`` (whose digest the caller has compared with the card's).

        Raises:
            ModelCorrupt: the file is no network of the card's signature.
            DeviceUnavailable: see :func:`providers`.
        """
        wanted, _ = providers(device)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # Idle lanes shall not burn cores that other lanes could use.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(content, options, providers=wanted)
        except Exception as error:
            raise ModelCorrupt(
                f"{card.name} version {card.version}: onnxruntime cannot load model.onnx ({_first_line(error)})"
            ) from error
        used = session.get_providers()[0]
        if device == "cuda" and used != CUDA:
            raise DeviceUnavailable(
                "GANSERVE_DEVICE is cuda, but onnxruntime fell back to the CPU: see its log"
            )
        buckets = CUDA_BUCKETS if used == CUDA else ()
        engine = cls(card, used, session, buckets[-1] if buckets else max_rows, buckets)
        engine._check_signature()
        engine._warm_up()
        return engine

    def run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """Images uint8 [n, h, w, c] of latents float32 [n, z] and labels int64 [n]."""
        n = len(latent)
        feed: dict[str, Any] = {"latent": latent}
        if label is not None:
            feed["label"] = label.reshape(-1, 1)
        if self.buckets:
            size = next(size for size in self.buckets if size >= n)
            if size > n:
                feed = {
                    key: np.concatenate([value, np.repeat(value[-1:], size - n, 0)])
                    for key, value in feed.items()
                }
        images: NDArray[np.uint8] = self.session.run(None, feed)[0]
        return images[:n]

    def _check_signature(self) -> None:
        card = self.card
        inputs = {i.name: (i.type, i.shape[1:]) for i in self.session.get_inputs()}
        outputs = {o.name: o.type for o in self.session.get_outputs()}
        expected = {"latent": ("tensor(float)", [card.z])}
        if card.conditional:
            expected["label"] = ("tensor(int64)", [1])
        if inputs != expected or outputs != {"image": "tensor(uint8)"}:
            raise ModelCorrupt(
                f"{card.name} version {card.version}: model.onnx takes {inputs} and gives {outputs}; its card "
                f"says {expected} and a uint8 image"
            )

    def _warm_up(self) -> None:
        """Run every size once, and see that a row's pixels do not depend on the batch it is in.

        Matrix kernels may sum in another order for other shapes. Where that shows, one fixed batch size is used from
        then on: slower, and the promise holds that an address names one image.
        """
        card = self.card
        sizes = self.buckets or tuple(dict.fromkeys((1, 2, 3, 8, self.max_rows)))
        rows = max(sizes)
        latent = latents(card.latent_recipe, consecutive(0, rows), card.z)
        label = np.arange(rows, dtype=np.int64) % len(card.classes) if card.conditional else None
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
