"""What the runs and requests of each version have taken since the service started, in all its processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

from ganserve.card import ModelCard
from service.observe.figures import Figures

_SUCCESS, _FAIL, _QUEUE, _RUNS, _LAST = "success", "fail", "queue", "runs", "last"

Pairs = dict[str, list[tuple[int, int]]]


class Statistics:
    """Filled by the batcher from its threads, read by ``/v2/models/stats``.

    Args:
        folder: where the processes of a service keep theirs; None for one that is alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._figures = Figures(folder)
        self._last: dict[str, int] = {}

    def run(self, card: ModelCard, rows: int, seconds: float) -> None:
        """A run of the network over so many rows."""
        version, now = f"{card.name}/{card.version}", time.time_ns() // 1_000_000
        with self._lock:
            self._figures.add(f"{version}/{_RUNS}/{rows}", 1, round(seconds * 1e9))
            # A time, not a sum: what is added brings it to now.
            self._figures.add(f"{version}/{_LAST}", 0, now - self._last.get(version, 0))
            self._last[version] = now

    def request(self, card: ModelCard, answered: bool, seconds: float, queued: float) -> None:
        """The end of a request: how long it took in all, and how much of that it waited for its first run."""
        version = f"{card.name}/{card.version}"
        with self._lock:
            self._figures.add(f"{version}/{_SUCCESS if answered else _FAIL}", 1, round(seconds * 1e9))
            if answered:
                self._figures.add(f"{version}/{_QUEUE}", 1, round(queued * 1e9))

    def documents(self, keys: Iterable[tuple[str, int]]) -> list[dict[str, object]]:
        """The protocol's entries for versions; latents are part of a run, encoding of the request's whole time."""
        with self._lock:
            pairs = self._figures.all()
        return [_document(pairs, name, version) for name, version in keys]


def _document(pairs: Pairs, name: str, version: int) -> dict[str, object]:
    place = f"{name}/{version}/"
    nothing = {"count": 0, "ns": 0}
    runs = {
        int(key.removeprefix(place + _RUNS + "/")): _sum(told)
        for key, told in pairs.items()
        if key.startswith(place + _RUNS + "/")
    }
    all_runs = {what: sum(spent[what] for spent in runs.values()) for what in nothing}
    return {
        "name": name,
        "version": str(version),
        "last_inference": max((when for _, when in pairs.get(place + _LAST, [])), default=0),
        "inference_count": sum(rows * spent["count"] for rows, spent in runs.items()),
        "execution_count": all_runs["count"],
        "inference_stats": {
            "success": _sum(pairs.get(place + _SUCCESS, [])),
            "fail": _sum(pairs.get(place + _FAIL, [])),
            "queue": _sum(pairs.get(place + _QUEUE, [])),
            "compute_input": nothing,
            "compute_infer": all_runs,
            "compute_output": nothing,
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": nothing,
                "compute_infer": spent,
                "compute_output": nothing,
            }
            for rows, spent in sorted(runs.items())
        ],
        "memory_usage": [],
    }


def _sum(told: Iterable[tuple[int, int]]) -> dict[str, int]:
    pairs = list(told)
    return {"count": sum(count for count, _ in pairs), "ns": sum(ns for _, ns in pairs)}
