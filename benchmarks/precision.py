"""Whether pictures suffer where a recipe computes in bfloat16: each at a tenth of its length in both precisions.

    python -m benchmarks.precision --speed            # what a step takes in both, by CPU time
    python -m benchmarks.precision [--mnist ylecun/mnist] [--cifar10 uoft-cs/cifar10] [--recipes dcgan] [--seeds 0 1]

Runs and scores are kept below ``--runs``; what is there is not done again, so that it goes on where it was stopped.
Scores are the judge's, of 10,000 images through onnxruntime from each run's float graph.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ganserve.repository import Repository
from training import data, recipes
from training.evaluate import Yardstick, evaluate_onnx
from training.export import export_run
from training.features import Taught
from training.loop import Loop
from training.networks.fast import keep_memory
from training.run import configure

HERE = Path(__file__).parent
RECORD = HERE / "precision.json"
PRECISIONS = ("no", "bf16")
SHOWN = ("label_accuracy", "frechet_ratio", "coverage", "precision", "recall")
ARTICLES = ("dcgan-gap", "wgan", "wgan-gp", "dcgan", "gan", "projgan-r3", "projgan", "gan-bn", "cgan", "cdcgan")
ROW = "| {recipe} | {images:,} | {seed} | {precision} | {seconds:.0f} | "


def trained(run: Path, recipe: str | None, dataset: str, arguments: Sequence[str]) -> tuple[float, str | None]:
    """A run, from its checkpoint if it was begun; returns the seconds of CPU time that it took in all, less
    those of a part after which this process was killed too, and why it failed, or None.

    Raises:
        CalledProcessError: the training was stopped, or did not begin.
    """
    run.mkdir(parents=True, exist_ok=True)
    kept = run / "cpu.json"
    spent = json.loads(kept.read_text()) if kept.exists() else 0.0
    ended, why = _ended(run)
    if ended:
        return float(spent), why
    command = [sys.executable, "-m", "training.train", "--dataset", dataset, "--run", str(run)]
    command += ["--recipe", recipe] if recipe else []
    command += ["--threads", "1", "--resume", "--events", *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    status = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent += after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    kept.write_text(json.dumps(spent))
    ended, why = _ended(run)
    if not ended:
        raise subprocess.CalledProcessError(status, command)
    return float(spent), why


def _ended(run: Path) -> tuple[bool, str | None]:
    """Whether a run came to its end, good or bad, and why it failed."""
    file = run / "status.json"
    status = json.loads(file.read_text()) if file.exists() else {"state": "new"}
    return status["state"] in ("finished", "failed"), status.get("reason")


def scored(run: Path, dataset: str, yardstick: Yardstick | None = None) -> dict[str, Any]:
    """The judge's scores of a finished run's float graph, kept beside it."""
    kept = run / "scores.json"
    if not kept.exists():
        repository = Repository(run / "export")
        version = export_run(run, repository, name="m", promote=False)
        found = evaluate_onnx(repository.model_path("m", version), dataset, yardstick=yardstick)
        kept.write_text(json.dumps({name: found.get(name) for name in (*SHOWN, "copied")}))
    scores: dict[str, Any] = json.loads(kept.read_text())
    return scores


def shown(value: float | None) -> str:
    """A score as a table has it."""
    return "" if value is None else f"{value:.4g}"


def cells(row: dict[str, Any]) -> list[str]:
    """A row's scores as a table has them, or why it has none."""
    if row.get("failed"):
        return [f"failed: {row['failed']}", *[""] * (len(SHOWN) - 1)]
    return [shown(row["scores"][name]) for name in SHOWN]


