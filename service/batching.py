"""Rows of many requests to full runs: lanes that take chunks from one bounded, fair queue.

A request is ``n`` rows of one model version. A lane takes up to ``chunk`` rows of one version: some of the request
whose turn it is, and if that leaves room, rows of the requests behind it. A request with rows left goes to the end
of the queue, so that nothing waits behind a stranger's thousand images.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.metrics import BATCH_ROWS, IMAGES, QUEUED_ROWS, REJECTIONS, WAIT_SECONDS

logger = logging.getLogger("ganserve")

Images = NDArray[np.uint8]


class Runs(Protocol):
    """What the batcher knows of an engine."""

    key: tuple[str, int]
    shape: tuple[int, int, int]

    def run(self, lane: int, seeds: NDArray[np.uint64], labels: NDArray[np.int64]) -> Images:
        """Images of rows."""
        ...


class QueueFull(RuntimeError):
    """More rows wait than may; ``retry_after`` is in whole seconds."""

    def __init__(self, waiting: int, limit: int, retry_after: int) -> None:
        super().__init__(f"{waiting} images wait already, and {limit} may: try again in {retry_after} s")
        self.retry_after = retry_after


class DeadlineExceeded(RuntimeError):
    """The request's time was over before it was done."""


class Closed(RuntimeError):
    """The service is stopping."""


@dataclass(eq=False)
class _Request:
    engine: Runs
    seeds: NDArray[np.uint64]
    labels: NDArray[np.int64]
    finish: Callable[[Images], bytes]
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[bytes]
    queued: float
    images: Images = field(init=False)
    taken: int = 0
    done: int = 0
    over: bool = False

    def __post_init__(self) -> None:
        self.images = np.empty((len(self.seeds), *self.engine.shape), np.uint8)


