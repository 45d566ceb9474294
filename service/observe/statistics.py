"""What the runs and requests of each version have taken since this process started."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from ganserve.card import ModelCard


@dataclass
class Duration:
    """How often something happened, and for how long in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Once more."""
        self.count += 1
        self.ns += round(seconds * 1e9)

    def document(self) -> dict[str, int]:
        """As the protocol writes it."""
        return {"count": self.count, "ns": self.ns}


@dataclass
class _Version:
    last: int = 0
    images: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    runs: Duration = field(default_factory=Duration)
    batches: dict[int, Duration] = field(default_factory=dict)


class Statistics:
    """Filled by the batcher from its threads, read by ``/v2/models/stats``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[tuple[str, int], _Version] = {}

    def run(self, card: ModelCard, rows: int, seconds: float) -> None:
        """A run of the network over so many rows."""
        with self._lock:
            version = self._version(card)
            version.last = time.time_ns() // 1_000_000
            version.images += rows
            version.runs.add(seconds)
            version.batches.setdefault(rows, Duration()).add(seconds)

    def request(self, card: ModelCard, answered: bool, seconds: float, queued: float) -> None:
        """The end of a request: how long it took in all, and how much of that it waited for its first run."""
        with self._lock:
            version = self._version(card)
            (version.success if answered else version.fail).add(seconds)
            if answered:
                version.queue.add(queued)

    def document(self, name: str, version: int) -> dict[str, object]:
        """The protocol's entry for a version; latents are part of a run, encoding of the request's whole time."""
        with self._lock:
            found = self._versions.get((name, version), _Version())
            nothing = Duration().document()
            return {
                "name": name,
                "version": str(version),
                "last_inference": found.last,
                "inference_count": found.images,
                "execution_count": found.runs.count,
                "inference_stats": {
                    "success": found.success.document(),
                    "fail": found.fail.document(),
                    "queue": found.queue.document(),
                    "compute_input": nothing,
                    "compute_infer": found.runs.document(),
                    "compute_output": nothing,
                    "cache_hit": nothing,
                    "cache_miss": nothing,
                },
                "batch_stats": [
                    {
                        "batch_size": rows,
                        "compute_input": nothing,
                        "compute_infer": spent.document(),
                        "compute_output": nothing,
                    }
                    for rows, spent in sorted(found.batches.items())
                ],
                "memory_usage": [],
            }

    def _version(self, card: ModelCard) -> _Version:
        return self._versions.setdefault((card.name, card.version), _Version())
