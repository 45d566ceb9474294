"""Notices that the model repository changed: a pointer moved, a version came or went, a file was mended.

A thread looks at a few files' times and sizes, twice a second. Change notifications of the kernel would be quicker by
less than that, and never come from a volume that another machine writes to.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

Signature = frozenset[tuple[str, int, int, int]]


def signature(root: Path) -> Signature:
    """What changes when a pointer is replaced, or the files of a live version are."""
    found: set[tuple[str, int, int, int]] = set()
    for folder in _folders(root):
        # A rename into the folder changes the folder's own time, so new versions show here too.
        for path in (folder, f"{folder}/live.json"):
            try:
                stat = os.stat(path)
            except OSError:
                continue
            found.add((path, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return frozenset(found)


def _folders(root: Path) -> list[str]:
    try:
        with os.scandir(root) as entries:
            return [entry.path for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:
        return []


class Watcher:
    """Calls ``changed()``, on a thread of its own, after each change below ``root``."""

    def __init__(self, root: Path, changed: Callable[[], object], *, interval: float = 0.5) -> None:
        self.root, self.changed, self.interval = root, changed, interval
        self._stop = threading.Event()
        self._seen = signature(root)
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
                now = signature(self.root)
                if now != self._seen:
                    self._seen = now
                    self.changed()
            except Exception:
                log.exception("a look at %s failed; the next one follows", self.root)
