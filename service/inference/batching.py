"""Rows of many requests to runs of an engine, and back.

A *lane* is a thread that takes a chunk of rows, computes their latents, runs the engine and hands the images out. All
lanes are fed from one set of queues, one queue a loaded model:

- models take turns, and inside a model so do requests: they go in the order of arrival, but one that is larger than a
  chunk goes to the back after each of its chunks while somebody waits for less than is left of it, so nothing waits
  behind a stranger's thousand images;
- small requests share a chunk; a lone large request is spread over the lanes that idle;
- rows of requests that were cancelled, or are past their deadline, leave the queue before they cost a run;
- a run that fails is repeated request by request, so that it fails only the request that broke it.

Lanes sleep on a condition: nothing polls.

Where each core has a process of its own, a thread beside the event loop gains nothing and both wait for Python's lock:
there small requests are run on the event loop itself, all that came in one round of it together (``inline``). What
takes longer than a few milliseconds is still the lanes'. Processes tell each other how much they run
(:mod:`service.inference.cores`): no more lanes work at a time than find a core, and a small request that is alone in
the whole service is shared by the event loop and a lane.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ganserve.latents import latents
from service.http.errors import ClientGone, DeadlineExceeded, Overloaded, Problem, Unavailable
from service.inference.cores import Cores
from service.inference.engine import Engine
from service.observe import metrics, tracing
from service.observe.statistics import Statistics

T = TypeVar("T")

# A lone request is not cut finer than this: smaller runs cost more an image than a second lane gains.
MIN_SPLIT_ROWS = 4
# Up to so many bytes of pixels the lane encodes itself; more would keep it from the rows of others.
INLINE_BYTES = 1 << 18
# What the event loop runs itself may keep it so long from everything else.
INLINE_SECONDS = 0.02
# Most answers are ready by then, and are spared a task that watches the connection.
WATCH_AFTER_SECONDS = 0.05

# Waiting may be expected to take this share of a request's time. What is admitted closer to its deadline misses it,
# as runs slow down, answers are encoded, and the event loop has its own queue.
ADMITTED_SHARE = 0.3

# How long a full queue is watched before it tells how fast the lanes really are.
PACE_SECONDS = 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """What to generate: a seed or a latent vector, and a label, for each image.

    Attributes:
        seeds: uint64 [n], or None where ``latent`` is given.
        labels: int64 [n], or None for an unconditional model.
        latent: float32 [n, z], in place of seeds.
    """

    seeds: NDArray[np.uint64] | None
    labels: NDArray[np.int64] | None
    latent: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        rows = self.seeds if self.latent is None else self.latent
        assert rows is not None
        return len(rows)

    def part(self, start: int, stop: int) -> Rows:
        """Some of the rows, not copied."""
        return Rows(
            None if self.seeds is None else self.seeds[start:stop],
            None if self.labels is None else self.labels[start:stop],
            None if self.latent is None else self.latent[start:stop],
        )

    def latents(self, engine: Engine) -> NDArray[np.float32]:
        """float32 [n, z]."""
        if self.latent is not None:
            return self.latent
        assert self.seeds is not None
        return latents(engine.card.latent_recipe, self.seeds, engine.card.z)

    @classmethod
    def together(cls, parts: list[Rows], engine: Engine) -> Rows:
        """All rows of several requests to one engine."""
        labels = [part.labels for part in parts if part.labels is not None]
        joined = np.concatenate(labels) if labels else None
        seeds = [part.seeds for part in parts if part.latent is None and part.seeds is not None]
        if len(seeds) == len(parts):
            return cls(np.concatenate(seeds), joined)
        return cls(None, joined, np.concatenate([part.latents(engine) for part in parts]))


class _Outbox:
    """Answers on their way from the lanes to an event loop: those that come together wake it once."""

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


@dataclass(eq=False, slots=True)
class _Job(Generic[T]):
    engine: Engine
    rows: Rows
    n: int
    finish: Callable[[NDArray[np.uint8]], T]
    future: asyncio.Future[T]
    outbox: _Outbox
    timer: asyncio.TimerHandle | None = None
    taken: int = 0
    done: int = 0
    dead: bool = False
    small: bool = False
    asked: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    trace: tracing.Trace | None = field(default_factory=tracing.current)
    images: NDArray[np.uint8] | None = None


@dataclass(slots=True)
class _Queue:
    """The requests that wait for one loaded model."""

    jobs: OrderedDict[_Job[Any], None] = field(default_factory=OrderedDict)
    rows: int = 0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class _Piece:
    job: _Job[Any]
    start: int
    stop: int


class Batcher:
    """The lanes and their queues. Use :meth:`generate` on the event loop; everything else happens in the lanes.

    Args:
        lanes: threads that run engines, side by side.
        limit: rows that may wait for one loaded model.
        total: rows that may wait in all.
        delay: seconds that the first waiting row waits for company.
        inline: run small requests on the event loop; one that is alone is shared with a lane.
        cores: what runs take place on; None where they take place elsewhere, as many as there are lanes.
    """

    def __init__(
        self,
        *,
        lanes: int,
        limit: int,
        total: int,
        delay: float = 0.0,
        inline: bool = False,
        cores: Cores | None = None,
    ) -> None:
        self.lanes, self.limit, self.total, self.delay = lanes, limit, total, delay
        self.inline = inline
        # One more than there are lanes, for the event loop.
        self._cores = cores or Cores(lanes + 1)
        self._in_lanes = 0
        self._held_back = False
        self._round: asyncio.Handle | None = None
        self.queued = 0
        self.statistics = Statistics()
        self._queues: OrderedDict[Engine, _Queue] = OrderedDict()
        self._wake = threading.Condition(threading.Lock())
        self._idle = 0
        self._closed = False
        self._outbox: _Outbox | None = None
        # Seconds of lane time a row, by model name; smoothed.
        self._cost: dict[str, float] = {}
        # Seconds of lane time that a second brings while rows wait. Between runs lanes encode, and wait for Python's
        # lock and for the cores that answer others, so it is less than there are lanes.
        self._pace = float(lanes)
        self._watched: float | None = None
        self._worked = 0.0
        self._encoders = ThreadPoolExecutor(max(1, lanes), thread_name_prefix="encode")
        self._threads = [
            threading.Thread(target=self._lane, name=f"lane-{index}", daemon=True) for index in range(lanes)
        ]
        for thread in self._threads:
            thread.start()

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
            self._outbox = _Outbox(loop)
        job: _Job[T] = _Job(engine, rows, len(rows), finish, loop.create_future(), self._outbox)
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
            if job.trace is not None and job.trace.span is not None:
                told: dict[str, str | int] = {
                    "ganserve.model": engine.card.name,
                    "ganserve.version": engine.card.version,
                    "ganserve.images": job.n,
                }
                tracing.generated(job.trace, told, job.asked, job.started)
            ended = time.perf_counter()
            self.statistics.request(engine.card, answered, ended - began, (job.started or ended) - began)
            if job.future.cancelled():
                self._drop(job, "cancelled")

    async def work(self, function: Callable[[], T]) -> T:
        """Run encoding work off the event loop, beside the lanes."""
        return await asyncio.get_running_loop().run_in_executor(self._encoders, function)

    def wait_seconds(self) -> float:
        """How long the rows that wait now will take, from what rows have cost so far."""
        with self._wake:
            return self._wait_seconds()

    def close(self) -> None:
        """Refuse what waits and end the lanes after the run that each is in."""
        with self._wake:
            self._closed = True
            waiting = [job for queue in self._queues.values() for job in queue.jobs]
            self._wake.notify_all()
        for job in waiting:
            self._drop(job, "draining")
            _settle(job, error=Unavailable("the server is shutting down; ask another replica, or again soon"))
        for thread in self._threads:
            thread.join(10)
        self._encoders.shutdown(wait=True, cancel_futures=True)

    # -- on the event loop

    def _admit(self, job: _Job[Any], timeout: float) -> None:
        with self._wake:
            if self._closed:
                raise Unavailable("the server is shutting down; ask another replica, or again soon")
            queue = self._queues.get(job.engine)
            waiting = queue.rows if queue else 0
            wait = self._wait_seconds()
            name = job.engine.card.name
            if waiting + job.n > self.limit:
                reason = f"{waiting} images wait for {name} already, and at most {self.limit} may"
            elif self.queued + job.n > self.total:
                reason = f"{self.queued} images wait already, and at most {self.total} may"
            elif wait > ADMITTED_SHARE * timeout:
                reason = (
                    f"{self.queued} images wait already, too long for the {timeout:g} s a request may take"
                )
            else:
                if queue is None:
                    queue = self._queues[job.engine] = _Queue()
                if not queue.jobs:
                    queue.since = time.monotonic()
                queue.jobs[job] = None
                self._add(queue, job.n)
                job.small = self.inline and job.n <= self._inline_rows(job.engine)
                if not job.small:
                    # A request that will be cut wakes every lane that will find a core.
                    self._wake.notify(1 if job.n <= MIN_SPLIT_ROWS else max(1, self._helpers()))
                elif self._round is None:
                    self._round = job.outbox.loop.call_soon(self._serve_small)
                return
        metrics.DROPPED.labels("overload").inc(job.n)
        retry_after = max(1, math.ceil(wait))
        raise Overloaded(f"{reason}: ask again in {retry_after} s", retry_after)

    def _late(
        self, job: _Job[Any], timeout: float, disconnected: Callable[[], Awaitable[None]] | None
    ) -> None:
        """Nothing has come so far: watch the deadline, and whether anybody still waits."""
        if job.future.done():
            return
        left = max(0.0, timeout - WATCH_AFTER_SECONDS)
        job.timer = job.outbox.loop.call_later(left, self._expire, job, timeout)
        if disconnected is not None:
            self._watch(job, disconnected)

    def _expire(self, job: _Job[Any], timeout: float) -> None:
        if job.future.done():
            return
        self._drop(job, "deadline")
        job.future.set_exception(
            DeadlineExceeded(
                f"not done within {timeout:g} s, so the rest was dropped: ask for fewer images, or later"
            )
        )

    def _watch(self, job: _Job[Any], disconnected: Callable[[], Awaitable[None]]) -> None:
        async def watch() -> None:
            await disconnected()
            if not job.future.done():
                self._drop(job, "disconnected")
                job.future.set_exception(ClientGone("the client hung up"))

        task = job.outbox.loop.create_task(watch())
        job.future.add_done_callback(lambda _: task.cancel())

    def _drop(self, job: _Job[Any], reason: str) -> None:
        """Take a job's waiting rows out of the queue; rows that are in a run are thrown away after it."""
        with self._wake:
            job.dead = True
            queue = self._queues.get(job.engine)
            if queue is None or job not in queue.jobs:
                return
            del queue.jobs[job]
            left = job.n - job.taken
            self._add(queue, -left)
            if not queue.jobs:
                del self._queues[job.engine]
        metrics.DROPPED.labels(reason).inc(left)

    def _serve_small(self) -> None:
        """Run what the event loop runs itself: one chunk, then whatever else the loop has to do."""
        self._round = None
        with self._wake:
            chunk = self._take(small=True)
            if isinstance(chunk, tuple) and 0 < self.queued == chunk[1][0].job.n - chunk[1][0].job.taken:
                # It is alone, and lanes shall take what was left of it.
                self._wake.notify(self._helpers())
        loop = asyncio.get_running_loop()
        if isinstance(chunk, float):
            self._round = loop.call_later(chunk, self._serve_small)
        elif chunk is not None:
            self._serve_chunk(*chunk)
            with self._wake:
                self._cores.end()
            self._round = loop.call_soon(self._serve_small)

    # -- under the lock

    def _helpers(self) -> int:
        """Lanes that idle and would find a core."""
        return min(self._idle, self._cores.free)

    def _inline_rows(self, engine: Engine) -> int:
        """Rows that the event loop may run at once: none of an engine whose pace is not known yet."""
        cost = self._cost.get(engine.card.name)
        if not cost:
            return 0
        return min(engine.max_rows, int(INLINE_SECONDS / cost))

    def _add(self, queue: _Queue, rows: int) -> None:
        queue.rows += rows
        self.queued += rows
        metrics.QUEUED.inc(rows)

    def _wait_seconds(self) -> float:
        busy = sum(
            queue.rows * self._cost.get(engine.card.name, 0.0) for engine, queue in self._queues.items()
        )
        return busy / self._pace

    def _keep_pace(self, seconds: float) -> None:
        """A run of so many seconds ended: how many seconds of runs a second brings, as long as rows wait."""
        now = time.perf_counter()
        if not self._queues:
            self._watched = None
        elif self._watched is None:
            self._watched, self._worked = now, 0.0
        else:
            self._worked += seconds
            if now - self._watched >= PACE_SECONDS:
                seen = min(self.lanes, self._worked / (now - self._watched))
                self._pace += 0.5 * (seen - self._pace)
                self._watched, self._worked = now, 0.0

    def _take(self, *, small: bool = False) -> tuple[Engine, list[_Piece]] | float | None:
        """The next chunk; or seconds until one may be due; or None while nothing waits. Of ``small`` requests only."""
        soonest: float | None = None
        now = time.monotonic() if self.delay else 0.0
        for engine, queue in self._queues.items():
            if small and not next(iter(queue.jobs)).small:
                continue
            if self.delay and queue.rows < engine.max_rows and (due := queue.since + self.delay - now) > 0:
                soonest = due if soonest is None else min(soonest, due)
                continue
            pieces = self._cut(engine, queue, small)
            if queue.jobs:
                self._queues.move_to_end(engine)
                queue.since = now
            else:
                del self._queues[engine]
            self._cores.begin()
            return engine, pieces
        return soonest

    def _cut(self, engine: Engine, queue: _Queue, small: bool) -> list[_Piece]:
        most = engine.max_rows
        # One part for whoever takes this, and one for each lane that idles and would find a core beside it.
        share = max(MIN_SPLIT_ROWS, -(-queue.rows // (1 + min(self._idle, max(0, self._cores.free - 1)))))
        if not small:
            room = min(most, share)
        else:
            # At least one row, or a model that became slower would be stuck. One that is alone is shared with lanes.
            room = max(1, self._inline_rows(engine))
            if len(queue.jobs) == 1 and not self._cores.here:
                room = min(room, share)
        pieces: list[_Piece] = []
        later: list[_Job[Any]] = []
        total = 0
        while room > total and queue.jobs:
            job = next(iter(queue.jobs))
            # What stands behind a larger request is left to the lanes, which are awake for that: nothing overtakes.
            # A part of a small request would cost a second hand-out and gain nothing.
            if small and (not job.small or (pieces and job.n - job.taken > room - total)):
                break
            start, stop = job.taken, min(job.n, job.taken + room - total)
            if not job.started:
                job.started = time.perf_counter()
                metrics.WAIT.labels(engine.card.name).observe(job.started - job.asked)
            job.taken = stop
            total += stop - start
            pieces.append(_Piece(job, start, stop))
            if stop == job.n:
                del queue.jobs[job]
            elif job.n > most:
                # Set aside, so that this chunk serves others first; then to the back.
                del queue.jobs[job]
                later.append(job)
        for job in later:
            # Behind those who ask for less than it still does. Among equals the order of arrival stays: if all went
            # to the back in turn, all would be done late.
            smaller = any(other.n - other.taken < job.n - job.taken for other in queue.jobs)
            queue.jobs[job] = None
            queue.jobs.move_to_end(job, last=smaller)
        self._add(queue, -total)
        return pieces

    # -- in the lanes

    def _lane(self) -> None:
        while True:
            with self._wake:
                while True:
                    # Beside another lane on the same core both would take twice as long.
                    may = not self._in_lanes or self._cores.free
                    self._held_back = self._held_back or bool(self._queues and not may)
                    chunk = self._take() if may else None
                    if isinstance(chunk, tuple):
                        break
                    if self._closed:
                        return
                    self._idle += 1
                    self._wake.wait(chunk)
                    self._idle -= 1
                self._in_lanes += 1
                if self._held_back and self._helpers():
                    self._held_back = False
                    self._wake.notify()
            self._serve_chunk(*chunk)
            with self._wake:
                self._in_lanes -= 1
                self._cores.end()
            # A lane that sleeps shall not keep a swapped model, or a request's images, in memory.
            del chunk

    def _serve_chunk(self, engine: Engine, pieces: list[_Piece]) -> None:
        # What the run logs, and asks of other servers, goes by the first of its requests.
        tracing.carry(pieces[0].job.trace)
        try:
            self._serve(engine, pieces)
        except BaseException as error:  # a lane must outlive whatever a request does to it
            log.exception("a chunk of %s failed outside its run", engine.card.name)
            for piece in pieces:
                _settle(piece.job, error=error)
        tracing.carry(None)

    def _serve(self, engine: Engine, pieces: list[_Piece]) -> None:
        pieces = [piece for piece in pieces if not piece.job.dead]
        if not pieces:
            return
        name = engine.card.name
        began = time.perf_counter()
        try:
            images = _run(engine, pieces)
        except Problem as error:
            # Nothing that a request brought: the engine's own state, so none of them is worth another run.
            metrics.RUN_FAILURES.labels(name).inc()
            log.warning("a run of %s version %d failed: %s", name, engine.card.version, error.detail)
            for piece in pieces:
                self._drop(piece.job, "failed")
                _settle(piece.job, error=error)
            return
        except Exception as error:
            metrics.RUN_FAILURES.labels(name).inc()
            if len(pieces) > 1:
                for piece in pieces:
                    self._serve(engine, [piece])
                return
            job = pieces[0].job
            log.exception("a run of %s version %d failed", name, engine.card.version)
            self._drop(job, "failed")
            _settle(job, error=error)
            return
        seconds, rows = time.perf_counter() - began, len(images)
        cost = self._cost.get(name)
        self._cost[name] = seconds / rows if cost is None else 0.9 * cost + 0.1 * seconds / rows
        with self._wake:
            self._keep_pace(seconds)
        metrics.RUNS.labels(name).observe(rows)
        metrics.RUN_SECONDS.labels(name).inc(seconds)
        metrics.IMAGES.labels(name, str(engine.card.version)).inc(rows)
        self.statistics.run(engine.card, rows, seconds)
        offset = 0
        for piece in pieces:
            size = piece.stop - piece.start
            self._hand_out(piece, images[offset : offset + size])
            offset += size

    def _hand_out(self, piece: _Piece, images: NDArray[np.uint8]) -> None:
        job = piece.job
        if len(images) < job.n:
            with self._wake:
                if job.images is None:
                    job.images = np.empty((job.n, *images.shape[1:]), np.uint8)
                whole = job.images
            # Lanes write side by side, each its own rows.
            whole[piece.start : piece.stop] = images
        else:
            whole = images
        with self._wake:
            job.done += len(images)
            complete = job.done == job.n and not job.dead
        if not complete:
            return
        job.images = None
        if whole.nbytes <= INLINE_BYTES:
            _finish(job, whole)
        else:
            self._encoders.submit(_finish, job, whole)


def _run(engine: Engine, pieces: list[_Piece]) -> NDArray[np.uint8]:
    """One run over the rows of several requests: images uint8 [rows, h, w, c]."""
    parts = [piece.job.rows.part(piece.start, piece.stop) for piece in pieces]
    rows = parts[0] if len(parts) == 1 else Rows.together(parts, engine)
    return engine.run(rows.latents(engine), rows.labels)


def _finish(job: _Job[Any], images: NDArray[np.uint8]) -> None:
    tracing.carry(job.trace)
    try:
        with metrics.ENCODE.time():
            result = job.finish(images)
    except BaseException as error:
        if not isinstance(error, Problem):
            log.exception("encoding failed")
        _settle(job, error=error)
    else:
        _settle(job, result=result)


def _settle(job: _Job[Any], *, result: Any = None, error: BaseException | None = None) -> None:
    """Answer a job from any thread; the first answer counts."""
    job.outbox.put(job.future, result, error)
