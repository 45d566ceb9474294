"""A soak: mixed requests while the live version is swapped every 10 s. No error, no growth.

    python -m benchmarks.soak                      # 30 minutes
    python -m benchmarks.soak --minutes 4

Writes ``soak.md``; exit status 1 where an answer was wrong or memory grew by more than 10 % after the first fifth.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from benchmarks.serving import ROOT, memory_mb, served
from ganserve.repository import Repository

HERE = Path(__file__).parent
NAME = "mnist-projgan"
ASKED = (
    {"label": 3, "n": 1},
    {"n": 16, "seed": 7},
    {"label": [1, 2], "n": 64, "format": "npz"},
    {"n": 9, "format": "webp"},
    {"n": 12, "format": "zip"},
    {"n": 4, "format": "json"},
    {"n": 256, "scale": 2},
)


def client(port: int, index: int, end: float, told: Counter[str]) -> None:
    """One kind of request after the other until ``end``."""
    turn = index
    while time.monotonic() < end:
        body = json.dumps(ASKED[turn % len(ASKED)]).encode()
        turn += 1
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/generate", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                answer.read()
                told[f"{answer.status} of version {answer.headers['X-Model-Version']}"] += 1
        except urllib.error.HTTPError as error:
            told[str(error.code)] += 1
        except OSError as error:
            told[type(error).__name__] += 1


def main() -> int:
    """Serve a copy of the model with two versions, swap, ask, watch the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    told: Counter[str] = Counter()
    memory: list[float] = []
    swaps = 0
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        shutil.copytree(ROOT / "models" / NAME, models / NAME)
        repository = Repository(models)
        first = models / NAME / "1"
        content, samples = (first / "model.onnx").read_bytes(), (first / "samples.png").read_bytes()
        repository.publish(repository.card(NAME, 1), content, samples)
        with served("ganserve", first / "model.onnx") as (port, pid, _):
            end = time.monotonic() + options.minutes * 60
            threads = [
                threading.Thread(target=client, args=(port, index, end, told)) for index in range(options.clients)
            ]
            for thread in threads:
                thread.start()
            while time.monotonic() < end:
                time.sleep(min(10.0, max(0.0, end - time.monotonic())))
                memory.append(memory_mb(pid, "VmRSS"))
                swaps += 1
                repository.promote(NAME, 1 + swaps % 2)
            for thread in threads:
                thread.join()
    steady = memory[len(memory) // 5]
    grown = memory[-1] / steady - 1
    errors = sum(count for status, count in told.items() if not status.startswith("200"))
    lines = [f"# Soak\n\n{options.minutes:g} minutes, {options.clients} clients, {os.cpu_count()} cores.\n"]
    lines.append(f"{sum(told.values())} requests, {errors} errors, {swaps} swaps: {dict(sorted(told.items()))}.\n")
    lines.append(f"Memory after a fifth of the time {steady:.0f} MB, at the end {memory[-1]:.0f} MB ({grown:+.1%}), ")
    lines.append(f"largest {max(memory):.0f} MB. Made by `python -m benchmarks.soak`.")
    (HERE / "soak.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return int(errors > 0 or grown > 0.1)


if __name__ == "__main__":
    raise SystemExit(main())
