"""What it costs a training that its checkpoints go into an object store: ``python -m benchmarks.checkpoints``.

Writes ``benchmarks/checkpoints.md``. The same training, in a process of its own with one thread, with a worker's mirror
beside it and without, in turns: its CPU and wall time, and what the mirror itself took. The store is the tests' S3
server on this machine, whose own CPU is not counted. Checkpoints come with each twentieth of this short run, many times
as often as in a long one, which has one a minute.
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
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from ganserve.bucket import BucketStore
from ganserve.runs import StoredRuns
from tests import stores
from training.retrain.mirror import Mirror

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Turn:
    """One training: seconds of wall and CPU, of CPU beside it, checkpoints that went up, and bytes of the last one."""

    wall: float
    cpu: float
    beside: float
    checkpoints: int = 0
    size: int = 0


class Counting(StoredRuns):
    """Counts what goes up."""

    pushes = 0

    def push(self, *arguments: object) -> None:
        super().push(*arguments)  # type: ignore[arg-type]
        self.pushes += 1


def turn(images: int, runs: Counting | None) -> Turn:
    """Train once, with a mirror beside it if ``runs`` are given."""
    with tempfile.TemporaryDirectory() as scratch:
        run, job = Path(scratch) / "attempt-1", uuid.uuid4().hex
        command = [sys.executable, "-m", "training.train", "--recipe", "cgan", "--dataset", "digits", "--threads", "1"]
        command += ["--images", str(images), "--run", str(run), "--events"]
        mirror = None
        if runs is not None:
            runs.claim(job, 1)
            runs.pushes = 0
            mirror = Mirror(runs, f"runs/{job}/attempt-1", run)
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall = time.monotonic() - begun
        if mirror is not None:
            mirror.finish()
        after, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        sizes = [path.stat().st_size for path in run.glob("checkpoints/*.pt")]
        beside = after.ru_utime + after.ru_stime - own.ru_utime - own.ru_stime
        cpu = ended.ru_utime + ended.ru_stime - children.ru_utime - children.ru_stime
        return Turn(wall, cpu, beside, runs.pushes if runs is not None else 0, max(sizes))


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=1_000_000, help="length of a training")
    options = parser.parse_args()
    with stores.s3() as port:
        os.environ.update(stores.environment(port))
        runs = Counting(BucketStore(f"s3://{stores.BUCKET}/bench"))
        turn(options.images // 10, runs)
        pairs = [(turn(options.images, None), turn(options.images, runs)) for _ in range(options.rounds)]
    cpu = statistics.median(mirrored.cpu / plain.cpu for plain, mirrored in pairs) - 1
    wall = f"{statistics.median(mirrored.wall / plain.wall for plain, mirrored in pairs) - 1:+.2%}"
    if os.getloadavg()[0] > (os.cpu_count() or 1) + 1:
        wall = "not told: others were at work on this machine"
    each = statistics.median(m.beside / max(1, m.checkpoints) for _, m in pairs)
    count = statistics.median(m.checkpoints for _, m in pairs)
    lines = [
        "# Checkpoints into an object store",
        "",
        f"`python -m benchmarks.checkpoints`, {os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}; {options.rounds} pairs in turns, medians; load average at the end "
        f"{os.getloadavg()[0]:.1f}.",
        "",
        "| | |",
        "|---|---|",
        f"| training without, wall (s) | {statistics.median(p.wall for p, _ in pairs):.1f} |",
        f"| checkpoints put up, of {pairs[0][1].size / 2**20:.1f} MiB | {count:.0f} |",
        f"| CPU time of the training's process, with to without | {cpu:+.2%} |",
        f"| wall time of the training, with to without | {wall} |",
        f"| CPU time of the worker a checkpoint (s) | {each:.3f} |",
        f"| the same as a share of a core, at a checkpoint a minute | {each / 60:.3%} |",
    ]
    (HERE / "checkpoints.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
