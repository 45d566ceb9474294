"""Work that may never end, and that nobody waits for longer than a deadline: a hung disk, a graph without an end.

Each piece runs on a thread of its own that no exit waits for. There is one thread a piece, however many ask: while one
hangs, whoever asks for the same is told at once, and everything else goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from ganserve.card import Unreadable

# Threads that hang at one time; a disk that hangs shall not collect more.
MOST = 64

T = TypeVar("T")


class Patience:
    """Runs pieces of work, each by a key; used on the event loop.

    Args:
        seconds: how long a piece may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running: dict[Hashable, tuple[asyncio.Future[Any], float]] = {}
        self._ended = asyncio.Event()

    async def run(
        self,
        key: Hashable,
        what: str,
        work: Callable[[], T],
        then: Callable[[asyncio.Future[T]], None] | None = None,
    ) -> T:
        """The work's result; work under one key that is running already is waited for in its place.

        Args:
            what: the work in words, for messages.
            then: called with what came of it, however late and whoever waits.

        Raises:
            Unreadable: it takes longer than the deadline, or :meth:`end` was called.
            Exception: what the work raises.
        """
        if key not in self._running:
            if len(self._running) >= MOST:
                raise Unreadable(f"{what} is not begun: {MOST} others do not end; does the disk answer?")
            self._running[key] = self._begin(key, what, work, then), time.monotonic()
        done, begun = self._running[key]
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            left = begun + self.seconds - time.monotonic()
            await asyncio.wait((done, ended), timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if done.done():
            result: T = done.result()
            return result
        if self._ended.is_set():
            raise Unreadable(f"{what} is given up: the service is stopping")
        raise Unreadable(f"{what} takes longer than {self.seconds:g} s (GANSERVE_LOAD_TIMEOUT)")

    def end(self) -> None:
        """Give up what is waited for, as the process stops."""
        self._ended.set()

    def _begin(
        self, key: Hashable, what: str, work: Callable[[], T], then: Callable[[asyncio.Future[T]], None] | None
    ) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        # Whoever asked may have gone by then.
        done.add_done_callback(lambda future: future.cancelled() or future.exception())

        def settle(result: T | None, error: BaseException | None) -> None:
            self._running.pop(key, None)
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]
            if then is not None:
                then(done)

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:
                error = raised
            # The loop may have ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result, error)

        threading.Thread(target=run, name=f"patience {what}"[:60], daemon=True).start()
        return done
