"""Work that may never end, and that nobody waits for longer than a deadline: a hung disk, a graph without an end.

Each piece runs on a thread of its own that no exit waits for. There is one thread a piece, however many ask: while one
hangs, whoever asks for the same is told at once, and everything else goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ganserve.card import ModelUnreadable

# Threads at one time; what is asked for beyond waits for its turn, and a disk that hangs collects no more.
MOST = 32

T = TypeVar("T")
Then = Callable[[asyncio.Future[T]], None]


@dataclass(eq=False)
class _Piece(Generic[T]):
    """Work that is under way, or waits for its turn."""

    work: Callable[[], T]
    then: Then[T] | None
    done: asyncio.Future[T]
    asked: float


class Patience:
    """Runs pieces of work, each by a key; used on the event loop.

    Args:
        seconds: how long a piece may take, its turn included.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running: dict[Hashable, _Piece[Any]] = {}
        self._waiting: OrderedDict[Hashable, _Piece[Any]] = OrderedDict()
        self._ended = False
        self._told: set[asyncio.Future[None]] = set()

    async def run(self, key: Hashable, what: str, work: Callable[[], T], then: Then[T] | None = None) -> T:
        """The work's result; work under one key that is running already is waited for in its place.

        Args:
            what: the work in words, for messages.
            then: called with what came of it, however late and whoever waits.

        Raises:
            ModelUnreadable: it takes longer than the deadline, or :meth:`end` was called.
            Exception: what the work raises.
        """
        piece: _Piece[T] = self._running.get(key) or self._waiting.get(key) or self._begin(key, work, then)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._told.add(ended)
        if self._ended:
            ended.set_result(None)
        try:
            left = piece.asked + self.seconds - time.monotonic()
            await asyncio.wait((piece.done, ended), timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._told.discard(ended)
        if piece.done.done():
            return piece.done.result()
        # What had no turn yet shall not take one for nobody.
        self._waiting.pop(key, None)
        if self._ended:
            raise ModelUnreadable(f"{what} is given up: the service is stopping")
        raise ModelUnreadable(f"{what} takes longer than {self.seconds:g} s (GANSERVE_LOAD_TIMEOUT)")

    def end(self) -> None:
        """Give up what is waited for, as the process stops."""
        self._ended = True
        for waiting in self._told:
            if not waiting.done():
                waiting.set_result(None)

    def _begin(self, key: Hashable, work: Callable[[], T], then: Then[T] | None) -> _Piece[T]:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        # Whoever asked may have gone by then.
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        piece = _Piece(work, then, done, time.monotonic())
        self._waiting[key] = piece
        self._next()
        return piece

    def _next(self) -> None:
        while self._waiting and len(self._running) < MOST:
            key, piece = self._waiting.popitem(last=False)
            self._running[key] = piece
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._work, args=(loop, key, piece), name=f"patience {key}", daemon=True).start()

    def _work(self, loop: asyncio.AbstractEventLoop, key: Hashable, piece: _Piece[Any]) -> None:
        """On the piece's thread."""
        result, error = None, None
        try:
            result = piece.work()
        except BaseException as raised:
            error = raised
        # The loop may have ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._settle, key, piece, result, error)

    def _settle(self, key: Hashable, piece: _Piece[Any], result: Any, error: BaseException | None) -> None:
        del self._running[key]
        self._next()
        if error is None:
            piece.done.set_result(result)
        else:
            piece.done.set_exception(error)
        if piece.then is not None:
            piece.then(piece.done)
