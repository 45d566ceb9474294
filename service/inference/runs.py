"""Chunks through engines, and the images to those who asked; what the event loop and the lanes share for that."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Executor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.http.errors import Problem
from service.inference.answers import Job
from service.inference.engine import Engine
from service.inference.pace import Pace
from service.inference.queue import FairQueue
from service.inference.rows import Chunk, Piece, Rows
from service.observe import metrics, tracing
from service.observe.statistics import Statistics

# Up to so many bytes of pixels who ran them encodes too; more would keep it from the rows of others.
INLINE_BYTES = 1 << 18

Pieces: TypeAlias = list[Piece[Job[Any]]]

log = logging.getLogger(__name__)


class Runs:
    """The queue and its pace, under one lock, and the runs of what is taken from it.

    Attributes:
        lock: held to look at or change what follows; also wakes the lanes.
        running: chunks that are being run, by the lanes and the event loop.
        in_lanes: those of them in the lanes.
        idle: lanes that sleep.
        inline_until: seconds of ``time.monotonic`` until which the event loop may have more small requests to run.
        closed: nothing is taken on any more.
    """

    def __init__(
        self, queue: FairQueue[Job[Any]], pace: Pace, encoders: Executor, statistics: Statistics
    ) -> None:
        self.queue, self.pace, self.encoders, self.statistics = queue, pace, encoders, statistics
        self.lock = threading.Condition(threading.Lock())
        self.running = 0
        self.in_lanes = 0
        self.idle = 0
        self.inline_until = 0.0
        self.closed = False

    def helpers(self, lanes: int) -> int:
        """Of ``lanes``, those that idle and would find a core beside what runs. Under the lock."""
        return max(0, min(self.idle, lanes - self.running))

    def begin(self, chunk: Chunk[Job[Any]]) -> None:
        """A chunk was taken. Under the lock."""
        self.running += 1
        rows, now, waits = 0, time.perf_counter(), metrics.WAIT.labels(chunk.engine.card.name)
        for piece in chunk.pieces:
            rows += len(piece)
            if not piece.job.started:
                piece.job.started = now
                waits.observe(now - piece.job.asked)
        metrics.QUEUED.dec(rows)

    def drop(self, job: Job[Any], reason: str) -> None:
        """Take a request's waiting rows out of the queue; rows that are in a run are thrown away after it."""
        with self.lock:
            job.dead = True
            left = self.queue.remove(job)
        if left:
            metrics.QUEUED.dec(left)
            metrics.DROPPED.labels(reason).inc(left)

    def serve(self, chunk: Chunk[Job[Any]]) -> None:
        """Run a chunk that was begun, and answer those requests that are complete with it; never raises."""
        # What the run logs, and asks of other servers, goes by the first of its requests.
        tracing.carry(chunk.pieces[0].job.trace)
        try:
            self._serve(chunk.engine, chunk.pieces)
        except BaseException as error:  # a lane must outlive whatever a request does to it
            log.exception("a chunk of %s failed outside its run", chunk.engine.card.name)
            for piece in chunk.pieces:
                piece.job.fail(error)
        tracing.carry(None)
        with self.lock:
            self.running -= 1

    def _serve(self, engine: Engine, pieces: Pieces) -> None:
        pieces = [piece for piece in pieces if not piece.job.dead]
        if not pieces:
            return
        began = time.perf_counter()
        try:
            images = _run(engine, pieces)
        except Exception as error:
            self._failed(engine, pieces, error)
            return
        self._account(engine, len(images), time.perf_counter() - began)
        offset = 0
        for piece in pieces:
            self._hand_out(piece, images[offset : offset + len(piece)])
            offset += len(piece)

    def _failed(self, engine: Engine, pieces: Pieces, error: Exception) -> None:
        """Repeat a run request by request, so that it fails only the one that broke it."""
        name, version = engine.card.name, engine.card.version
        metrics.RUN_FAILURES.labels(name).inc()
        if isinstance(error, Problem):
            # Nothing that a request brought: the engine's own state, so none of them is worth another run.
            log.warning("a run of %s version %d failed: %s", name, version, error.detail)
        elif len(pieces) > 1:
            for piece in pieces:
                self._serve(engine, [piece])
            return
        else:
            log.error("a run of %s version %d failed", name, version, exc_info=error)
        for piece in pieces:
            self.drop(piece.job, "failed")
            piece.job.fail(error)

    def _account(self, engine: Engine, rows: int, seconds: float) -> None:
        name = engine.card.name
        with self.lock:
            self.pace.ran(name, rows, seconds)
            self.pace.keep(seconds, time.perf_counter(), waiting=bool(self.queue.rows))
        metrics.RUNS.labels(name).observe(rows)
        metrics.RUN_SECONDS.labels(name).inc(seconds)
        metrics.IMAGES.labels(name, str(engine.card.version)).inc(rows)
        self.statistics.run(engine.card, rows, seconds)

    def _hand_out(self, piece: Piece[Job[Any]], images: NDArray[np.uint8]) -> None:
        job, whole = piece.job, images
        if len(images) < job.n:
            with self.lock:
                whole = job.room(images)
            # Lanes write side by side, each its own rows.
            whole[piece.start : piece.stop] = images
        with self.lock:
            job.done += len(images)
            complete = job.done == job.n and not job.dead
        if not complete:
            return
        job.images = None
        if whole.nbytes <= INLINE_BYTES:
            job.answer(whole)
        else:
            self.encoders.submit(job.answer, whole)


def _run(engine: Engine, pieces: Pieces) -> NDArray[np.uint8]:
    """One run over the rows of several requests: images uint8 [rows, h, w, c]."""
    parts = [piece.job.rows.part(piece.start, piece.stop) for piece in pieces]
    rows = parts[0] if len(parts) == 1 else Rows.together(parts, engine)
    return engine.run(rows.latents(engine), rows.labels)
