"""Uploads that are kept in an object store: checked here as any are, then put where every worker finds them."""

from __future__ import annotations

import time
from pathlib import Path

from ganserve.archives import Limits
from ganserve.kept import KeptSets
from ganserve.store import Missing
from service.uploads import RECORD, SAMPLES, Uploads

SWEEP_SECONDS = 3600.0


class StoredUploads(Uploads):
    """Uploads in a store.

    Args:
        root: a folder of this machine, for what is being checked.
    """

    def __init__(self, root: Path, kept: KeptSets, limits: Limits = Limits()) -> None:
        super().__init__(root, limits)
        self.kept = kept
        self._swept = float("-inf")

    def _names(self) -> list[str]:
        return self.kept.names()

    def _record(self, name: str) -> bytes | None:
        try:
            return self.kept.record(name)
        except Missing:
            return None

    def _taken(self, name: str) -> bool:
        return self._record(name) is not None

    def _sheet(self, name: str) -> bytes | None:
        return self.kept.samples(name)

    def _place(self, unpacked: Path, name: str) -> bool:
        record, sheet = (unpacked / RECORD).read_bytes(), (unpacked / SAMPLES).read_bytes()
        return self.kept.keep(name, unpacked, record, sheet)

    def _take_away(self, name: str) -> None:
        self.kept.delete(name)

    def _sweep(self) -> None:
        super()._sweep()
        if time.monotonic() - self._swept > SWEEP_SECONDS:
            self.kept.sweep()
            self._swept = time.monotonic()
