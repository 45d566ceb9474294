"""Answers on their way from the threads that run engines to the event loops that wait for them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.http.errors import Problem
from service.inference.rows import Waiting
from service.observe import metrics, tracing

T = TypeVar("T")

log = logging.getLogger(__name__)


class Outbox:
    """The answers to one event loop: those that come together wake it once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._ready: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._waking = False

    def put(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """From any thread; of several answers to one request the first counts."""
        if _running_loop() is self.loop:
            _resolve(future, result, error)
            return
        self._ready.append((future, result, error))
        # Unset before the answers are taken, so one that comes meanwhile is taken as well, or wakes the loop again.
        if self._waking:
            return
        self._waking = True
        try:
            self.loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            log.debug("the event loop has gone; nobody waits for this answer")

    def _deliver(self) -> None:
        self._waking = False
        while self._ready:
            _resolve(*self._ready.popleft())


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


@dataclass(eq=False, slots=True, kw_only=True)
class Job(Waiting, Generic[T]):
    """A request, and who waits for its answer.

    Attributes:
        finish: makes the answer of images uint8 [n, h, w, c]; called off the event loop, but for small requests.
        images: those of several runs, uint8 [n, h, w, c]; None until the first is done.
        done: rows that are in ``images``.
    """

    finish: Callable[[NDArray[np.uint8]], T]
    future: asyncio.Future[T]
    outbox: Outbox
    timer: asyncio.TimerHandle | None = None
    trace: tracing.Trace | None = field(default_factory=tracing.current)
    images: NDArray[np.uint8] | None = None
    done: int = 0

    def room(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Where all its images go, of which some are there."""
        if self.images is None:
            self.images = np.empty((self.n, *images.shape[1:]), np.uint8)
        return self.images

    def answer(self, images: NDArray[np.uint8]) -> None:
        """Make the answer, and give it."""
        tracing.carry(self.trace)
        began, result, failed = time.perf_counter(), None, None
        try:
            result = self.finish(images)
        except BaseException as error:
            if not isinstance(error, Problem):
                log.exception("encoding failed")
            failed = error
        metrics.ENCODE.observe(time.perf_counter() - began)
        self.outbox.put(self.future, result, failed)

    def fail(self, error: BaseException) -> None:
        """Give an error for the answer, from any thread; the first answer counts."""
        self.outbox.put(self.future, None, error)
