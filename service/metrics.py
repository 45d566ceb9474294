"""What Prometheus reads at ``/metrics``, right with several processes too (``PROMETHEUS_MULTIPROC_DIR``)."""

from __future__ import annotations

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST
MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

REQUESTS = Counter("ganserve_requests_total", "Requests answered", ["route", "method", "status"])
SECONDS = Histogram("ganserve_request_seconds", "Time to the whole answer", ["route"], buckets=_SECONDS)
IMAGES = Counter("ganserve_images_total", "Images generated", ["model", "version"])
RUNS = Histogram("ganserve_run_rows", "Images in one run", ["model"], buckets=_ROWS)
RUN_SECONDS = Counter("ganserve_run_seconds_total", "Time in runs, over all lanes", ["model"])
RUN_FAILURES = Counter("ganserve_run_failures_total", "Runs that failed", ["model"])
DROPPED = Counter("ganserve_dropped_images_total", "Images never generated", ["reason"])
QUEUED = Gauge("ganserve_queued_images", "Images waiting", multiprocess_mode="livesum")
SWAPS = Counter("ganserve_swaps_total", "Changes of a live version", ["model"])
LIVE = Gauge("ganserve_live_version", "Live version", ["model"], multiprocess_mode="livemax")
LOADED = Gauge("ganserve_loaded_models", "Model versions in memory", multiprocess_mode="livesum")
LEFT_OUT = Gauge("ganserve_left_out_models", "Models that cannot be served", multiprocess_mode="livemax")
PROVIDER = Gauge(
    "ganserve_provider_info", "Execution provider in use", ["provider"], multiprocess_mode="livemax"
)


def exposition() -> bytes:
    """Everything, of all processes."""
    registry = REGISTRY
    if MULTIPROCESS_VARIABLE in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
