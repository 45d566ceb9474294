"""Notices that the model repository changed: a pointer moved, a version came or went, a file was mended.

A thread looks at a few files' times and sizes, twice a second; at a few entity tags, every other second, where the
repository is in an object store. Change notifications of the kernel would be quicker by less than that, and never come
from a volume that another machine writes to.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable

from ganserve.store import Store, StoreError

log = logging.getLogger(__name__)

class Watcher:
    """Calls ``changed()``, on a thread of its own, after each change in ``store``."""

    def __init__(self, store: Store, changed: Callable[[], object], *, interval: float = 0.5) -> None:
        self.store, self.changed, self.interval = store, changed, max(interval, store.pause)
        self._stop = threading.Event()
        self._away = False
        self._seen = self._look()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        """Begin; changes since construction count."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it; not for a disk that hangs."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1)

    def _watch(self) -> None:
        while not self._stop.wait(self.interval):
            try:
                now = self._look()
                if now is not None and now != self._seen:
                    self._seen = now
                    self.changed()
            except Exception:
                log.exception("a look at the repository failed; the next one follows")

    def _look(self) -> Hashable:
        """The store's signature; None while it does not answer, which is told once."""
        try:
            found = self.store.signature()
        except StoreError as error:
            if not self._away:
                log.warning("the repository cannot be looked at, what was live stays so: %s", error)
            self._away = True
            return None
        if self._away:
            log.info("the repository answers again")
        self._away = False
        return found
