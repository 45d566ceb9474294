"""What the retraining queue costs, on SQLite and on PostgreSQL: ``python benchmarks/jobs.py``.

Writes ``benchmarks/jobs.md`` and ``jobs.json``: post-to-start delay, the cost of telling progress as a share of
training time, idle CPU of a worker and of the service, and the time until a dead worker's job is taken over. Training
is the tests' stub: the queue alone is measured. It tells 2.5 log lines a second, which is more than a real one on a CPU
does (a line each 50 steps), and a sample sheet each five. PostgreSQL is left out where none is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

STEP = 0.4
HERE = Path(__file__).parent
FAULTS = HERE.parent / "tests" / "faults"
sys.path.insert(0, str(HERE.parent))


def harness() -> ModuleType:
    """The fault tests' processes and servers."""
    spec = importlib.util.spec_from_file_location("fault_harness", FAULTS / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cpu_seconds(process: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_delay(site: Any, jobs: int) -> float:
    """Median seconds from a post's answer to the job's start, with an idle worker."""
    delays = []
    for _ in range(jobs):
        job = site.submit(images=10)
        begun = time.monotonic()
        site.until(lambda job=job: site.store.get(job.id).state != "queued")
        delays.append(time.monotonic() - begun)
        site.end(job)
    return statistics.median(delays)


def share(process: int, seconds: float) -> float:
    """CPU of a process over so many seconds, as a share of one core."""
    before, begun = cpu_seconds(process), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(process) - before) / (time.monotonic() - begun)


def while_training(site: Any, process: int, seconds: float, **behaviour: float) -> float:
    """The worker's share of a core beside a training that behaves so."""
    site.behave(**behaviour)
    job = site.submit(images=10_000_000)
    checkpoints = site.data / "runs" / job.id / "attempt-1" / "checkpoints"
    site.until(lambda: checkpoints.is_dir() and any(checkpoints.iterdir()))
    found = share(process, seconds)
    site.store.cancel(job.id)
    site.until(lambda: site.store.get(job.id).state == "cancelled")
    site.behave()
    return found


def take_over(site: Any, process: Any) -> float:
    """Seconds from kill -9 until another worker has the job; workers wait 5 s for a silent one."""
    site.behave(step_seconds=0.05)
    job = site.submit(images=100_000)
    site.until(lambda: site.store.get(job.id).state == "running")
    site.worker("other")
    site.until(lambda: "other" in site.store.workers())
    process.kill()
    begun = time.monotonic()
    site.until(lambda: site.store.get(job.id).worker == "other", 60)
    took = time.monotonic() - begun
    site.store.cancel(job.id)
    return took


def measure(site: Any, seconds: float, jobs: int) -> list[float]:
    """All figures of one database."""
    try:
        worker, service = site.worker("bench"), site.service()
        site.until(lambda: site.store.workers())
        # The service opens its queue at the first call.
        service.client.get("/jobs").raise_for_status()
        site.end(site.submit(images=10))
        delay = start_delay(site, jobs)
        with ThreadPoolExecutor(2) as pool:
            idle = list(pool.map(lambda pid: share(pid, seconds), (worker.pid, service.process.pid)))
        service.end(signal.SIGTERM)
        silent = while_training(site, worker.pid, seconds, step_seconds=STEP, silent=1)
        told = while_training(site, worker.pid, seconds, step_seconds=STEP)
        often = while_training(site, worker.pid, seconds, step_seconds=STEP / 20)
        return [delay, max(0.0, told - silent), told, often, *idle, take_over(site, worker)]
    finally:
        site.close()


ROWS = (
    ("post_to_start_seconds", "post to start, median (s)", "{:.2f}"),
    (
        "progress_share",
        f"telling progress, {1 / STEP:.1f} log lines/s: worker's CPU above that of a silent training",
        "{:.2%}",
    ),
    ("worker_share", f"the same worker's CPU in all, {1 / STEP:.1f} log lines/s", "{:.2%}"),
    ("worker_share_often", f"the same worker's CPU in all, {20 / STEP:.0f} log lines/s", "{:.2%}"),
    ("idle_worker_share", "idle worker", "{:.2%}"),
    ("idle_service_share", "idle service", "{:.2%}"),
    ("take_over_seconds", "take-over of a killed worker's job, 5 s of it silence (s)", "{:.1f}"),
)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each CPU measurement")
    parser.add_argument("--jobs", type=int, default=5, help="jobs for the start delay")
    options = parser.parse_args()
    tools = harness()
    columns: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="ganserve-jobs-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "sqlite").mkdir()
        site = tools.Site(root / "sqlite", f"sqlite:///{root}/sqlite/jobs.sqlite")
        columns["SQLite"] = measure(site, options.seconds, options.jobs)
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if binaries:
            server = tools.Postgres(root / "pg", binaries[-1].parent)
            try:
                (root / "postgres").mkdir()
                site = tools.Site(root / "postgres", server.database())
                columns["PostgreSQL"] = measure(site, options.seconds, options.jobs)
            finally:
                server.stop()
    load = round(os.getloadavg()[0], 1)
    lines = [
        "# The retraining queue",
        "",
        f"`python benchmarks/jobs.py`, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()};"
        f" load average at the end {load}.",
        "Shares are of one core.",
        "",
        f"| | {' | '.join(columns)} |",
        "|---|" + "---|" * len(columns),
    ]
    for index, (_, name, form) in enumerate(ROWS):
        lines.append(f"| {name} | " + " | ".join(form.format(values[index]) for values in columns.values()) + " |")
    (HERE / "jobs.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    figures = {
        column: {key: round(value, 5) for (key, _, _), value in zip(ROWS, values, strict=True)}
        for column, values in columns.items()
    }
    told = {"cores": os.cpu_count(), "load_at_the_end": load, "cpu_seconds_each": options.seconds, **figures}
    (HERE / "jobs.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
