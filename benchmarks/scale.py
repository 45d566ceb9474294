"""How many of what for 10, 1,000 and 100,000 images a second: a small simulation over figures that were measured.

    python -m benchmarks.scale                          # writes scale.json and scale.md
    python -m benchmarks.scale --replica-cores 8 --price 0.0004

What a core answers a second, and what a process holds, are those of ``serving.json``; everything else is simulated:

- a cache before the service, which keeps the least recently asked out, under requests whose addresses follow Zipf's law
  (the r-th most wanted address is asked for in proportion to 1/r**s);
- replicas of several cores, requests at random moments (Poisson), each sent to the emptier of two replicas drawn at
  random (Mitzenmacher 2001), served first come first served, refused beyond the bound of the queue;
- readers of an object store, each asking for every model's pointer and for new names at the service's own intervals.

The least replicas that refuse nothing and keep the 99th percentile under the target are found by trying.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ganserve.bucket import PAUSE_SECONDS, SELDOM_SECONDS

HERE = Path(__file__).parent
RATES = (10, 1_000, 100_000)
SIZES = {1: "n1c32", 16: "n16c8"}
MONTH_SECONDS = 30 * 86_400
LARGEST_FLEET = 1 << 14


@dataclass(frozen=True)
class Outcome:
    """What so many replicas do.

    Attributes:
        busy: mean share of the cores that work.
        p50, p99: seconds from the request to its whole answer, network apart.
        refused: share of requests that found the queue full.
    """

    replicas: int
    busy: float
    p50: float
    p99: float
    refused: float


def hits(addresses: int, kept: int, exponent: float, requests: int, seed: int) -> float:
    """The share of requests that a cache of ``kept`` addresses answers, once it is full."""
    weights = np.arange(1, addresses + 1, dtype=np.float64) ** -exponent
    drawn = np.random.default_rng(seed).choice(addresses, 2 * requests, p=weights / weights.sum())
    cache: OrderedDict[int, None] = OrderedDict()
    found = 0
    for index, address in enumerate(drawn.tolist()):
        if address in cache:
            cache.move_to_end(address)
            found += index >= requests
        else:
            cache[address] = None
            if len(cache) > kept:
                cache.popitem(last=False)
    return found / requests


def serve(rate: float, replicas: int, cores: int, seconds: float, bound: int, requests: int, seed: int) -> Outcome:
    """``requests`` requests at ``rate`` a second, each of ``seconds`` of a core, on replicas of so many cores."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / rate, requests)).tolist()
    pairs = random.integers(0, replicas, (requests, 2)).tolist()
    free = [[0.0] * cores for _ in range(replicas)]
    under_way: list[list[float]] = [[] for _ in range(replicas)]
    waits, refused = [], 0
    for now, (one, other) in zip(arrivals, pairs, strict=True):
        for replica in (one, other):
            while under_way[replica] and under_way[replica][0] <= now:
                heapq.heappop(under_way[replica])
        chosen = min(one, other, key=lambda replica: len(under_way[replica]))
        if len(under_way[chosen]) >= bound:
            refused += 1
            continue
        end = max(now, free[chosen][0]) + seconds
        heapq.heapreplace(free[chosen], end)
        heapq.heappush(under_way[chosen], end)
        waits.append(end - now)
    p50, p99 = np.quantile(waits, [0.5, 0.99]).tolist() if waits else (0.0, 0.0)
    busy = len(waits) * seconds / (arrivals[-1] * replicas * cores)
    return Outcome(replicas, busy, p50, p99, refused / requests)


def least(
    rate: float, cores: int, seconds: float, bound: int, target: float, busy: float, requests: int, seed: int
) -> Outcome:
    """The fewest replicas that refuse nothing, answer 99 of 100 requests within ``target`` seconds, and are no more
    than ``busy`` on average.

    Raises:
        ValueError: the answer alone takes longer than that.
    """
    if seconds > target:
        raise ValueError(f"one request takes {seconds:.3f} s of a core, more than the target of {target} s")

    def enough(outcome: Outcome) -> bool:
        return outcome.refused == 0 and outcome.p99 <= target and outcome.busy <= busy

    high = 1
    while not enough(outcome := serve(rate, high, cores, seconds, bound, requests, seed)) and high < LARGEST_FLEET:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        tried = serve(rate, middle, cores, seconds, bound, requests, seed)
        if enough(tried):
            high, outcome = middle, tried
        else:
            low = middle
    return outcome