def one(recipe: str, seed: int, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """A row."""
    photographs = recipe == "projgan-colour"
    dataset, made = (options.cifar10 if photographs else options.mnist), recipes.get(recipe)
    images = int(made.images * options.share)
    run = options.runs / f"{recipe}-{precision}-{seed}"
    asked = ["--images", str(images), "--seed", str(seed), "--precision", precision, "--snapshots", "4"]
    seconds, failed = trained(run, recipe, dataset, asked)
    return {
        "recipe": recipe, "images": images, "seed": seed, "precision": precision, "seconds": seconds,
        "failed": failed, "scores": {} if failed else scored(run, dataset),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: every run, then what bfloat16 changed in each recipe."""
    head = ("recipe", "images", "seed", "precision", "CPU s", *SHOWN)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        lines.append(ROW.format(**{**row, "recipe": f"`{row['recipe']}`"}) + " | ".join(cells(row)) + " |")
    columns = ("recipe", "seeds", "CPU time", *SHOWN)
    lines += [
        "",
        "bfloat16 less float32, means over seeds; CPU time as a ratio, of whole runs with their snapshots:",
        "",
    ]
    lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        exact, halved = (
            {r["seed"]: r for r in rows if r["recipe"] == recipe and r["precision"] == p and r["scores"]}
            for p in PRECISIONS
        )
        seeds = sorted(exact.keys() & halved.keys())
        if not seeds:
            continue
        ratio = statistics.mean(exact[seed]["seconds"] / halved[seed]["seconds"] for seed in seeds)
        means = [f"`{recipe}`", str(len(seeds)), f"{ratio:.2f} times less"]
        for name in SHOWN:
            pairs = [(halved[seed]["scores"][name], exact[seed]["scores"][name]) for seed in seeds]
            known = [a - b for a, b in pairs if a is not None and b is not None]
            means.append(f"{statistics.mean(known):+.4g}" if known else "")
        lines.append("| " + " | ".join(means) + " |")
    return lines


def speed(name: str) -> dict[str, Any]:
    """Milliseconds of CPU time of a recipe's step in both precisions, medians of five rounds that took turns."""
    torch.set_num_threads(1)
    keep_memory()  # as training.train does
    photographs = name == "projgan-colour"
    dataset = data.load("digits", size=32 if photographs else 28, channels=3 if photographs else 1)
    overrides = {"batch": 128} if photographs else {}
    loops = {}
    for precision in PRECISIONS:
        config = configure(name, dataset, precision=precision, overrides=overrides)
        loops[precision] = loop = Loop(config, dataset, Accelerator(cpu=True))
        if isinstance(loop.gan.discriminator, Taught):
            loop.gan.discriminator.teach = lambda *of, **told: None  # type: ignore[method-assign]
        for _ in range(2):
            loop.advance(measure=False)
    found: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for _ in range(5):
        for precision, loop in loops.items():
            began = time.process_time()
            for _ in range(2):
                loop.advance(measure=False)
            found[precision].append((time.process_time() - began) / 2)
    medians = {precision: statistics.median(times) for precision, times in found.items()}
    ratios = [exact / halved for exact, halved in zip(*found.values(), strict=True)]
    return {
        "recipe": name,
        "batch": loop.images_per_step,
        "milliseconds": {precision: 1000 * median for precision, median in medians.items()},
        "images": loop.images_per_step / medians["bf16"],
        "ratio": statistics.median(ratios),
        "range": [min(ratios), max(ratios)],
    }


def speeds_table(speeds: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown."""
    head = (
        "CPU time of a step on one thread, medians of five rounds in which both took turns; `projgan-colour` without "
        "what it teaches before the first step, at a batch of 128:"
    )
    lines = [
        head, "",
        "| recipe | images a step | float32, ms | bfloat16, ms | faster | least and most | images/s of a core |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in speeds:
        low, high = row["range"]
        told = [f"`{row['recipe']}`", str(row["batch"]), *(f"{row['milliseconds'][p]:.1f}" for p in PRECISIONS)]
        told += [f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}", f"{row['images']:.0f}"]
        lines.append("| " + " | ".join(told) + " |")
    return lines


def main() -> None:
    """Measure speeds, or train and score; record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true", help="of a step in both precisions, and nothing else")
    parser.add_argument("--mnist", default="ylecun/mnist")
    parser.add_argument("--cifar10", default="uoft-cs/cifar10")
    parser.add_argument("--recipes", nargs="+", choices=tuple(recipes.RECIPES), default=[*ARTICLES, "projgan-colour"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--share", type=float, default=0.1, help="of a recipe's length")
    parser.add_argument("--runs", type=Path, default=Path("var/precision"))
    options = parser.parse_args()
    found = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {"speeds": [], "rows": []}
    if options.speed:
        found["speeds"] = []
        for recipe in options.recipes:
            found["speeds"].append(speed(recipe))
            record(found, options.share)
        return
    found["rows"] = []
    for seed in options.seeds:
        for recipe in options.recipes:
            for precision in PRECISIONS:
                found["rows"].append(one(recipe, seed, precision, options))
                print(json.dumps(found["rows"][-1]), flush=True)
                record(found, options.share)


def record(found: dict[str, Any], share: float) -> None:
    """Write the tables; what was written below their last heading is kept."""
    RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    file = HERE / "precision.md"
    _, mark, said = file.read_text(encoding="utf-8").partition("\n## ") if file.exists() else ("", "", "")
    has = torch.cpu.get_capabilities()
    head = (
        f"# Precision\n\nfloat32 (`no`) and bfloat16, torch {torch.__version__}, {has.get('cpu_name')} "
        f"{'with' if has.get('amx_bf16') else 'without'} AMX. Made by `python -m benchmarks.precision`.\n"
    )
    lines = [head, *speeds_table(found["speeds"])]
    if found["rows"]:
        told = (
            f"\nEach recipe at {share:g} of its length, 28 pixels of MNIST (`projgan-colour`: 32 of CIFAR-10), one "
            "thread; 10,000 images of each run's best of four snapshots, through onnxruntime, by the shipped judge:\n"
        )
        lines += [told, *table(found["rows"])]
    file.write_text("\n".join(lines) + "\n" + mark + said, encoding="utf-8")


if __name__ == "__main__":
    main()
