"""What it costs and brings that a training's threads sleep where they wait for each other.

    python -m benchmarks.barriers

A job's training runs with ``OMP_WAIT_POLICY=PASSIVE`` (``training/retrain/children.py``). Here the same training runs
with it, with libgomp's default (its threads spin at barriers for a while) and with one thread, on a quiet machine and
beside a service under load, in alternating rounds. Seconds by the clock, of CPU, and what the service answers
meanwhile; medians go to ``barriers.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import CASES, ROOT, load, served
from training.retrain.children import AT_BARRIERS

HERE = Path(__file__).parent
MODEL = ROOT / "models" / "mnist-projgan" / "5" / "model.onnx"
LOAD = "n16c8"
# The name of a side, its threads, and what its environment has.
SIDES: tuple[tuple[str, int, dict[str, str]], ...] = (
    ("one thread", 1, {}),
    ("two threads, spinning", 2, {}),
    ("two threads, sleeping", 2, AT_BARRIERS),
)


@dataclass(frozen=True)
class Turn:
    """One training: seconds by the clock and of CPU, and images/s of the service beside it."""

    wall: float
    cpu: float
    served: float = 0.0


def train(images: int, threads: int, policy: dict[str, str]) -> tuple[float, float]:
    """Seconds by the clock and of CPU of one training, its start included."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "training.train", "--recipe", "cdcgan", "--dataset", "digits", "--size", "28"]
        command += ["--images", str(images), "--threads", str(threads), "--run", f"{scratch}/run", "--events"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")} | policy
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return time.monotonic() - begun, cpu


def beside(port: int, images: int, threads: int, policy: dict[str, str]) -> Turn:
    """The same while clients of a service never pause."""
    ended, rates = threading.Event(), []

    def ask() -> None:
        while not ended.is_set():
            told = load(port, LOAD, 1.0)
            rates.append(CASES[LOAD][0] * told["requests"] / told["seconds"])

    client = threading.Thread(target=ask)
    client.start()
    try:
        wall, _ = train(images, threads, policy)
    finally:
        ended.set()
        client.join()
    return Turn(wall, 0.0, statistics.median(rates))


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=4000)
    options = parser.parse_args()
    quiet: dict[str, list[Turn]] = defaultdict(list)
    busy: dict[str, list[Turn]] = defaultdict(list)
    with served("ganserve", MODEL) as (port, _, _):
        for number in range(options.rounds):
            for name, threads, policy in SIDES[:: 1 if number % 2 else -1]:
                quiet[name].append(Turn(*train(options.images, threads, policy)))
                busy[name].append(beside(port, options.images, threads, policy))
                print(name, quiet[name][-1], busy[name][-1], flush=True)
    rows = []
    for name, _, _ in SIDES:
        told = [
            statistics.median(turn.wall for turn in quiet[name]),
            statistics.median(turn.cpu for turn in quiet[name]),
        ]
        told += [
            statistics.median(turn.wall for turn in busy[name]),
            statistics.median(turn.served for turn in busy[name]),
        ]
        rows.append(f"| {name} | {told[0]:.1f} | {told[1]:.1f} | {told[2]:.1f} | {told[3]:,.0f} |")
    head = "| | quiet, s | of CPU, s | beside a busy service, s | its images/s |\n|---|---|---|---|---|"
    (HERE / "barriers.md").write_text(
        f"# A training's threads at their barriers\n\n{os.cpu_count()} cores, {platform.machine()}; `cdcgan` on "
        f"{options.images:,} digits of 28 pixels, its start included; medians of {options.rounds} rounds in turn. The "
        f"load: {LOAD}, without a pause, by a client on the same cores.\n\nMade by `python -m benchmarks.barriers`.\n\n"
        + "\n".join([head, *rows])
        + "\n"
    )


if __name__ == "__main__":
    main()
