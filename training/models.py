"""Train, export and score every shipped model, each by its own recipe at its own length: ``make models``.

    python -m training.models --dataset ylecun/mnist --prefix mnist

Runs go side by side in lanes of one thread each, which on small networks is twice as fast as one run with all
threads; a run that was interrupted goes on from its checkpoint, a finished one is skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ganserve import machine
from ganserve.repository import Repository
from training import evaluate, export, quality, recipes
from training.command import ends, positive

# Long and important ones first, so that lanes end together.
RECIPES = ("projgan", "dcgan", "gan-bn", "cgan", "cdcgan", "dcgan-gap", "wgan", "gan", "wgan-gp")


def train(recipe: str, dataset: str, run: Path, threads: int) -> int:
    """Train one recipe in a process of its own; returns its exit status. Its output goes to ``<run>.out``."""
    status = run / "status.json"
    if status.exists() and json.loads(status.read_text(encoding="utf-8"))["state"] == "finished":
        return 0
    command = [*machine.python("training.train"), "--recipe", recipe, "--dataset", dataset]
    command += ["--run", str(run), "--threads", str(threads), "--events"]
    if (run / "config.json").exists():
        command.append("--resume")
    run.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with run.with_suffix(".out").open("a", encoding="utf-8") as output:
        return subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False).returncode


def publish(run: Path, repository: Repository, dataset: str) -> None:
    """Export a finished run if the repository lacks it, and score the live version if it has no scores."""
    if export.FinishedRun.read(run).digest not in export.published(repository, run.name):
        export.export_run(run, repository)
    live = repository.live(run.name)
    assert live is not None
    if not repository.scores(run.name, live):
        scores = evaluate.evaluate_onnx(repository.model_path(run.name, live), dataset)
        repository.record(run.name, live, scores)


def _why(run: Path, status: int) -> str:
    """How a training ended that did not finish, with the last that it said."""
    said = run.with_suffix(".out").read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(said) if line.strip()), "it said nothing")
    return f"exit status {status}: {last[:500]}"


@ends
def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not finished, publish what is; returns how many runs failed."""
    parser = argparse.ArgumentParser(prog="python -m training.models", description=__doc__)
    parser.add_argument("--dataset", default="ylecun/mnist", help="the hub's name, or a local copy")
    parser.add_argument("--prefix", default="mnist", help="runs are called PREFIX-RECIPE")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--models", type=Path, default=Path("models"), help="the model repository")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(recipes.RECIPES))
    parser.add_argument("--lanes", type=positive, default=os.cpu_count() or 1, help="runs side by side")
    parser.add_argument("--threads", type=positive, default=1, help="threads a run")
    options = parser.parse_args(argv)
    failed = 0
    with ThreadPoolExecutor(options.lanes) as lanes:
        runs = [options.runs / f"{options.prefix}-{recipe}" for recipe in options.recipes]
        ends = [
            lanes.submit(train, recipe, options.dataset, run, options.threads)
            for recipe, run in zip(options.recipes, runs, strict=True)
        ]
        for run, end in zip(runs, ends, strict=True):
            status = end.result()
            print(f"{run.name}: {'trained' if status == 0 else _why(run, status)}", flush=True)
            if status == 0:
                publish(run, Repository(options.models), options.dataset)
            failed += status != 0
    if options.models.resolve() == quality.HERE.parent / "models":
        # The table is of the shipped models, and no other repository's.
        quality.write(Repository(options.models))
    return failed


if __name__ == "__main__":
    sys.exit(main())
