"""What Prometheus reads at ``/metrics``, right with several processes too (``PROMETHEUS_MULTIPROC_DIR``)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from service.observe import series

CONTENT_TYPE = CONTENT_TYPE_LATEST
MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

if MULTIPROCESS_VARIABLE in os.environ:
    series.install()

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

REQUESTS = Counter("ganserve_requests_total", "Requests answered", ["route", "method", "status"])
SECONDS = Histogram("ganserve_request_seconds", "Time to the whole answer", ["route"], buckets=_SECONDS)
REJECTIONS = Counter("ganserve_rejections_total", "Requests refused or given up", ["reason"])
IMAGES = Counter("ganserve_images_total", "Images generated", ["model", "version"])
WAIT = Histogram(
    "ganserve_queue_seconds", "Wait of a request's first image for its run", ["model"], buckets=_SECONDS
)
ENCODE = Histogram("ganserve_encode_seconds", "Time to encode an answer", buckets=_SECONDS)
RUNS = Histogram("ganserve_run_rows", "Images in one run", ["model"], buckets=_ROWS)
RUN_SECONDS = Counter("ganserve_run_seconds_total", "Time in runs, over all lanes", ["model"])
RUN_FAILURES = Counter("ganserve_run_failures_total", "Runs that failed", ["model"])
DROPPED = Counter("ganserve_dropped_images_total", "Images never generated", ["reason"])
QUEUED = Gauge("ganserve_queued_images", "Images waiting", multiprocess_mode="livesum")
SWAPS = Counter("ganserve_swaps_total", "Changes of a live version", ["model"])
LIVE = Gauge("ganserve_live_version", "Live version", ["model"], multiprocess_mode="livemax")
LOADED = Gauge("ganserve_loaded_models", "Model versions in memory", multiprocess_mode="livesum")
LEFT_OUT = Gauge("ganserve_left_out_models", "Models that cannot be served", multiprocess_mode="livemax")
LEFT_OUT_WHY = Gauge(
    "ganserve_left_out_info", "1 while this cannot be served", ["model", "reason"], multiprocess_mode="livemax"
)
PROVIDER = Gauge(
    "ganserve_provider_info", "Execution provider in use", ["provider"], multiprocess_mode="livemax"
)


# What a refusal is counted as, by its status.
_REASONS = {
    400: "malformed",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    410: "gone",
    413: "too_large",
    422: "invalid",
    429: "overload",
    499: "client_gone",
    500: "failed",
    503: "unavailable",
    504: "deadline",
}


class Answered:
    """Requests of one route and method that were answered with one status: the series, looked up once."""

    def __init__(self, route: str, method: str, status: int) -> None:
        self._requests, self._seconds = REQUESTS.labels(route, method, str(status)), SECONDS.labels(route)
        self._refused = REJECTIONS.labels(_REASONS.get(status, "other")) if status >= 400 else None

    def count(self, seconds: float) -> None:
        """Count a request."""
        self._requests.inc()
        self._seconds.observe(seconds)
        if self._refused is not None:
            self._refused.inc()


# Routes are those of the application, and methods those of HTTP: few.
@lru_cache(maxsize=1024)
def answered(route: str, method: str, status: int) -> Answered:
    """Where requests that end so are counted."""
    return Answered(route, method, status)


def exposition(jobs: Mapping[str, int] | None = None, workers: int | None = None) -> bytes:
    """Everything, of all processes; with the queue of jobs, which they share, where it could be read."""
    registry = REGISTRY
    if folder := os.environ.get(MULTIPROCESS_VARIABLE):
        _forget_the_dead(Path(folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    shared = CollectorRegistry()
    shared.register(_Jobs(jobs, workers))
    return generate_latest(registry) + generate_latest(shared)


def _forget_the_dead(folder: Path) -> None:
    """Drop the gauges of processes that were killed: only those of the living add up. Counters stay."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*.db")}:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            mark_process_dead(int(pid))  # type: ignore[no-untyped-call]


class _Jobs(Collector):
    def __init__(self, jobs: Mapping[str, int] | None, workers: int | None) -> None:
        self.jobs, self.workers = jobs, workers

    def collect(self) -> Iterable[Metric]:
        if self.jobs is not None:
            states = GaugeMetricFamily("ganserve_jobs", "Retraining jobs, by state", labels=["state"])
            for state, count in self.jobs.items():
                states.add_metric([state], count)
            yield states
        if self.workers is not None:
            yield GaugeMetricFamily("ganserve_workers", "Training workers heard of lately", self.workers)
