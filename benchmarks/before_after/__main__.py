"""Is a version as fast as the one before it? Two checkouts in pairs, each pair measured right one after the other.

    python -m benchmarks.before_after BEFORE AFTER                            # everything, nine rounds
    python -m benchmarks.before_after BEFORE AFTER --cases "n16c8, 1 process" "projgan, 1 thread" --rounds 3 --seconds 2

In each round the version before takes its turn twice, as ``before`` and as ``again``, and the version after once; who
comes first changes from round to round. The ratio is the median over the rounds of what ``after`` did to the mean of
the two. The ratios of ``again`` to ``before`` are the spread of one and the same version on this machine: a case is
slower where ``after`` is below .97 and below nine tenths of them. Each side runs the modules of its own checkout in
processes of its own: the service under wrk with the models of BEFORE, and ``training.train`` on the digits, made
28 x 28. Adds to ``before_after.json`` and writes ``before_after.md``; exit status 1 where a case is slower.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.before_after.sides import SERVED, TRAINED, WHOLE, serve, training, whole_run
from benchmarks.unmoved.checkout import Checkout

HERE = Path(__file__).parent.parent
SIDES = ("before", "again", "after")
LEAST = 0.97
Rates = dict[str, float]


def cases() -> list[str]:
    """Names of all cases, in the table's order."""
    served = [f"{case}, {processes(workers)}" for workers in (1, os.cpu_count() or 1) for case in SERVED]
    trained = [on(recipe, threads) for recipe in TRAINED for threads in (1, 2)]
    return list(dict.fromkeys([*served, *trained, *(on(f"{recipe} whole", 1) for recipe in WHOLE)]))


def processes(workers: int) -> str:
    """How a case names them."""
    return f"{workers} process" + "es" * (workers > 1)


def on(recipe: str, threads: int) -> str:
    """The name of a training's case."""
    return f"{recipe}, {threads} thread" + "s" * (threads > 1)


def turn(rounds: int) -> Iterator[list[str]]:
    """The sides of each round, another one first each time."""
    for index in range(rounds):
        first = index % len(SIDES)
        yield [*SIDES[first:], *SIDES[:first]]


def measure(
    checkouts: dict[str, Checkout], chosen: list[str], rounds: int, seconds: float
) -> Iterator[tuple[str, list[Rates]]]:
    """Each case with images a second by side, of every round."""
    for workers in dict.fromkeys((1, os.cpu_count() or 1)):
        names = [case for case in SERVED if f"{case}, {processes(workers)}" in chosen]
        if names:
            told = [{side: serve(checkouts[side], names, workers, seconds) for side in order} for order in turn(rounds)]
            for case in names:
                rates = [{side: found[case] for side, found in each.items()} for each in told]
                yield f"{case}, {processes(workers)}", rates
    for recipe in TRAINED:
        for threads in (1, 2):
            if on(recipe, threads) in chosen:
                with training(checkouts, recipe, threads) as sides:
                    for side in sides.values():
                        side.take(1)
                    yield (
                        on(recipe, threads),
                        [{side: sides[side].take(seconds) for side in order} for order in turn(rounds)],
                    )
    for recipe in WHOLE:
        if on(f"{recipe} whole", 1) in chosen:
            told_whole = [{side: whole_run(checkouts[side], recipe, 1) for side in order} for order in turn(rounds)]
            yield on(f"{recipe} whole", 1), told_whole


def judge(rates: list[Rates]) -> dict[str, Any]:
    """Medians, ratios within each round, and the verdict."""
    again = [each["again"] / each["before"] for each in rates]
    after = [2 * each["after"] / (each["before"] + each["again"]) for each in rates]
    low, high = (tenths(again, share) for share in (0.1, 0.9))
    ratio = statistics.median(after)
    return {
        "rates": {side: statistics.median(each[side] for each in rates) for side in SIDES},
        "ratio": ratio,
        "after": [min(after), max(after)],
        "again": [low, statistics.median(again), high],
        "slower": ratio < min(LEAST, low),
        "rounds": rates,
    }


def tenths(values: list[float], share: float) -> float:
    """The value below which this share of them lies."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    rows = [
        "| case | before, images/s | after, images/s | after : before | all of them | before : before, 10 to 90 % | |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases():
        if case in record:
            told = record[case]
            least, most = told["after"]
            low, middle, high = told["again"]
            rows.append(
                f"| {case} | {told['rates']['before']:.0f} | {told['rates']['after']:.0f} | {told['ratio']:.3f} | "
                f"{least:.3f} to {most:.3f} | {low:.3f} to {high:.3f}, median {middle:.3f} | "
                f"{'slower' if told['slower'] else 'as fast'} |"
            )
    return "\n".join(rows)


def main() -> int:
    """Measure, record, and say what is slower."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.before_after",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--cases", nargs="+", choices=cases(), default=cases(), metavar="CASE", help="; ".join(cases()))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=4, help="of a turn")
    parser.add_argument("--out", type=Path, default=HERE / "before_after.json", help="and a table beside it")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        print("error: wrk is not installed (apt-get install wrk, or brew install wrk)", file=sys.stderr)
        return 2
    record: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    roots = {"before": options.before, "again": options.before, "after": options.after}
    models = options.before.resolve() / "models"
    with tempfile.TemporaryDirectory(prefix="before-after-") as place:
        checkouts = {side: Checkout(root.resolve(), models, Path(place) / side) for side, root in roots.items()}
        for checkout in checkouts.values():
            checkout.place.mkdir()
        for case, rates in measure(checkouts, options.cases, options.rounds, options.seconds):
            record[case] = judge(rates)
            print(f"{case}: after : before {record[case]['ratio']:.3f}", flush=True)
            options.out.write_text(json.dumps(record, indent=1) + "\n")
    told = table(record)
    print(told)
    head = (
        f"# Before and after\n\n{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; "
        f"{options.rounds} rounds of {options.seconds:g} s a side. Made by `python -m benchmarks.before_after`: "
        "ratios are medians over pairs of one round. A case is slower where it is below "
        f"{LEAST} and below nine tenths of the ratios of the version before to itself.\n\n"
    )
    options.out.with_suffix(".md").write_text(head + told + "\n")
    return 1 if any(record[case]["slower"] for case in options.cases) else 0


if __name__ == "__main__":
    sys.exit(main())