def polls(readers: int, models: int, pointer_seconds: float, names_seconds: float) -> float:
    """Requests a month of processes that follow a store."""
    return readers * (models / pointer_seconds + 1 / names_seconds) * MONTH_SECONDS


def measured() -> dict[int, dict[str, float]]:
    """Seconds of a core of one request, and MiB of a process, by images a request, as shipped."""
    rows = json.loads((HERE / "serving.json").read_text())["rows"]
    found = {}
    for n, case in SIZES.items():
        row = next(row for row in rows if row["side"] == "ganserve" and row["case"] == case)
        cores = row.get("cores", 2)
        found[n] = {"seconds": cores / row["requests_per_second"], "memory_mb": row["memory_mb"] / cores}
    return found


def plan(options: argparse.Namespace) -> dict[str, Any]:
    """Every row of the table, and what it was made from."""
    figures, cores = measured(), options.replica_cores
    share = hits(options.addresses, options.kept, options.exponent, options.requests, options.seed)
    rows = []
    for rate in RATES:
        for n, figure in figures.items():
            for cached in (0.0, share):
                asked = rate / n * (1 - cached)
                bound = max(1, options.queue // n)
                outcome = least(
                    asked,
                    cores,
                    figure["seconds"],
                    bound,
                    options.target,
                    options.busy,
                    options.requests,
                    options.seed,
                )
                rows.append(
                    {
                        "images_per_second": rate,
                        "n": n,
                        "cached": cached,
                        "requests_per_second": asked,
                        "cores": outcome.replicas * cores,
                        "memory_gib": outcome.replicas * cores * figure["memory_mb"] / 1024,
                        **asdict(outcome),
                    }
                )
    readers = max(row["replicas"] for row in rows) * cores
    monthly = polls(readers, options.models, PAUSE_SECONDS, SELDOM_SECONDS)
    return {
        "options": {name: value for name, value in vars(options).items() if name != "out"},
        "measured": figures,
        "hits": share,
        "rows": rows,
        "store": {"readers": readers, "requests_a_month": monthly, "bill": monthly / 1000 * options.price},
    }


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    options, store = result["options"], result["store"]
    lines = [
        "# Scale, by simulation",
        "",
        f"Replicas of {options['replica_cores']} cores, each core as fast as `serving.json` measured it; the fewest "
        f"that refuse nothing, answer 99 of 100 requests within {options['target']} s and are at most "
        f"{options['busy']:.0%} busy, over {options['requests']:,} requests. The cache keeps {options['kept']:,} of "
        f"{options['addresses']:,} addresses, asked for by Zipf's law with exponent {options['exponent']}: it answers "
        f"{result['hits']:.0%}. Made by `python -m benchmarks.scale`.",
        "",
        "| images/s | a request | by the cache | requests/s left | replicas | cores | busy | p50, s | p99, s | GiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['images_per_second']:,} | {row['n']} | {row['cached']:.0%} | {row['requests_per_second']:,.1f} | "
        f"{row['replicas']} | {row['cores']} | {row['busy']:.0%} | {row['p50']:.4f} | {row['p99']:.4f} | "
        f"{row['memory_gib']:.1f} |"
        for row in result["rows"]
    ]
    lines += [
        "",
        f"{store['readers']:,} processes that follow a store with {options['models']} models ask it "
        f"{store['requests_a_month']:,.0f} times a month: {store['bill']:,.0f} USD where a thousand cost "
        f"{options['price']} USD.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Simulate, and write both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--replica-cores", type=int, default=4, help="cores of a replica, one process each")
    add("--target", type=float, default=0.25, help="seconds that 99 of 100 requests may take")
    add("--busy", type=float, default=0.7, help="share of the cores that may work on average")
    add("--queue", type=int, default=8192, help="images that may wait in a replica")
    add("--addresses", type=int, default=1_000_000, help="addresses that are asked for at all")
    add("--kept", type=int, default=100_000, help="addresses that the cache keeps")
    add("--exponent", type=float, default=0.9, help="of Zipf's law")
    add("--models", type=int, default=10, help="models in the store")
    add("--price", type=float, default=0.0004, help="USD for a thousand reads of the store")
    add("--requests", type=int, default=200_000, help="requests of each simulation")
    add("--seed", type=int, default=0, help="of all draws")
    add("--out", type=Path, default=HERE, help="folder of scale.json and scale.md")
    options = parser.parse_args()
    result = plan(options)
    (options.out / "scale.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "scale.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
