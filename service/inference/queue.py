"""The fair queue: whose rows run next. No threads and no clock in it; callers hold the lock and tell the time.

One line a loaded model:

- models take turns, and inside a model so do requests: they go in the order of arrival, but one that is larger than a
  chunk goes to the back after each of its chunks while somebody waits for less than is left of it, so nothing waits
  behind a stranger's thousand images;
- small requests share a chunk; a lone large request is cut into as many parts as there are takers;
- who takes only small requests stops at the first that is not: nothing overtakes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic

from service.inference.engine import Engine
from service.inference.rows import Chunk, Piece, W

# A lone request is not cut finer than this: smaller runs cost more an image than a second lane gains.
MIN_SPLIT_ROWS = 4


def share(rows: int, parts: int) -> int:
    """Rows of each of so many parts, the last one apart."""
    return max(MIN_SPLIT_ROWS, -(-rows // parts))


class _Line(Generic[W]):
    """The requests that wait for one loaded model, the next one first."""

    def __init__(self, engine: Engine, since: float) -> None:
        self.engine, self.since = engine, since
        self.jobs: OrderedDict[W, None] = OrderedDict()
        self.rows = 0

    @property
    def first(self) -> W:
        return next(iter(self.jobs))

    def cut(self, room: int, *, small: bool) -> list[Piece[W]]:
        """Take ``room`` rows, or as many as there are; of ``small`` requests only."""
        pieces: list[Piece[W]] = []
        later: list[W] = []
        while room > 0 and self.jobs and (not small or self._fits(room, bool(pieces))):
            job = self.first
            piece = Piece(job, job.taken, min(job.n, job.taken + room))
            pieces.append(piece)
            job.taken = piece.stop
            room -= len(piece)
            if not job.left:
                del self.jobs[job]
            elif job.n > self.engine.max_rows:
                # Set aside, so that this chunk serves others first; then to the back.
                del self.jobs[job]
                later.append(job)
        for job in later:
            self._put_back(job)
        self.rows -= sum(map(len, pieces))
        return pieces

    def _fits(self, room: int, shared: bool) -> bool:
        """The next request is small, and needs no second run where the first one is shared."""
        # A part of a small request would cost a second hand-out and gain nothing.
        return self.first.small and not (shared and self.first.left > room)

    def _put_back(self, job: W) -> None:
        # Behind those who ask for less than it still does. Among equals the order of arrival stays: if all went to the
        # back in turn, all would be done late.
        smaller = any(other.left < job.left for other in self.jobs)
        self.jobs[job] = None
        self.jobs.move_to_end(job, last=smaller)


class FairQueue(Generic[W]):
    """Rows that wait, by the model they wait for.

    Args:
        limit: rows that may wait for one loaded model.
        total: rows that may wait in all.
        delay: seconds that the first waiting row waits for company.
    """

    def __init__(self, *, limit: int, total: int, delay: float = 0.0) -> None:
        self.limit, self.total, self.delay = limit, total, delay
        self.rows = 0
        self._lines: OrderedDict[Engine, _Line[W]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(line.jobs) for line in self._lines.values())

    def __iter__(self) -> Iterator[W]:
        return (job for line in self._lines.values() for job in line.jobs)

    def by_model(self) -> Iterator[tuple[str, int]]:
        """Names of models, and the rows that wait for each loaded one."""
        return ((engine.card.name, line.rows) for engine, line in self._lines.items())

    def full(self, job: W) -> str | None:
        """Why a request finds no room; None if it does."""
        line = self._lines.get(job.engine)
        waiting = line.rows if line else 0
        if waiting + job.n > self.limit:
            return f"{waiting} images wait for {job.engine.card.name} already, and at most {self.limit} may"
        if self.rows + job.n > self.total:
            return f"{self.rows} images wait already, and at most {self.total} may"
        return None

    def push(self, job: W, now: float) -> None:
        """Put a request at the end of its model's line."""
        line = self._lines.get(job.engine)
        if line is None:
            line = self._lines[job.engine] = _Line(job.engine, now)
        line.jobs[job] = None
        line.rows += job.n
        self.rows += job.n

    def remove(self, job: W) -> int:
        """Take out what is left of a request; how many rows that were."""
        line = self._lines.get(job.engine)
        if line is None or job not in line.jobs:
            return 0
        del line.jobs[job]
        line.rows -= job.left
        self.rows -= job.left
        if not line.jobs:
            del self._lines[job.engine]
        return job.left

    def take(self, now: float, parts: int) -> Chunk[W] | None:
        """The next chunk, for a taker that is one of ``parts``; None while nothing is due."""
        line = self._due(now, small=False)
        if line is None:
            return None
        return self._cut(line, now, min(line.engine.max_rows, share(line.rows, parts)), small=False)

    def take_small(self, now: float, parts: int, room: Callable[[Engine], int]) -> Chunk[W] | None:
        """The next chunk of small requests, ``room`` rows of it; one that is alone is shared by ``parts`` takers."""
        line = self._due(now, small=True)
        if line is None:
            return None
        # At least one row, or a model that became slower would be stuck.
        rows = max(1, room(line.engine))
        if len(line.jobs) == 1:
            rows = min(rows, share(line.rows, parts))
        return self._cut(line, now, rows, small=True)

    def due_in(self, now: float, *, small: bool = False) -> float | None:
        """Seconds until the window of a line closes; None while nothing waits."""
        if not self.delay:
            return None
        return min((self._window(line, now) for line in self._of(small)), default=None)

    def _of(self, small: bool) -> Iterator[_Line[W]]:
        return (line for line in self._lines.values() if not small or line.first.small)

    def _due(self, now: float, *, small: bool) -> _Line[W] | None:
        return next((line for line in self._of(small) if self._window(line, now) <= 0), None)

    def _window(self, line: _Line[W], now: float) -> float:
        if not self.delay or line.rows >= line.engine.max_rows:
            return 0.0
        return line.since + self.delay - now

    def _cut(self, line: _Line[W], now: float, room: int, *, small: bool) -> Chunk[W]:
        before = line.rows
        pieces = line.cut(room, small=small)
        self.rows -= before - line.rows
        if line.jobs:
            # The next model's turn.
            self._lines.move_to_end(line.engine)
            line.since = now
        else:
            del self._lines[line.engine]
        return Chunk(line.engine, pieces)
