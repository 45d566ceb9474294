"""How far something has come, on standard error: a bar where tqdm is installed, else a plain line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

# Neither a bar nor a line for what is over at once.
DELAY_SECONDS = 0.5
LINE_SECONDS = 5.0


def wanted(progress: bool | None) -> bool:
    """None: where somebody watches, in a terminal or a notebook."""
    if progress is not None:
        return progress
    return "ipykernel" in sys.modules or bool(getattr(sys.stderr, "isatty", lambda: False)())


class Bar:
    """Shows ``done`` of ``total``; a context that ends what it shows.

    Args:
        total: None where it is not known yet; see :meth:`to`.
        shown: False shows nothing.
    """

    def __init__(self, title: str, total: float | None, unit: str, *, shown: bool = True) -> None:
        self._title, self._total, self._unit, self._shown = title, total, unit, shown
        self._bar: Any = None
        self._done, self._note = 0.0, ""
        self._told_at = time.monotonic() + DELAY_SECONDS - LINE_SECONDS
        self._told = False
        if shown:
            self._bar = _tqdm(title, total, unit)

    def to(self, done: float, *, total: float | None = None, note: str = "") -> None:
        """It has come to ``done``."""
        self._done, self._note = done, note
        self._total = self._total if total is None else total
        if self._bar is not None:
            self._bar.total = self._total
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._shown and time.monotonic() - self._told_at >= LINE_SECONDS:
            self._line()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._told:
            self._line()

    def _line(self) -> None:
        of = "" if self._total is None else f" of {self._total:,.0f}"
        print(f"{self._title}: {self._done:,.0f}{of} {self._unit} {self._note}".rstrip(), file=sys.stderr, flush=True)
        self._told, self._told_at = True, time.monotonic()


def _tqdm(title: str, total: float | None, unit: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(desc=title, total=total, unit=f" {unit}", unit_scale=True, delay=DELAY_SECONDS, leave=True)
