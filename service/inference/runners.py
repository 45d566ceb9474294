"""Who takes rows from the queue: threads, the *lanes*, and the event loop itself, ``inline``.

Lanes sleep on a condition: nothing polls. Where each core has a process of its own, a thread beside the event loop
gains nothing and both wait for Python's lock: there small requests are run on the event loop, all that came in one
round of it together. What takes longer than a few milliseconds is still the lanes', and a small request that is alone
in its process is shared by the event loop and the lanes. While the loop has small requests, one lane works beside it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from service.inference.answers import Job
from service.inference.queue import MIN_SPLIT_ROWS
from service.inference.rows import Chunk
from service.inference.runs import Runs

# So long after a small request the event loop keeps its core: beside it one lane works, not all.
HOLD_SECONDS = 0.05
# A run may take so long to end before the process goes without its lane.
JOIN_SECONDS = 10


class Lanes:
    """Threads that run chunks until nothing waits, and sleep then."""

    def __init__(self, runs: Runs, count: int) -> None:
        self.count, self._runs = count, runs
        self._threads = [threading.Thread(target=self._lane, name=f"lane-{i}", daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def wake(self, job: Job[Any]) -> None:
        """A request waits for a lane: a large one, which will be cut, for all that idle. Under the lock."""
        self._runs.lock.notify(1 if job.n <= MIN_SPLIT_ROWS else max(1, self._runs.idle))

    def join(self) -> None:
        """Wait for each lane's last run, after ``closed`` is set and all are woken."""
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def _lane(self) -> None:
        while (chunk := self._next()) is not None:
            self._runs.serve(chunk)
            with self._runs.lock:
                self._runs.in_lanes -= 1
            # A lane that sleeps shall not keep a swapped model, or a request's images, in memory.
            del chunk

    def _next(self) -> Chunk[Job[Any]] | None:
        """Sleep until something is due; None once the runs are closed."""
        runs = self._runs
        with runs.lock:
            while True:
                now = time.monotonic()
                held = runs.inline_until - now if runs.in_lanes else 0.0
                # One part for this lane, and one for each that idles beside it.
                chunk = runs.queue.take(now, 1 + runs.helpers(self.count - 1)) if held <= 0 else None
                if chunk is not None:
                    runs.begin(chunk)
                    runs.in_lanes += 1
                    return chunk
                if runs.closed:
                    return None
                runs.idle += 1
                runs.lock.wait(held if held > 0 and runs.queue.rows else runs.queue.due_in(now))
                runs.idle -= 1


class Inline:
    """The event loop as a runner: one chunk, then whatever else the loop has to do."""

    def __init__(self, runs: Runs, lanes: Lanes) -> None:
        self._runs, self._lanes = runs, lanes
        self._round: asyncio.Handle | None = None

    def takes(self, job: Job[Any]) -> bool:
        """A request is small enough to be run here."""
        return job.n <= self._runs.pace.inline_rows(job.engine)

    def wake(self, job: Job[Any]) -> None:
        """A small request waits: it is run with all that come in this round of the loop."""
        if self._round is None:
            self._round = job.outbox.loop.call_soon(self._serve)

    def _serve(self) -> None:
        self._round = None
        runs, loop = self._runs, asyncio.get_running_loop()
        with runs.lock:
            now = time.monotonic()
            parts = 1 if runs.running else 1 + runs.helpers(self._lanes.count - 1)
            chunk = runs.queue.take_small(now, parts, runs.pace.inline_rows)
            if chunk is None:
                due = runs.queue.due_in(now, small=True)
            else:
                runs.begin(chunk)
                runs.inline_until = now + HOLD_SECONDS
                if 0 < runs.queue.rows == chunk.pieces[0].job.left:
                    # It is alone, and lanes shall take what was left of it.
                    runs.lock.notify(runs.helpers(self._lanes.count))
        if chunk is not None:
            runs.serve(chunk)
            self._round = loop.call_soon(self._serve)
        elif due is not None:
            self._round = loop.call_later(due, self._serve)
