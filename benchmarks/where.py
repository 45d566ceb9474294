"""Where the CPU time of a request goes, inside the service: microseconds a request of each part.

    python -m benchmarks.where

The application is called in this process, without sockets, with one lane. The event loop's part is the CPU time of its
thread: routing, parsing, planning, queueing, answering. The rest is the lane's: latents and network, and PNG, which are
timed alone as well. CPU time of threads is little disturbed by other work. Writes ``where.json`` and ``where.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks.serving import ROOT
from ganserve import encode, png
from ganserve.latents import consecutive, latents
from ganserve.repository import Repository
from ganserve.settings import Settings
from service.app import create_app
from service.inference.engine import OnnxEngine

HERE = Path(__file__).parent
# images a request: requests at once
CASES = {1: 32, 16: 8}


def alone(work: Callable[[], Any], times: int) -> float:
    """Microseconds of CPU of one call."""
    work()
    begun = time.thread_time()
    for _ in range(times):
        work()
    return (time.thread_time() - begun) / times * 1e6


def parts(engine: OnnxEngine, n: int) -> dict[str, float]:
    """The work that no service can spare."""
    card, times = engine.card, 400 // n
    seeds, label = consecutive(5, n), np.full(n, 3, np.int64)
    noise = latents(card.latent_recipe, seeds, card.z)
    # What a lane runs at once: requests share a chunk of up to 32 rows.
    chunk = np.repeat(noise, 32 // n, axis=0)
    images = engine.run(noise, label)
    return {
        "network": alone(lambda: engine.run(chunk, np.full(32, 3, np.int64)), times) / (32 // n),
        "latents": alone(lambda: latents(card.latent_recipe, np.repeat(seeds, 32 // n), card.z), times) / (32 // n),
        "png": alone(lambda: png.encode(encode.grid(images)), times),
    }


async def requests(app: Any, n: int, clients: int, count: int) -> dict[str, float]:
    """Microseconds a request: of the event loop's thread, and of all others."""
    left = count
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "scheme": "http",
        "root_path": "",
        "method": "POST",
        "path": "/generate",
        "raw_path": b"/generate",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            body = b'{"label":3,"n":%d,"seed":%d}' % (n, left * 1000)
            told: list[Any] = []

            bodies = [body]

            async def receive(bodies: list[bytes] = bodies) -> dict[str, Any]:
                if not bodies:
                    # The client stays, and says no more.
                    await asyncio.get_running_loop().create_future()
                return {"type": "http.request", "body": bodies.pop(), "more_body": False}

            async def send(message: Any, told: list[Any] = told) -> None:
                told.append(message)

            await app(dict(scope), receive, send)
            if told[0]["status"] != 200:
                raise RuntimeError(f"answered with {told[0]['status']}")

    process, thread = time.process_time(), time.thread_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    thread = time.thread_time() - thread
    process = time.process_time() - process
    return {"loop": thread / count * 1e6, "others": (process - thread) / count * 1e6}


async def measure(model: str, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of every part."""
    found: dict[int, list[dict[str, float]]] = {n: [] for n in CASES}
    engine = OnnxEngine.open(*Repository(ROOT / "models").read(model, 1))
    with tempfile.TemporaryDirectory() as data:
        settings = Settings(models=ROOT / "models", data=Path(data), default_model=model, lanes=1)
        app = create_app(settings)
        async with app.app.router.lifespan_context(app):
            for n, clients in CASES.items():
                await requests(app, n, clients, 64 // n)
            for _ in range(rounds):
                for n, clients in CASES.items():
                    told = parts(engine, n)
                    found[n].append(told | await requests(app, n, clients, 640 // n))
    return {str(n): {key: statistics.median(r[key] for r in rows) for key in rows[0]} for n, rows in found.items()}


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mnist-projgan")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    record = uvloop.run(measure(options.model, options.rounds))
    (HERE / "where.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [
        f"# Where the CPU time of a request goes\n\n{options.model}, one lane, without sockets, medians of "
        f"{options.rounds} rounds; microseconds of CPU a request.\n",
        "| images a request | at once | network | latents | PNG | lane's bookkeeping | event loop | all | "
        "network's share |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for n, row in record.items():
        whole = row["loop"] + row["others"]
        rest = row["others"] - row["network"] - row["latents"] - row["png"]
        cells = [row["network"], row["latents"], row["png"], rest, row["loop"], whole]
        figures = " | ".join(f"{cell:.0f}" for cell in cells)
        lines.append(f"| {n} | {CASES[int(n)]} | {figures} | {row['network'] / whole:.2f} |")
    lines.append("\nMade by `python -m benchmarks.where`.")
    (HERE / "where.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
