"""Metrics of several processes: each change is there for the others at once, whatever comes of its process."""

import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

# So many labels that the file grows meanwhile.
SCRIPT = """
import os, threading
from service.observe import metrics
def work():
    for _ in range(2_000):
        metrics.SWAPS.labels("digits").inc()
        metrics.ENCODE.observe(.02)
metrics.QUEUED.inc(3)
metrics.QUEUED.set(5)
metrics.QUEUED.inc()
metrics.QUEUED.dec(2)
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
for number in range(2_000):
    metrics.SWAPS.labels(f"other-{number}").inc(2)
[thread.join() for thread in threads]
os.kill(os.getpid(), 9)
"""


def test_all_that_two_processes_counted_is_read_though_they_were_killed(tmp_path: Path) -> None:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    running = [subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment) for _ in range(2)]
    assert [process.wait(timeout=60) for process in running] == [-9, -9]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))  # type: ignore[no-untyped-call]
    samples = [sample for family in registry.collect() for sample in family.samples]
    swaps = {sample.labels["model"]: sample.value for sample in samples if sample.name == "ganserve_swaps_total"}
    assert swaps == {"digits": 16_000.0} | {f"other-{number}": 4.0 for number in range(2_000)}
    rest = {sample.name: sample.value for sample in samples if not sample.labels}
    assert rest["ganserve_encode_seconds_count"] == 16_000
    assert rest["ganserve_queued_images"] == 8
