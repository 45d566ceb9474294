"""Memory under mixed load: as the service asks the allocator to keep it, and as the C library does by itself.

    python -m benchmarks.memory                    # both sides at once, 10 minutes
    python -m benchmarks.memory --minutes 60

Each side is the service as it starts by default, with two models, under clients that ask for pictures of random
number, size and format, single images, data sets, and metrics, while uploads come in and the live version changes
every ten seconds. Memory is the resident size of all processes of a side; time matters little to it, so that both run
at once. Writes ``memory.json``, with every sample, and ``memory.md``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.serving import ROOT, free_port, memory_mb
from ganserve.repository import Repository

HERE = Path(__file__).parent
NAME, COLOUR = "mnist-projgan", "cifar10-projgan"
# What the environment says of malloc counts for more than the service; this says nothing.
SIDES: dict[str, dict[str, str]] = {"as served": {}, "the C library by itself": {"MALLOC_PERTURB_": "0"}}
EVERY_SECONDS = 10.0
FORMATS = ("png", "png", "png", "webp", "zip", "npz", "json")


def archive() -> bytes:
    """A small set of two classes."""
    content, noise = io.BytesIO(), np.random.default_rng(1)
    with zipfile.ZipFile(content, "w") as made:
        for index in range(60):
            picture = io.BytesIO()
            Image.fromarray(noise.integers(0, 255, (28, 28), np.uint8)).save(picture, "PNG")
            made.writestr(f"{index % 2}/{index}.png", picture.getvalue())
    return content.getvalue()


UPLOAD = archive()


def question(draw: random.Random) -> tuple[str, str, bytes | None, dict[str, str]]:
    """Method, path, body and headers of one request."""
    kind = draw.random()
    if kind < 0.75:
        asked: dict[str, Any] = {"n": draw.choice([1, 1, 1, 4, 16, 16, 64, 256, draw.randint(1, 300)])}
        asked |= {"format": draw.choice(FORMATS), "label": draw.randrange(10)}
        if draw.random() < 0.3:
            asked["model"] = COLOUR
        if draw.random() < 0.2 and asked["n"] <= 64:
            asked["scale"] = draw.choice([2, 3, 4])
        return "POST", "/generate", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    if kind < 0.85:
        place = f"/images/{NAME}/{draw.choice([4, 5])}/{draw.randrange(10)}/{draw.randrange(10**9)}.png"
        return "GET", place, None, {}
    if kind < 0.9:
        form = draw.choice(["tar", "zip", "npz", "parquet"])
        rows = f"seed={draw.randrange(10**6)}&n={draw.randint(100, 3000)}"
        return "GET", f"/datasets/synthetic?model={NAME}&{rows}&format={form}", None, {}
    if kind < 0.96:
        return "GET", draw.choice(["/metrics", "/models"]), None, {}
    told = {"Authorization": "Bearer benchmark", "Content-Type": "application/zip"}
    return "PUT", f"/datasets/set-{draw.randrange(10**6)}", UPLOAD, told


class Side:
    """A service and those who ask it, until ``end``."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        models = folder / "models"
        for name in (NAME, COLOUR):
            shutil.copytree(ROOT / "models" / name, models / name)
        self.repository = Repository(models)
        self.port = free_port()
        self.told: Counter[str] = Counter()
        self.samples: list[float] = []
        command = [sys.executable, "-m", "service", "--port", str(self.port), "--models", str(models)]
        command += ["--data", str(folder / "data"), "--default-model", NAME]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        clean |= {"GANSERVE_ADMIN_TOKEN": "benchmark", "PYTHONPATH": str(ROOT)} | environment
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=clean, cwd=ROOT, **quiet)  # type: ignore[call-overload]

    def ask(self, index: int, end: float) -> None:
        """One client."""
        draw = random.Random(index)
        while time.monotonic() < end:
            method, path, body, headers = question(draw)
            asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers, method=method)
            try:
                with urllib.request.urlopen(asked, timeout=120) as answer:
                    while answer.read(1 << 16):
                        pass
                    self.told[str(answer.status)] += 1
            except urllib.error.HTTPError as error:
                self.told[str(error.code)] += 1
            except OSError as error:
                self.told[type(error).__name__] += 1

    def ready(self) -> bool:
        """Whether it serves."""
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=2).close()
        except OSError:
            return False
        return True


def slope(samples: list[float]) -> float:
    """Theil and Sen's: the median of the slopes between all pairs, in MB a minute."""
    pairs = [(i, j) for j in range(len(samples)) for i in range(j)]
    return statistics.median((samples[j] - samples[i]) / (j - i) for i, j in pairs) * 60 / EVERY_SECONDS


def measure(minutes: float, clients: int) -> dict[str, Any]:
    """Samples of memory and counts of answers by side."""
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        sides = {name: Side(Path(folder) / str(index), more) for index, (name, more) in enumerate(SIDES.items())}
        try:
            while not all(side.ready() for side in sides.values()):
                time.sleep(0.2)
            end = time.monotonic() + minutes * 60
            asking = [threading.Thread(target=s.ask, args=(i, end)) for s in sides.values() for i in range(clients)]
            for thread in asking:
                thread.start()
            turn = 0
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(EVERY_SECONDS, left))
                turn += 1
                for side in sides.values():
                    side.samples.append(memory_mb(side.process.pid, "VmRSS"))
                    side.repository.promote(NAME, 4 + turn % 2)
            for thread in asking:
                thread.join()
        finally:
            for side in sides.values():
                side.process.terminate()
                side.process.wait(60)
    return {name: {"samples": side.samples, "answers": dict(sorted(side.told.items()))} for name, side in sides.items()}


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=4, help="of each side")
    options = parser.parse_args()
    record = measure(options.minutes, options.clients)
    (HERE / "memory.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [
        f"# Memory under mixed load\n\n{options.minutes:g} minutes, {options.clients} clients, {os.cpu_count()} cores; "
        "MB resident over all processes.\n",
        "| side | requests | first | after a third | last | largest | MB a minute in the second half | answers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, told in record.items():
        samples = told["samples"]
        figures = [samples[0], samples[len(samples) // 3], samples[-1], max(samples)]
        shown = " | ".join(f"{figure:.0f}" for figure in figures)
        answers = ", ".join(f"{count} of {status}" for status, count in told["answers"].items())
        count = sum(told["answers"].values())
        lines.append(f"| {name} | {count} | {shown} | {slope(samples[len(samples) // 2 :]):.1f} | {answers} |")
    lines.append("\nMade by `python -m benchmarks.memory`.")
    (HERE / "memory.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
