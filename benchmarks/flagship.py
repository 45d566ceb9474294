"""Which arm of the flagship is worth a long training: each gets the same CPU time on one thread, then is judged.

    python -m benchmarks.flagship --dataset ylecun/mnist --arms "one stage" "moments matched from half"
    python -m benchmarks.flagship --table            # writes the table of all arms that were recorded

An arm is the recipe ``projgan`` with what the table below changes. Steps are set from the arm's own measured pace, so
that its learning rate ends where the budget ends; teaching the frozen features comes on top. Scores: the best
snapshot, 5,000 images, against the held-out part of the training split by the shipped judge. The test split is not
looked at.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from training import data, networks, recipes, trainer
from training.measure import guard, judge

HERE = Path(__file__).parent
RECORD = HERE / "flagship.json"

_R3: dict[str, Any] = {"loss": "relativistic", "r1_r2": 1.0, "penalty_every": 8}
_ONE_STAGE: dict[str, Any] = {"second_stage": 1.0, "matching": 0.0, "finish": None}
_FROM_HALF: dict[str, Any] = {"second_stage": 0.5, "finish": None}
ARMS: dict[str, dict[str, Any]] = {
    "one stage": _ONE_STAGE,
    "one stage, discriminator sees finer": {**_ONE_STAGE, "family": "projection-fine"},
    "one stage, discriminator deeper": {**_ONE_STAGE, "family": "projection-deep"},
    "one stage, frozen features in the discriminator": {**_ONE_STAGE, "family": "projected"},
    "one stage, relativistic with lazy R1 and R2": {**_ONE_STAGE, **_R3},
    "one stage, batch 128": {**_ONE_STAGE, "batch": 128},
    "one stage, EMA 0.9995": {**_ONE_STAGE, "ema": 0.9995},
    "one stage, decay from the start": {**_ONE_STAGE, "decay_from": 0.0},
    "one stage, generator deeper": {**_ONE_STAGE, "family": "projection-residual"},
    "one stage, generator deeper, rates 5e-4": {
        **_ONE_STAGE,
        "family": "projection-residual",
        "optimiser": recipes.Optimiser(lr_g=5e-4, lr_d=5e-4, betas=(0.5, 0.999)),
    },
    "generator deeper, rates 5e-4, moments matched from a fifth": {
        "family": "projection-residual",
        "optimiser": recipes.Optimiser(lr_g=5e-4, lr_d=5e-4, betas=(0.5, 0.999)),
        "second_stage": 0.2,
        "finish": None,
    },
    "one stage, width 1.5": {**_ONE_STAGE, "width": 1.5},
    "moments matched from half": _FROM_HALF,
    "moments matched from half, weight 0.1": {**_FROM_HALF, "matching": 0.1},
    "moments matched from half, weight 1": {**_FROM_HALF, "matching": 1.0},
    "moments matched from a fifth": {**_FROM_HALF, "second_stage": 0.2},
}
SHOWN = ("label_accuracy", "frechet", "frechet_ratio", "coverage", "precision")


def pace_of(loop: trainer.Loop, steps: int = 60) -> float:
    """CPU seconds a step."""
    for _ in range(5):
        loop.advance(measure=False)
    started = time.process_time()
    for _ in range(steps):
        loop.advance(measure=False)
    return (time.process_time() - started) / steps


def run(arm: str, dataset: data.Dataset, seconds: float) -> dict[str, Any]:
    """Train one arm for so many CPU seconds of one thread and score it."""
    recipe = dataclasses.replace(recipes.get("projgan"), name=arm, **ARMS[arm])
    # Arms are recipes for this process only.
    recipes.RECIPES = {**recipes.RECIPES, arm: recipe}
    rest, held_out = data.split_held_out(dataset)
    trial = trainer.Loop(trainer.configure(arm, dataset, images=1000 * recipe.batch), rest, Accelerator(cpu=True))
    pace = recipe.second_stage * pace_of(trial)
    if recipe.matching:
        trial.step = trial.second_stage
        pace += (1 - recipe.second_stage) * pace_of(trial)
    length = int(seconds / pace)
    config = trainer.configure(arm, dataset, images=length * recipe.batch)
    referee = judge.for_dataset(rest)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / arm
        trainer.train(
            config,
            dataset,
            path,
            report=lambda event: None,
            intervals=trainer.Intervals(log_steps=1000, snapshots=4, checkpoint_seconds=1e9),
        )
        best = load_file(path / "best.safetensors")
    generator, _ = networks.build(recipe.family, config.shape, recipe.width)
    generator.load_state_dict(best)
    render = trainer.Renderer(generator.eval(), recipe, config.shape.classes, torch.device("cpu"))
    images, labels = render.balanced(5000)
    reference = guard.reference(referee, held_out, 5000)
    scores = guard.quick_scores(images, labels, referee, reference)
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(1))[: len(reference.features)]
    real = rest.subset(order)
    floor = guard.quick_scores(real.images, real.labels, referee, reference)
    return {
        "arm": arm,
        "changes": {
            name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
            for name, value in ARMS[arm].items()
        },
        "seconds": seconds,
        "step_ms": round(1000 * pace, 1),
        "steps": length,
        "parameters": sum(p.numel() for p in generator.parameters()),
        **{name: scores[name] for name in SHOWN if name in scores},
        "frechet_ratio": scores["frechet"] / floor["frechet"],
        "real": {name: floor[name] for name in SHOWN if name in floor},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The record as Markdown."""
    lines = [
        "| arm | CPU s | ms a step | steps | label accuracy | Frechet | over real | coverage | precision |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["seconds"], row["frechet"])):
        cells = [f"`{row['arm']}`", f"{row['seconds']:.0f}", f"{row['step_ms']}", f"{row['steps']}"]
        cells += [f"{row['label_accuracy']:.4f}", f"{row['frechet']:.4f}", f"{row['frechet_ratio']:.2f}"]
        cells += [f"{row['coverage']:.4f}", f"{row['precision']:.4f}"]
        lines.append(f"| {' | '.join(cells)} |")
    real = rows[0]["real"]
    lines.append(
        f"| real images | | | | {real['label_accuracy']:.4f} | {real['frechet']:.4f} | 1 | {real['coverage']:.4f} | "
        f"{real['precision']:.4f} |"
    )
    return "\n".join(lines)


def main() -> int:
    """Run arms, add them to the record, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ylecun/mnist")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=[])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--table", action="store_true", help="only write the table again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = data.load(options.dataset, size=28, channels=1) if options.arms else None
    for arm in options.arms:
        assert dataset is not None
        row = run(arm, dataset, options.seconds)
        print(json.dumps(row), flush=True)
        rows = json.loads(RECORD.read_text()) if RECORD.exists() else []
        rows = [old for old in rows if (old["arm"], old["seconds"]) != (arm, options.seconds)] + [row]
        RECORD.write_text(json.dumps(rows, indent=1) + "\n")
    head = (
        "# Arms of the flagship\n\nEach arm is `projgan`, or its first stage alone, with one thing changed, given the "
        "same CPU time on one thread; scores of its best snapshot against 5,000 held-out training images by the "
        "shipped judge, 5,000 generated. Made by `python -m benchmarks.flagship`.\n\n"
    )
    if RECORD.exists():
        (HERE / "flagship.md").write_text(head + table(json.loads(RECORD.read_text())) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
