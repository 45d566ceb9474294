"""The numbers behind the metrics where several processes share them, at a third of what they cost otherwise.

``prometheus_client`` looks at the id of its process and looks its place up at every change: for one image a tenth of
all that the event loop does. Processes of this service are never forked, so each writes where it knows its place.
"""

from __future__ import annotations

import struct
import threading
from typing import Any

from prometheus_client import values

_Written: Any = values.MultiProcessValue()  # type: ignore[no-untyped-call]
_pack = struct.Struct("d").pack
_lock = threading.Lock()


class Value(_Written):  # type: ignore[misc]
    """A number of one series, in the file that the others read."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._at = self._file._positions[self._key]

    def inc(self, amount: float) -> None:
        """Add to it."""
        at = self._at
        with _lock:
            self._value += amount
            # Written at once, or others would read half of it; the file may have been mapped anew.
            self._file._m[at : at + 8] = _pack(self._value)

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Make it ``value``."""
        with _lock:
            super().set(value, timestamp)


def install() -> None:
    """Put these in the place of those of ``prometheus_client``, for metrics that are made from here on."""
    values.ValueClass = Value
