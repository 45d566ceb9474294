"""What a training of so many minutes is worth: ``ganserve train --dataset SET --minutes N``, nothing else asked for.

    python -m benchmarks.budgets [--mnist ylecun/mnist] [--cifar10 uoft-cs/cifar10] [--minutes 1 5 20 60] [--sets mnist]

Sets are MNIST, CIFAR-10 and 1,000 pictures of it, 100 a class. Each run has one thread. Runs and scores are kept below
``--runs``; what is there is not done again, so that it goes on where it was stopped. Scores are the judge's, of 10,000
images through onnxruntime from each run's float graph.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.precision import SHOWN, cells, scored, trained
from training import data

HERE = Path(__file__).parent
SETS = ("mnist", "cifar10-1000", "cifar10")
FEW = 100


def some(name: str, folder: Path) -> Path:
    """A folder of class folders with the same 100 training pictures of each class of a set, made once."""
    if not folder.exists():
        whole = data.load(name)
        assert whole.labels is not None
        seeded = torch.Generator().manual_seed(5)
        for label, of in enumerate(whole.classes):
            (folder / of).mkdir(parents=True)
            rows = (whole.labels == label).nonzero().flatten()
            for row in rows[torch.randperm(len(rows), generator=seeded)[:FEW]].tolist():
                Image.fromarray(whole.images[row].permute(1, 2, 0).numpy()).save(folder / of / f"{row}.png")
    return folder


def one(name: str, minutes: float, options: argparse.Namespace) -> dict[str, Any]:
    """A row."""
    judged = options.mnist if name == "mnist" else options.cifar10
    dataset = str(some(judged, options.runs / name)) if name == "cifar10-1000" else judged
    run = options.runs / f"{name}-{minutes:g}"
    seconds, failed = trained(run, None, dataset, ["--minutes", f"{minutes:g}", "--seed", str(options.seed)])
    config = json.loads((run / "config.json").read_text())
    asked = {key: config[key] for key in ("recipe", "images", "precision")}
    return {
        "set": name, "minutes": minutes, "cpu": seconds / 60, **asked, "failed": failed,
        "scores": {} if failed else scored(run, judged),
    }  # fmt: skip


def record(rows: list[dict[str, Any]]) -> None:
    """Write the table; what was written below its last heading is kept."""
    file = HERE / "budgets.md"
    _, mark, said = file.read_text(encoding="utf-8").partition("\n## ") if file.exists() else ("", "", "")
    has = torch.cpu.get_capabilities()
    where = f"torch {torch.__version__}, {has.get('cpu_name')} {'with' if has.get('amx_bf16') else 'without'} AMX"
    head = ("set", "minutes", "CPU minutes", "recipe", "images", "computes in", *SHOWN)
    lines = [
        "# Budgets", "",
        "`ganserve train --dataset SET --minutes N --threads 1`: recipe, length and precision are what it chose; "
        f"{where}. 10,000 images of each run's best snapshot through onnxruntime, by the shipped judge. CPU minutes "
        "are of the whole run, snapshots and all. Made by `python -m benchmarks.budgets`.", "",
        "| " + " | ".join(head) + " |", "|" + "---|" * len(head),
    ]  # fmt: skip
    for row in rows:
        told = [row["set"], f"{row['minutes']:g}", f"{row['cpu']:.1f}", f"`{row['recipe']}`", f"{row['images']:,}"]
        told += [{"no": "float32", "bf16": "bfloat16"}[row["precision"]]]
        lines.append("| " + " | ".join([*told, *cells(row)]) + " |")
    file.write_text("\n".join(lines) + "\n" + mark + said, encoding="utf-8")


def main() -> None:
    """Train, score, record after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", default="ylecun/mnist")
    parser.add_argument("--cifar10", default="uoft-cs/cifar10")
    parser.add_argument("--minutes", nargs="+", type=float, default=[1, 5, 20, 60])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("var/budgets"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for minutes in options.minutes:
        for name in options.sets:
            rows.append(one(name, minutes, options))
            print(json.dumps(rows[-1]), flush=True)
            record(rows)


if __name__ == "__main__":
    main()
