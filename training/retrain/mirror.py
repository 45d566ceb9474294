"""A run goes into the object store beside its training: by a thread of the worker, so that training waits for nothing.

The training's own process writes its checkpoints as ever; what is new is put up whenever there is another one, and all
of it at the end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ganserve.runs import Known, StoredRuns
from ganserve.store import Away
from training.retrain.attempts import newest_checkpoint

# How often the run's folder is looked at for a new checkpoint.
LOOK_SECONDS = 1.0
AGAIN_SECONDS = 2.0
LEAVE_SECONDS = 20.0

T = TypeVar("T")

log = logging.getLogger("ganserve.worker")


def store_is_away(error: BaseException) -> bool:
    """Whether an error says that the store does not answer just now, itself or by what brought it about."""
    while not isinstance(error, Away):
        if error.__cause__ is None:
            return False
        error = error.__cause__
    return True


async def patiently(action: Callable[[], T]) -> T:
    """Do it on a thread, again while the store is away: a job outlasts that."""
    while True:
        try:
            return await asyncio.to_thread(action)
        except Exception as error:
            if not store_is_away(error):
                raise
            log.warning("the store does not answer, trying again: %s", error)
        await asyncio.sleep(AGAIN_SECONDS)


class Mirror:
    """Puts one run up, from now on.

    Args:
        run: ``runs/<job>/attempt-N``, claimed.
    """

    def __init__(self, runs: StoredRuns, run: str, folder: Path) -> None:
        self.runs, self.run, self.folder = runs, run, folder
        self._known: Known = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """End, once everything is there. Raises Away."""
        self.cancel()
        self._thread.join()
        self.runs.push(self.run, self.folder, self._known)

    def leave(self) -> None:
        """The worker ends: what is new goes up once more, if the store answers."""
        self.cancel()
        self._thread.join(LEAVE_SECONDS)
        try:
            self.runs.push(self.run, self.folder, self._known)
        except Exception as error:
            log.warning("the last checkpoint of %s is not in the store: %s", self.run, error)

    def cancel(self) -> None:
        """Begin nothing more."""
        self._end.set()

    def _work(self) -> None:
        before: str | None = None
        while not self._end.wait(LOOK_SECONDS):
            now = newest_checkpoint(self.folder)
            if now == before:
                continue
            try:
                self.runs.push(self.run, self.folder, self._known)
                before = now
            except Exception as error:
                log.warning("the checkpoint of %s is not in the store yet: %s", self.run, error)
