"""What the batcher costs over raw runs of the same chunks: rows a second of each, and their ratio.

    python -m benchmarks.batcher

Both sides compute latents and run the network on one lane, 32 rows a run, in turns; the batcher's has requests of 16
rows in flight all the time, two to a chunk. Time is the CPU time of the whole process, so other work on the machine
disturbs it little, and what the event loop does for the batcher counts in full. `lane`: one process for all cores, a
thread runs the network; `event loop`: a process a core, which runs small requests itself. Exit status 1 where requests
of 16 cost more than 10 % over raw runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path

import numpy as np

from ganserve.latents import consecutive, latents
from ganserve.repository import Repository
from service.inference.batcher import Batcher
from service.inference.engine import OnnxEngine, Placement
from service.inference.rows import Rows

HERE = Path(__file__).parent
MOST = 0.10
CHUNK = 32


def raw(engine: OnnxEngine, chunks: int) -> float:
    """CPU seconds of ``chunks`` runs."""
    label = np.full(CHUNK, 3, np.int64)
    begun = time.process_time()
    for index in range(chunks):
        engine.run(latents(engine.card.latent_recipe, consecutive(index, CHUNK), engine.card.z), label)
    return time.process_time() - begun


async def batched(engine: OnnxEngine, chunks: int, rows: int, clients: int, inline: bool) -> float:
    """CPU seconds of the same rows as requests of ``rows`` each."""
    batcher = Batcher(lanes=1, limit=65536, total=65536, inline=inline)
    label = np.full(rows, 3, np.int64)
    # The event loop runs what is known to be quick.
    await batcher.generate(engine, Rows(consecutive(0, rows), label), len, timeout=60)
    left = chunks * CHUNK // rows

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await batcher.generate(engine, Rows(consecutive(left, rows), label), len, timeout=60)

    begun = time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    spent = time.process_time() - begun
    await asyncio.to_thread(batcher.close)
    return spent


def main() -> int:
    """Measure, write ``batcher.json`` and ``batcher.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=HERE.parent / "models")
    parser.add_argument("--model", default="mnist-projgan")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--chunks", type=int, default=40)
    options = parser.parse_args()
    repository = Repository(options.models)
    version = repository.live(options.model)
    assert version is not None
    engine = OnnxEngine.open(*repository.read(options.model, version), Placement(max_rows=CHUNK))
    sizes = {16: 8, 256: 2, 1: 64}
    kinds = [(place, rows) for rows in sizes for place in ("lane", "event loop") if rows <= CHUNK or place == "lane"]
    found: dict[str, list[float]] = {name: [] for name in ("raw", *(f"{place}, {rows}" for place, rows in kinds))}
    for _ in range(options.rounds):
        found["raw"].append(raw(engine, options.chunks))
        for place, rows in kinds:
            spent = asyncio.run(batched(engine, options.chunks, rows, sizes[rows], place == "event loop"))
            found[f"{place}, {rows}"].append(spent)
    middle = {name: statistics.median(values) / options.chunks / CHUNK * 1e6 for name, values in found.items()}
    costs = {name: middle[name] / middle["raw"] - 1 for name in middle if name != "raw"}
    (HERE / "batcher.json").write_text(json.dumps({"us_an_image": middle, "cost": costs}, indent=1) + "\n")
    lines = [
        f"# The batcher over raw runs\n\n{options.model} version {version}, CPU time, medians of {options.rounds} "
        f"rounds.\n\nRaw runs of {CHUNK}: {middle['raw']:.1f} us an image.\n"
    ]
    lines.append("| run by | rows a request | requests in flight | us an image | over raw |\n|---|---|---|---|---|")
    for place, n in kinds:
        name = f"{place}, {n}"
        lines.append(f"| {place} | {n} | {sizes[n]} | {middle[name]:.1f} | {costs[name]:+.1%} |")
    lines.append("\nMade by `python -m benchmarks.batcher`.")
    (HERE / "batcher.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return int(max(cost for name, cost in costs.items() if name.endswith(" 16")) > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
