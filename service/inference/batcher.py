"""The batcher: what handlers ask for images. Requests wait in one fair queue, and lanes or the event loop run them.

The way of a request: :meth:`Batcher.generate` admits it by the pace (:mod:`service.inference.pace`) and puts it into
the queue (:mod:`service.inference.queue`); a runner (:mod:`service.inference.runners`) takes it in chunks, which it may
share with others; a chunk is run and its images are handed out (:mod:`service.inference.runs`); when all of a
request's images are there, its answer is made, and goes to the event loop that waits
(:mod:`service.inference.answers`). Rows of requests that were cancelled, or are past their deadline, leave the queue
before they cost a run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.http.errors import ClientGone, DeadlineExceeded, Overloaded, Unavailable
from service.inference.answers import Job, Outbox
from service.inference.engine import Engine
from service.inference.pace import Pace, retry_after, too_late
from service.inference.queue import FairQueue
from service.inference.rows import Rows
from service.inference.runners import Inline, Lanes
from service.inference.runs import Runs
from service.observe import metrics, tracing
from service.observe.statistics import Statistics

T = TypeVar("T")

# Most answers are ready by then, and are spared a task that watches the connection.
WATCH_AFTER_SECONDS = 0.05


class Batcher:
    """Use :meth:`generate` on the event loop; everything else happens in the runners.

    Args:
        lanes: threads that run engines, side by side.
        limit: rows that may wait for one loaded model.
        total: rows that may wait in all.
        delay: seconds that the first waiting row waits for company.
        inline: run small requests on the event loop; one that is alone is shared with the lanes.
        statistics: those of the service; None: its own.
    """

    def __init__(
        self,
        *,
        lanes: int,
        limit: int,
        total: int,
        delay: float = 0.0,
        inline: bool = False,
        statistics: Statistics | None = None,
    ) -> None:
        self.limit, self.total = limit, total
        self._encoders = ThreadPoolExecutor(max(1, lanes), thread_name_prefix="encode")
        self.statistics = statistics or Statistics()
        queue: FairQueue[Job[Any]] = FairQueue(limit=limit, total=total, delay=delay)
        self._runs = Runs(queue, Pace(lanes), self._encoders, self.statistics)
        self._lanes = Lanes(self._runs, lanes)
        self._inline = Inline(self._runs, self._lanes) if inline else None
        self._outbox: Outbox | None = None

    @property
    def lanes(self) -> int:
        """Threads that run engines."""
        return self._lanes.count

    @property
    def queued(self) -> int:
        """Rows that wait."""
        return self._runs.queue.rows

    async def generate(
        self,
        engine: Engine,
        rows: Rows,
        finish: Callable[[NDArray[np.uint8]], T],
        *,
        timeout: float,
        disconnected: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """``finish(images)``, called off the event loop with images uint8 [n, h, w, c] in the order of ``rows``.

        Cancelling the caller withdraws the rows that have not run yet, and so does the return of ``disconnected()``.

        Raises:
            Overloaded: too many rows wait; tells when to ask again.
            DeadlineExceeded: ``timeout`` seconds went by.
            Unavailable: the batcher is closed.
            ClientGone: ``disconnected`` returned first.
        """
        loop = asyncio.get_running_loop()
        if self._outbox is None or self._outbox.loop is not loop:
            self._outbox = Outbox(loop)
        job: Job[T] = Job(
            engine=engine,
            rows=rows,
            n=len(rows),
            finish=finish,
            future=loop.create_future(),
            outbox=self._outbox,
        )
        self._admit(job, timeout)
        began, answered = time.perf_counter(), False
        # One timer for most answers, which are there before it ends.
        job.timer = loop.call_later(min(timeout, WATCH_AFTER_SECONDS), self._late, job, timeout, disconnected)
        try:
            result = await job.future
            answered = True
            return result
        finally:
            job.timer.cancel()
            _trace(job)
            ended = time.perf_counter()
            self.statistics.request(engine.card, answered, ended - began, (job.started or ended) - began)
            if job.future.cancelled():
                self._runs.drop(job, "cancelled")

    async def work(self, function: Callable[[], T]) -> T:
        """Run encoding work off the event loop, beside the lanes."""
        return await asyncio.get_running_loop().run_in_executor(self._encoders, function)

    def close(self) -> None:
        """Refuse what waits and end the lanes after the run that each is in."""
        with self._runs.lock:
            self._runs.closed = True
            waiting = list(self._runs.queue)
            self._runs.lock.notify_all()
        for job in waiting:
            self._runs.drop(job, "draining")
            job.fail(_closed())
        self._lanes.join()
        self._encoders.shutdown(wait=True, cancel_futures=True)

    def _admit(self, job: Job[Any], timeout: float) -> None:
        """Put a request into the queue and wake who will run it; raises as :meth:`generate`."""
        runs, queue = self._runs, self._runs.queue
        with runs.lock:
            if runs.closed:
                raise _closed()
            wait = runs.pace.seconds(queue.by_model())
            reason = queue.full(job)
            if reason is None and too_late(wait, timeout):
                reason = f"{queue.rows} images wait already, too long for the {timeout:g} s a request may take"
            if reason is None:
                queue.push(job, time.monotonic())
                metrics.QUEUED.inc(job.n)
                job.small = self._inline is not None and self._inline.takes(job)
                if self._inline is not None and job.small:
                    self._inline.wake(job)
                else:
                    self._lanes.wake(job)
                return
        metrics.DROPPED.labels("overload").inc(job.n)
        seconds = retry_after(wait)
        raise Overloaded(f"{reason}: ask again in {seconds} s", seconds)

    def _late(
        self, job: Job[Any], timeout: float, disconnected: Callable[[], Awaitable[None]] | None
    ) -> None:
        """Nothing has come so far: watch the deadline, and whether anybody still waits."""
        if job.future.done():
            return
        left = max(0.0, timeout - WATCH_AFTER_SECONDS)
        job.timer = job.outbox.loop.call_later(left, self._expire, job, timeout)
        if disconnected is not None:
            self._watch(job, disconnected)

    def _expire(self, job: Job[Any], timeout: float) -> None:
        if job.future.done():
            return
        self._runs.drop(job, "deadline")
        job.future.set_exception(
            DeadlineExceeded(
                f"not done within {timeout:g} s, so the rest was dropped: ask for fewer images, or later"
            )
        )

    def _watch(self, job: Job[Any], disconnected: Callable[[], Awaitable[None]]) -> None:
        async def watch() -> None:
            await disconnected()
            if not job.future.done():
                self._runs.drop(job, "disconnected")
                job.future.set_exception(ClientGone("the client hung up"))

        task = job.outbox.loop.create_task(watch())
        job.future.add_done_callback(lambda _: task.cancel())


def _closed() -> Unavailable:
    return Unavailable("the server is shutting down; ask another replica, or again soon")


def _trace(job: Job[Any]) -> None:
    """Tell the trace of a request, where it has one, how long it waited and ran."""
    if job.trace is None or job.trace.span is None:
        return
    card = job.engine.card
    told: dict[str, str | int] = {
        "ganserve.model": card.name,
        "ganserve.version": card.version,
        "ganserve.images": job.n,
    }
    tracing.generated(job.trace, told, job.asked, job.started)
