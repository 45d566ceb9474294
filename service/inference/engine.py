"""One loaded model: an onnxruntime session, its provider, its warm-up.

A CPU engine is one session without threads of its own: each lane of the batcher runs it in the lane's thread, side
by side, so weights are in memory once.

An exact version is opened in the form that gives its promised bytes here: the graph in whole numbers, or its float32
twin (:mod:`ganserve.twin`), which comes first on CUDA, where onnxruntime has no product of such whole numbers.

A CUDA engine runs padded batches of a few sizes, each warmed before the first request. Its runs happen on one thread,
for which onnxruntime keeps the handles of CUDA's libraries; the lanes prepare and encode meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ganserve import signature
from ganserve.card import ModelCard, ModelCorrupt
from ganserve.latents import consecutive, latents
from ganserve.proof import exact_digest
from ganserve.twin import TwinError, float32_twin
from service.inference import cuda

Device = Literal["auto", "cpu", "cuda"]
# How an exact version is computed.
Form = Literal["whole numbers", "float32 twin"]
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
CUDA_BUCKETS = (1, 8, 32, 128, 256)

log = logging.getLogger(__name__)


class DeviceUnavailable(RuntimeError):  # noqa: N818
    """The device that was asked for is not there."""


class Engine(Protocol):
    """What the batcher needs of a model."""

    card: ModelCard
    provider: str
    max_rows: int

    @property
    def exact(self) -> Form | None:
        """The form in which it has proven its card's bytes; None: a float version, or not proven."""

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


@dataclass(frozen=True)
class Placement:
    """Where networks run, and how.

    Attributes:
        max_rows: most rows of a run on the CPU.
        threads: onnxruntime's threads of a run on the CPU.
        buckets: batch sizes that runs are padded to; None: ``CUDA_BUCKETS`` on CUDA, none elsewhere.
        timeout: seconds after which a graph that does not end is stopped as it is warmed; None: never.
        allow_inexact: take an exact graph whose digest is not its card's here.
    """

    device: Device = "cpu"
    max_rows: int = 32
    threads: int = 1
    buckets: tuple[int, ...] | None = None
    timeout: float | None = None
    allow_inexact: bool = False


