"""What the retraining queue costs, on SQLite and on PostgreSQL: ``python benchmarks/jobs.py``.

Writes ``benchmarks/jobs.md``: post-to-start delay, the cost of telling progress as a share of training time,
idle CPU of a worker and of a service's queue handle, and the time until a dead worker's job is taken over.
Training is the tests' stub: the queue alone is measured. PostgreSQL is left out where none is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

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


def idle(site: Any, process: int, seconds: float) -> tuple[float, float]:
    """Shares of a core of an idle worker, and of a service that reads one page a second."""
    worker, mine, begun = cpu_seconds(process), time.process_time(), time.monotonic()
    while time.monotonic() - begun < seconds:
        site.store.page(limit=20)
        time.sleep(1)
    took = time.monotonic() - begun
    return (cpu_seconds(process) - worker) / took, (time.process_time() - mine) / took


def progress_cost(site: Any, process: int, seconds: float) -> float:
    """CPU of a worker whose job tells progress all the time, idle CPU included, as a share of the time."""
    site.behave(step_seconds=0.02)
    job = site.submit(images=10_000_000)
    site.until(lambda: (site.store.get(job.id).progress or {}).get("images"))
    before, begun = cpu_seconds(process), time.monotonic()
    time.sleep(seconds)
    share = (cpu_seconds(process) - before) / (time.monotonic() - begun)
    site.store.cancel(job.id)
    site.behave()
    return share


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
        worker = site.worker("bench")
        site.until(lambda: site.store.workers())
        site.end(site.submit(images=10))
        delay = start_delay(site, jobs)
        idle_worker, idle_service = idle(site, worker.pid, seconds)
        return [
            delay,
            progress_cost(site, worker.pid, seconds),
            idle_worker,
            idle_service,
            take_over(site, worker),
        ]
    finally:
        site.close()


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
    rows = [
        ("post to start, median (s)", "{:.2f}"),
        ("worker's CPU while it tells progress, idle share included (share of training time)", "{:.2%}"),
        ("idle worker (share of a core)", "{:.2%}"),
        ("service reading one page a second (share of a core)", "{:.2%}"),
        ("take-over of a killed worker's job, 5 s of it silence (s)", "{:.1f}"),
    ]
    lines = [
        "# The retraining queue",
        "",
        f"`python benchmarks/jobs.py`, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()};"
        f" load average at the end {os.getloadavg()[0]:.1f}.",
        "",
        f"| | {' | '.join(columns)} |",
        "|---|" + "---|" * len(columns),
    ]
    for index, (name, form) in enumerate(rows):
        lines.append(f"| {name} | " + " | ".join(form.format(values[index]) for values in columns.values()) + " |")
    (HERE / "jobs.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
