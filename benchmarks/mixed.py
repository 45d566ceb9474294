"""Small requests beside large ones: two checkouts of this repository, several processes each, in alternating rounds.

    python -m benchmarks.mixed with=/path/to/one without=/path/to/other
    python -m benchmarks.mixed before=/path/to/one after=. --rounds 9 --seconds 3

Both services stand by all the time, and take turns case by case, in an order that turns round by round: small requests
alone, then the same beside clients who ask for 256 images a request and never pause. What the small ones get, and how
long they wait, is what a share of the cores can spoil. The client is wrk, and every request has a seed of its own.
Medians over the rounds go to ``mixed.json`` and ``mixed.md``; the ratio is the median of the rounds' own, as cores
change their speed from minute to minute.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.serving import free_port, load

HERE = Path(__file__).parent
LARGE = "n256c2"
SMALL = ("n1c32", "n16c1", "n16c8")
# More connections than processes: the load is theirs in even shares once they are all there.
SETTLE_SECONDS = 1.0


@contextmanager
def serving(checkout: Path, model: Path, processes: int) -> Iterator[int]:
    """A checkout's service in several processes; the port, once it is ready."""
    port = free_port()
    with tempfile.TemporaryDirectory() as data:
        environment = {
            **os.environ,
            "PYTHONPATH": str(checkout),
            "GANSERVE_PORT": str(port),
            "GANSERVE_MODELS": str(model.parents[2]),
            "GANSERVE_DEFAULT_MODEL": model.parents[1].name,
            "GANSERVE_DATA": data,
            "GANSERVE_ADMIN_TOKEN": "benchmark",
            "GANSERVE_WORKERS": str(processes),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            cwd=checkout,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1).close()
                    break
                except OSError:
                    if time.monotonic() > end or process.poll() is not None:
                        raise RuntimeError(f"the service of {checkout} does not start") from None
                    time.sleep(0.02)
            time.sleep(SETTLE_SECONDS)
            yield port
        finally:
            process.terminate()
            process.wait(60)


def alone(port: int, case: str, seconds: float) -> dict[str, float]:
    """What a case gets by itself: its rate, and percentiles in ms."""
    told = load(port, case, seconds)
    found = {"rate": told["requests"] / told["seconds"], "p50": told["p50"], "p99": told["p99"]}
    return {f"{case} {what}": value for what, value in found.items()}


def beside(port: int, case: str, seconds: float) -> dict[str, float]:
    """The same beside the large requests, and images a second of those."""
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(load, port, LARGE, seconds)
        found, other = alone(port, case, seconds), large.result()
    found[f"{case} images"] = 256 * other["requests"] / other["seconds"]
    return {name.replace(case, f"{case} beside {LARGE}"): value for name, value in found.items()}


MEASURES = [*((alone, case) for case in (*SMALL, LARGE)), *((beside, case) for case in SMALL)]


def table(rounds: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: a row a case, a column a side."""
    first, second = rounds
    lines = [f"| case | {first} | {second} | ratio | of rounds |", "|---|---|---|---|---|"]
    for name in rounds[first][0]:
        one, other = [found[name] for found in rounds[first]], [found[name] for found in rounds[second]]
        ratios = sorted(b / a for a, b in zip(one, other, strict=True))
        case, _, what = name.rpartition(" ")
        unit = {"rate": "requests/s", "images": "images/s of the large"}.get(what, f"{what} ms")
        lines.append(
            f"| {case}, {unit} | {statistics.median(one):.4g} | {statistics.median(other):.4g} | "
            f"{statistics.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure, write ``mixed.json`` and ``mixed.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sides", nargs=2, help="name=checkout")
    parser.add_argument("--model", type=Path, default=HERE.parent / "models" / "mnist-projgan" / "4" / "model.onnx")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    sides = {name: Path(path).resolve() for name, _, path in (side.partition("=") for side in options.sides)}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    # Of other work, which spoils what follows where it is much.
    loaded = os.getloadavg()[0]
    with ExitStack() as stack:
        ports = {
            name: stack.enter_context(serving(checkout, options.model.resolve(), options.processes))
            for name, checkout in sides.items()
        }
        for port in ports.values():
            load(port, "n1c32", 1)
        for index in range(options.rounds):
            for measured in rounds.values():
                measured.append({})
            for measure, case in MEASURES:
                for name in sorted(sides, reverse=bool(index % 2)):
                    rounds[name][-1] |= measure(ports[name], case, options.seconds)
    (HERE / "mixed.json").write_text(json.dumps(rounds) + "\n")
    told = table(rounds)
    head = (
        f"# Small requests beside large ones\n\n{os.cpu_count()} cores, {platform.machine()}; "
        f"{options.processes} processes; medians of {options.rounds} alternating rounds of {options.seconds:g} s; "
        f"the machine's load before them: {loaded:.1f}. Made by `python -m benchmarks.mixed`.\n\n"
    )
    (HERE / "mixed.md").write_text(head + told + "\n")
    print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