class Batcher:
    """Lanes over one queue. Used from the event loop; the lanes are threads of their own."""

    def __init__(
        self,
        *,
        lanes: int,
        chunk: int,
        max_rows: int,
        max_rows_per_model: int,
        delay: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.chunk, self.max_rows, self.max_rows_per_model = chunk, max_rows, max_rows_per_model
        self.delay, self.clock = delay, clock
        self.lanes = lanes
        self._queue: deque[_Request] = deque()
        self._rows: Counter[tuple[str, int]] = Counter()
        self._total = 0
        self._wake = threading.Condition()
        self._closed = False
        self._rate = 0.0
        self._threads = [
            threading.Thread(target=self._lane, args=(i,), name=f"lane-{i}", daemon=True) for i in range(lanes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Rows that no lane has taken yet."""
        return self._total

    async def submit(
        self,
        engine: Runs,
        seeds: NDArray[np.uint64],
        labels: NDArray[np.int64],
        finish: Callable[[Images], bytes],
        *,
        timeout: float,
    ) -> bytes:
        """Generate rows and finish them (encode) on a lane's thread.

        Raises:
            QueueFull: at once, if the rows do not fit.
            DeadlineExceeded: after ``timeout`` seconds; rows not yet taken are never run.
            Closed: the batcher was closed.
        """
        loop = asyncio.get_running_loop()
        now = self.clock()
        request = _Request(
            engine, seeds, labels, finish, now + timeout, loop, loop.create_future(), queued=now
        )
        with self._wake:
            if self._closed:
                raise Closed("the service is stopping")
            self._admit(request)
            self._queue.append(request)
            self._count(request, len(seeds))
            self._wake.notify(min(self.lanes, 1 + (len(seeds) - 1) // self.chunk))
        timer = loop.call_later(timeout, self._expire, request)
        try:
            return await request.future
        finally:
            timer.cancel()
            if not request.over:
                with self._wake:
                    self._drop(request)

    def close(self) -> None:
        """End the lanes; requests that wait get Closed."""
        with self._wake:
            self._closed = True
            for request in list(self._queue):
                self._drop(request)
                self._answer(request, Closed("the service is stopping"))
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout=10)

    def _admit(self, request: _Request) -> None:
        n = len(request.seeds)
        for waiting, limit in (
            (self._total, self.max_rows),
            (self._rows[request.engine.key], self.max_rows_per_model),
        ):
            if waiting + n > limit:
                REJECTIONS.labels("queue_full").inc()
                rate = self._rate or 100.0
                raise QueueFull(waiting, limit, max(1, round(waiting / rate)))

    def _expire(self, request: _Request) -> None:
        with self._wake:
            self._drop(request)
        if not request.future.done():
            REJECTIONS.labels("deadline").inc()
            request.future.set_exception(DeadlineExceeded("the request's time was over before its turn came"))

    def _drop(self, request: _Request) -> None:
        """Forget the rows that no lane has taken. Called with the lock held."""
        if not request.over:
            request.over = True
            self._count(request, -(len(request.seeds) - request.taken))
            request.taken = len(request.seeds)
            if request in self._queue:
                self._queue.remove(request)

    def _count(self, request: _Request, rows: int) -> None:
        self._rows[request.engine.key] += rows
        if not self._rows[request.engine.key]:
            del self._rows[request.engine.key]
        self._total += rows
        QUEUED_ROWS.set(self._total)

    def _lane(self, lane: int) -> None:
        while True:
            parts = self._take()
            if parts is None:
                return
            try:
                self._run(lane, parts)
            except Exception as error:
                # Whatever failed, its requests hear of it and the lane goes on.
                logger.exception("a run failed")
                for request, _, _ in parts:
                    self._fail(request, error)

    def _take(self) -> list[tuple[_Request, int, int]] | None:
        """Rows for one run as (request, first row, end row), all of one model version; None when closed."""
        with self._wake:
            while not self._queue:
                if self._closed:
                    return None
                self._wake.wait()
            if self.delay and self._total < self.chunk:
                left = self._queue[0].queued + self.delay - self.clock()
                if left > 0:
                    self._wake.wait(left)
                    if not self._queue:
                        return []
            first = self._queue[0]
            parts: list[tuple[_Request, int, int]] = []
            room = self.chunk
            for request in [r for r in self._queue if r.engine is first.engine]:
                rows = min(room, len(request.seeds) - request.taken)
                start, end = request.taken, request.taken + rows
                if start == 0:
                    WAIT_SECONDS.observe(self.clock() - request.queued)
                request.taken = end
                self._count(request, -rows)
                self._queue.remove(request)
                if end < len(request.seeds):
                    self._queue.append(request)
                parts.append((request, start, end))
                room -= rows
                if not room:
                    break
            return parts

    def _run(self, lane: int, parts: list[tuple[_Request, int, int]]) -> None:
        if not parts:
            return
        engine = parts[0][0].engine
        started = self.clock()
        if len(parts) == 1:
            request, start, end = parts[0]
            images = engine.run(lane, request.seeds[start:end], request.labels[start:end])
        else:
            seeds = np.concatenate([r.seeds[a:b] for r, a, b in parts])
            labels = np.concatenate([r.labels[a:b] for r, a, b in parts])
            try:
                images = engine.run(lane, seeds, labels)
            except Exception:
                # One of them may be at fault: each alone.
                for part in parts:
                    try:
                        self._run(lane, [part])
                    except Exception as error:
                        self._fail(part[0], error)
                return
        rows = len(images)
        BATCH_ROWS.observe(rows)
        IMAGES.labels(engine.key[0], str(engine.key[1])).inc(rows)
        offset = 0
        for request, start, end in parts:
            request.images[start:end] = images[offset : offset + end - start]
            offset += end - start
            self._progress(request, end - start)
        self._measure(rows, self.clock() - started)

    def _progress(self, request: _Request, rows: int) -> None:
        with self._wake:
            request.done += rows
            complete = request.done == len(request.seeds) and not request.over
            request.over = request.over or complete
        if complete:
            try:
                content = request.finish(request.images)
            except Exception as error:
                logger.exception("encoding failed")
                self._answer(request, error)
            else:
                self._answer(request, content)

    def _fail(self, request: _Request, error: Exception) -> None:
        with self._wake:
            self._drop(request)
        self._answer(request, error)

    def _measure(self, rows: int, seconds: float) -> None:
        rate = rows / max(seconds, 1e-6) * self.lanes
        self._rate = rate if not self._rate else 0.9 * self._rate + 0.1 * rate

    @staticmethod
    def _answer(request: _Request, outcome: bytes | Exception) -> None:
        def tell() -> None:
            if request.future.done():
                return
            if isinstance(outcome, Exception):
                request.future.set_exception(outcome)
            else:
                request.future.set_result(outcome)

        try:
            request.loop.call_soon_threadsafe(tell)
        except RuntimeError:
            logger.debug("the event loop has ended before an answer")
