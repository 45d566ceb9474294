"""Whether pictures suffer where a recipe computes in bfloat16: each at a tenth of its length in both precisions.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ganserve.repository import Repository
from training import recipes
from training.evaluate import Yardstick, evaluate_onnx
from training.export import export_run

HERE = Path(__file__).parent
PRECISIONS = ("no", "bf16")
SHOWN = ("label_accuracy", "frechet_ratio", "coverage", "precision", "recall")
ARTICLES = ("dcgan-gap", "wgan", "wgan-gp", "dcgan", "gan", "projgan-r3", "projgan", "gan-bn", "cgan", "cdcgan")
ROW = "| {recipe} | {images:,} | {seed} | {precision} | {seconds:.0f} | "


def trained(run: Path, recipe: str, dataset: str, arguments: Sequence[str]) -> float:
    """A run, from its checkpoint if it was begun; returns the seconds of CPU time that it took in all.

    Raises:
        CalledProcessError: the training ended badly.
    """
    run.mkdir(parents=True, exist_ok=True)
    kept = run / "cpu.json"
    spent = json.loads(kept.read_text()) if kept.exists() else 0.0
    if (run / "status.json").exists() and json.loads((run / "status.json").read_text())["state"] == "finished":
        return float(spent)
    command = [sys.executable, "-m", "training.train", "--recipe", recipe, "--dataset", dataset, "--run", str(run)]
    command += ["--threads", "1", "--resume", "--events", *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent += after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    kept.write_text(json.dumps(spent))
    ended.check_returncode()
    return float(spent)


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


def one(recipe: str, seed: int, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """A row."""
    photographs = recipe == "projgan-colour"
    dataset, made = (options.cifar10 if photographs else options.mnist), recipes.get(recipe)
    images = int(made.images * options.share)
    run = options.runs / f"{recipe}-{precision}-{seed}"
    asked = ["--images", str(images), "--seed", str(seed), "--precision", precision, "--snapshots", "4"]
    seconds = trained(run, recipe, dataset, asked)
    return {
        "recipe": recipe, "images": images, "seed": seed, "precision": precision, "seconds": seconds,
        "scores": scored(run, dataset),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: every run, then what bfloat16 changed in each recipe."""
    head = ("recipe", "images", "seed", "precision", "CPU s", *SHOWN)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        told = " | ".join(shown(row["scores"][name]) for name in SHOWN)
        lines.append(ROW.format(**{**row, "recipe": f"`{row['recipe']}`"}) + told + " |")
    head = ("recipe", "seeds", "CPU time", *SHOWN)
    lines += [
        "",
        "bfloat16 less float32, means over seeds; CPU time as a ratio, of whole runs with their snapshots:",
        "",
    ]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        exact, halved = (
            {r["seed"]: r for r in rows if r["recipe"] == recipe and r["precision"] == p} for p in PRECISIONS
        )
        seeds = sorted(exact.keys() & halved.keys())
        if not seeds:
            continue
        ratio = statistics.mean(exact[seed]["seconds"] / halved[seed]["seconds"] for seed in seeds)
        cells = [f"`{recipe}`", str(len(seeds)), f"{ratio:.2f} times less"]
        for name in SHOWN:
            pairs = [(halved[seed]["scores"][name], exact[seed]["scores"][name]) for seed in seeds]
            known = [a - b for a, b in pairs if a is not None and b is not None]
            cells.append(f"{statistics.mean(known):+.4g}" if known else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Train, score, record after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", default="ylecun/mnist")
    parser.add_argument("--cifar10", default="uoft-cs/cifar10")
    parser.add_argument("--recipes", nargs="+", choices=tuple(recipes.RECIPES), default=[*ARTICLES, "projgan-colour"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--share", type=float, default=0.1, help="of a recipe's length")
    parser.add_argument("--runs", type=Path, default=Path("var/precision"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        for recipe in options.recipes:
            for precision in PRECISIONS:
                rows.append(one(recipe, seed, precision, options))
                print(json.dumps(rows[-1]), flush=True)
                record(rows, options.share)


def record(rows: list[dict[str, Any]], share: float) -> None:
    """Write the table; what was written below its last heading is kept."""
    file = HERE / "precision.md"
    _, mark, said = file.read_text(encoding="utf-8").partition("\n## ") if file.exists() else ("", "", "")
    has = torch.cpu.get_capabilities()
    head = (
        f"# Precision\n\nEach recipe at {share:g} of its length, 28 pixels of MNIST (`projgan-colour`: 32 of CIFAR), "
        f"one thread, in float32 (`no`) and in bfloat16, torch {torch.__version__}, {has.get('cpu_name')} "
        f"{'with' if has.get('amx_bf16') else 'without'} AMX; 10,000 images of each run's best of four snapshots, "
        "through onnxruntime, by the shipped judge. Made by `python -m benchmarks.precision`.\n\n"
    )
    file.write_text(head + "\n".join(table(rows)) + "\n" + mark + said, encoding="utf-8")


if __name__ == "__main__":
    main()
