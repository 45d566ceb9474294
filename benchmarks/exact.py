"""Exact graphs beside the float ones that they are made of: speed, the judge's scores, other processors' bytes.

    python -m benchmarks.exact --speed                                  # every shipped model
    python -m benchmarks.exact --judge path/to/mnist --models mnist-projgan
    python -m benchmarks.exact --processors Nehalem Haswell-noTSX       # needs Debian's qemu-user

Speed is the process' own CPU time of one thread, float and exact in turns in one run, the median of rounds. The judge
scores the float graph over five seed ranges and the exact one over the first; an exact graph may be two standard
deviations worse. Measurements are merged into ``exact.json``, from which ``exact.md`` is written.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.generators import once, runner, session
from ganserve.card import ModelCard
from ganserve.grid import grid_latents
from ganserve.repository import Repository
from training.exact.judged import MEASURES, judge
from training.export import FinishedRun, check_parity, to_onnx
from training.folding import folded
from training.graphs import Graph
from training.run import RunConfig

HERE = Path(__file__).parent
RECORD = HERE / "exact.json"
BATCHES = (1, 16, 64)

# What an emulated processor runs: the digest of an exact graph, and that of a float one for comparison.
PROOF = """
import sys, onnxruntime
from ganserve.proof import exact_digest
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 4
for path in sys.argv[4:]:
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    def run(latent, label):
        return session.run(None, {"latent": latent} | ({} if label is None else {"label": label}))[0]
    print("digest", exact_digest(run, sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


@dataclass(frozen=True)
class Pair:
    """The live exact version's card and file, and the float graph of the same weights: the version that it was made of,
    or one that is made here of the float weights that lie beside it."""

    card: ModelCard
    exact: bytes
    plain: bytes
    version: int

    @classmethod
    def of(cls, repository: Repository, name: str) -> Pair:
        """A model's pair; ``version`` is the float one's number, or the exact one's where no float one is published."""
        live = repository.live(name)
        assert live is not None
        card, content = repository.read(name, live)
        if made_of := card.training.get("exact_of"):
            return cls(card, content, repository.read(name, made_of["version"])[1], made_of["version"])
        weights = repository.weights(card)
        assert weights is not None, f"{name} version {live} has no float weights beside it"
        run = FinishedRun(Path(name), RunConfig.from_dict({**card.training["config"], "init": None}), {}, weights)
        plain = to_onnx(Graph(folded(run.generator()), run.config.settings.image_range), run, name)
        check_parity(plain, run)
        return cls(card, content, plain, live)


def speed(pair: Pair, rounds: int, seconds: float) -> dict[str, Any]:
    """Microseconds an image at each batch, float and exact in turns."""
    card = pair.card
    runs = {"float": runner(session(pair.plain)), "exact": runner(session(pair.exact))}
    found: dict[str, Any] = {}
    for batch in BATCHES:
        latent = grid_latents(card.latent_recipe, np.arange(batch), card.z)
        label = (np.arange(batch) % len(card.classes))[:, None] if card.classes else None
        took: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                took[name].append(once(run, latent, label, seconds, time.process_time))
        found[str(batch)] = {name: round(statistics.median(values), 2) for name, values in took.items()}
    return found


def judged(pair: Pair, dataset: str, images: int) -> dict[str, Any]:
    """The scores of both, and by how many standard deviations of the float graph the exact one is better."""
    verdict = judge(pair.plain, pair.exact, dataset, images=images)
    return {
        "images": images,
        "float": [{name: scores[name] for name in verdict.measures} for scores in verdict.float_results],
        "exact": {name: verdict.exact_result[name] for name in verdict.measures},
        "deviations": {name: round(verdict.deviations(name), 2) for name in verdict.measures},
        "worse": verdict.worse,
    }


def processor(kind: str, pair: Pair) -> dict[str, Any]:
    """Whether the exact and the float graph give this machine's bytes on an emulated processor."""
    arguments = [pair.card.latent_recipe, str(pair.card.z), str(len(pair.card.classes))]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "exact.onnx", Path(folder) / "float.onnx"]
        for path, graph in zip(paths, (pair.exact, pair.plain), strict=True):
            path.write_bytes(graph)
        command = [sys.executable, "-c", PROOF, *arguments, *map(str, paths)]
        emulated = [shutil.which("qemu-x86_64") or "qemu-x86_64", "-cpu", kind, *command]
        begun = time.monotonic()
        here, there = (_digests(run) for run in (command, emulated))
    same = [a == b for a, b in zip(here, there, strict=True)]
    proven = there[0] == pair.card.exact_digest
    return {"exact": proven and same[0], "float": same[1], "seconds": round(time.monotonic() - begun, 1)}


def _digests(command: list[str]) -> list[str]:
    # numpy's linear algebra takes a processor without AVX for one with it; nothing here multiplies matrices by it.
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Nehalem"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith("digest")]


def tables(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    out = io.StringIO()
    out.write("\n## Speed\n\nMicroseconds an image, float and exact, and how many times as fast exact is.\n\n")
    out.write("| model | file, kB | at batch 1 | at 16 | at 64 |\n|---|---|---|---|---|\n")
    for name, told in record["models"].items():
        if "speed" in told:
            pairs = [told["speed"][str(batch)] for batch in BATCHES]
            cells = [f"{p['float']:.0f}, {p['exact']:.0f}: {p['float'] / p['exact']:.2f}x" for p in pairs]
            size = f"{told['bytes']['float'] / 1000:.0f}, {told['bytes']['exact'] / 1000:.0f}"
            out.write(f"| {name}:{told['version']} | {size} | {' | '.join(cells)} |\n")
    out.write("\n## Quality\n\nThe float graph's mean and deviation over five seed ranges; the exact graph's score ")
    out.write("and how many of these deviations it is better (negative: worse).\n\n")
    out.write(f"| model | {' | '.join(MEASURES)} | worse |\n|---|{'---|' * len(MEASURES)}---|\n")
    for name, told in record["models"].items():
        if "judged" in told:
            cells = [_scores(told["judged"], measure) for measure in MEASURES]
            worse = ", ".join(told["judged"]["worse"]) or "none"
            out.write(f"| {name}:{told['version']} | {' | '.join(cells)} | {worse} |\n")
    out.write("\n## Processors\n\nWhether 256 addresses are the same bytes there as here, exact and float graph.\n\n")
    out.write("| model | processor | exact | float |\n|---|---|---|---|\n")
    for name, told in record["models"].items():
        for kind, row in told.get("processors", {}).items():
            words = ["the same" if row[side] else "differ" for side in ("exact", "float")]
            out.write(f"| {name}:{told['version']} | {kind} | {words[0]} | {words[1]} |\n")
    return out.getvalue()


def _scores(told: dict[str, Any], measure: str) -> str:
    if measure not in told["exact"]:
        return "-"
    values = [scores[measure] for scores in told["float"]]
    mean, spread = statistics.mean(values), statistics.stdev(values)
    return f"{mean:.4f} ± {spread:.4f}, {told['exact'][measure]:.4f} ({told['deviations'][measure]:+.1f})"


def main() -> int:
    """Measure what is asked for, merge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", help="all shipped ones by default")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--judge", metavar="DATASET")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--processors", nargs="*", default=[], help="names of qemu's processors")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.12)
    options = parser.parse_args()
    repository = Repository(HERE.parent / "models")
    record: dict[str, Any] = {"models": {}}
    for name in options.models or repository.names():
        pair = Pair.of(repository, name)
        told: dict[str, Any] = {"version": pair.version, "exact_version": pair.card.version}
        told["bytes"] = {"float": len(pair.plain), "exact": len(pair.exact)}
        if options.speed:
            told["speed"] = speed(pair, options.rounds, options.seconds)
        if options.judge:
            told["judged"] = judged(pair, options.judge, options.images)
        emulated = {kind: processor(kind, pair) for kind in options.processors}
        print(name, json.dumps(told | emulated), flush=True)
        if RECORD.exists():
            record = json.loads(RECORD.read_text())
        kept = record["models"].setdefault(name, {})
        kept |= told | {"processors": kept.get("processors", {}) | emulated}
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
    head = (
        "# Exact graphs beside the float ones that they are made of\n\n"
        f"{os.cpu_count()} cores, {platform.machine()}, onnxruntime {onnxruntime.__version__}; one thread, the "
        "process' own CPU time. Made by `python -m benchmarks.exact`. A version is the float one's; where none is "
        "published, the exact one's, whose float graph is made of the weights beside it.\n"
    )
    (HERE / "exact.md").write_text(head + tables(record))
    print(tables(record))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