@dataclass(eq=False)
class OnnxEngine:
    """A session on one model file.

    Attributes:
        buckets: batch sizes to pad to; empty where any size gives the same pixels, as on the CPU.
        thread: where all runs happen; None: each on its caller's.
        options: onnxruntime's of a run, while the engine is warmed.
        exact: the form in which it has proven its card's bytes.
    """

    card: ModelCard
    provider: str
    session: Any = field(repr=False)
    max_rows: int
    buckets: tuple[int, ...] = ()
    thread: ThreadPoolExecutor | None = field(default=None, repr=False)
    options: Any = field(default=None, repr=False)
    exact: Form | None = None

    @classmethod
    def open(cls, card: ModelCard, content: bytes, placement: Placement = Placement()) -> OnnxEngine:
        """Load, check and warm the network in ``content`` (whose digest the caller has compared with the card's).

        Raises:
            ModelCorrupt: the file is no network of the card's signature, or in no form gives what an exact card
                promises.
            DeviceUnavailable: see :func:`providers`.
        """
        return cls._exact(card, content, placement) if card.exact else cls._open(card, content, placement)

    @classmethod
    def _exact(cls, card: ModelCard, content: bytes, placement: Placement) -> OnnxEngine:
        """The first form that proves itself; where none does and that is allowed, the first that runs."""
        opened: list[OnnxEngine] = []
        failed: list[ModelCorrupt] = []
        for form, graph in _forms(content, providers(placement.device)[1]):
            try:
                engine = cls._open(card, graph, placement)
            except ModelCorrupt as error:
                failed.append(error)
                continue
            opened.append(engine)
            if engine._proves(placement.timeout):
                engine.exact = form
                return engine
        if not opened:
            raise failed[0]
        if placement.allow_inexact:
            return opened[0]
        raise ModelCorrupt(
            f"{card.name} version {card.version}: its card promises the same bytes everywhere, and "
            f"{opened[0].provider} gives others here; GANSERVE_ALLOW_INEXACT=true serves it all the same"
        )

    @classmethod
    def _open(cls, card: ModelCard, content: bytes, placement: Placement) -> OnnxEngine:
        wanted, provider = providers(placement.device)
        session = _session(card, content, wanted, placement.threads)
        carried = str(session.get_providers()[0])
        if carried != provider and placement.device == "cuda":
            raise DeviceUnavailable(
                "GANSERVE_DEVICE is cuda, but onnxruntime fell back to the CPU: see its log"
            )
        buckets = placement.buckets or (CUDA_BUCKETS if carried == CUDA else ())
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"device-{card.name}") if carried == CUDA else None
        engine = cls(card, carried, session, buckets[-1] if buckets else placement.max_rows, buckets, thread)
        engine._check_signature()
        with engine._ending(placement.timeout):
            engine._warm_up()
        return engine

    def run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """Images uint8 [n, h, w, c] of latents float32 [n, z] and labels int64 [n]."""
        if self.thread is not None:
            return self.thread.submit(self._run, latent, label).result()
        return self._run(latent, label)

    def _run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        n = len(latent)
        size = next(size for size in self.buckets if size >= n) if self.buckets else n
        feed = signature.feeds(self.card, latent, label)
        if size > n:
            feed = {
                key: np.concatenate([value, np.repeat(value[-1:], size - n, 0)])
                for key, value in feed.items()
            }
        images: NDArray[np.uint8] = self.session.run(None, feed, self.options)[0]
        return images[:n] if size > n else images

    @contextmanager
    def _ending(self, seconds: float | None) -> Iterator[None]:
        """Stop the runs within that go on for longer; they fail then."""
        self.options = onnxruntime.RunOptions()
        timer = threading.Timer(seconds or 0, setattr, (self.options, "terminate", True))
        timer.daemon = True
        if seconds is not None:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self.options = None

    def _check_signature(self) -> None:
        try:
            signature.check(self.session, self.card)
        except signature.SignatureMismatch as error:
            raise ModelCorrupt(f"{self.card.name} version {self.card.version}: model.onnx: {error}") from error

    def _proves(self, seconds: float | None) -> bool:
        """Whether the named addresses have the digest that an exact card promises."""
        card = self.card

        def run(latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
            return self.run(latent, None if label is None else label[:, 0])

        try:
            with self._ending(seconds):
                rows = min(32, self.max_rows)
                found = exact_digest(run, card.latent_recipe, card.z, len(card.classes), batch=rows)
        except Exception as error:  # onnxruntime raises many private kinds
            log.warning("%s version %d: its proof fails in a run (%s)", card.name, card.version, _first_line(error))
            return False
        return found == card.exact_digest

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
            stopped = self.options is not None and self.options.terminate
            failed = f"fails in a run ({_first_line(error)})"
            told = "does not end in time (GANSERVE_LOAD_TIMEOUT)" if stopped else failed
            raise ModelCorrupt(f"{card.name} version {card.version}: its network {told}") from error
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


def _forms(content: bytes, provider: str) -> Iterator[tuple[Form, bytes]]:
    """An exact graph and its twin, the one first that the provider has the operators for."""
    forms: tuple[Form, Form] = ("whole numbers", "float32 twin")
    for form in reversed(forms) if provider == CUDA else forms:
        if form == "whole numbers":
            yield form, content
            continue
        try:
            yield form, float32_twin(content)
        except TwinError:
            log.warning("an exact graph has no float32 twin: it was not made by this package")


def _sample(card: ModelCard, rows: int) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Latents of the first seeds, and the classes in turn."""
    label = np.arange(rows, dtype=np.int64) % len(card.classes) if card.conditional else None
    return latents(card.latent_recipe, consecutive(0, rows), card.z), label


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


def _first_line(error: Exception) -> str:
    lines: Sequence[str] = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
