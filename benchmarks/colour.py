"""The table of the colour recipe and of small sets, from what ``python -m training.evaluate --json`` printed.

    python -m benchmarks.colour          # writes benchmarks/colour.md from benchmarks/colour.json

``colour.json`` is a list of {"run", "judge", "config", "scores"}: the configuration of a run, as its ``config.json``
has it, and its scores by one judge.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHOWN = ("label_accuracy", "frechet_ratio", "recall", "coverage", "precision", "copied")
TEXT = """# Colour, and small sets

10,000 generated images each, through onnxruntime, beside the test split: of float graphs, and of the exact versions
that are shipped, where a row names one (scored on a CPU). Trained and scored on one NVIDIA H200 that several runs
shared (torch 2.11, bfloat16 where the recipe is `projgan-colour`), in 20 minutes in all, from Hugging Face's
`cifar10` and `mnist` or from some pictures of each class of them (`cifar10-1000`: 100 a class). The judge `second`
shares neither weights nor layers nor augmentation with a run's own networks, and took no part in choosing snapshots:
`wide` on CIFAR-10 (89.97 % on the test split), `wide` on MNIST (99.64 %; `python -m training.judge --dataset mnist
--architecture wide --epochs 15`); `shipped` is MNIST's own. `frechet_ratio` is the
distance over that of training images. A run is `python -m training.train --recipe RECIPE --dataset DATASET --images
IMAGES --seed SEED --set KEY=VALUE` (snapshots are 1/8 to 1/24 of a run apart, and the best by held-out pictures is
kept). Made by `python -m benchmarks.colour` from `colour.json`.

"""


def main() -> None:
    """Write the table."""
    rows: list[dict[str, Any]] = json.loads((HERE / "colour.json").read_text(encoding="utf-8"))
    head = ("recipe", "data", "images", "seed", "overrides", "judge", *SHOWN)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        config, scores = row["config"], row["scores"]
        asked = ", ".join(f"{key} {value:g}" for key, value in config["overrides"].items()) or "-"
        name = f"`{config['recipe']}`" + (f", exact: `{row['run']}`" if config.get("exact") else "")
        told = [name, config["dataset"], f"{config['images']:,}", str(config["seed"]), asked]
        lines.append("| " + " | ".join([*told, row["judge"], *(f"{scores[name]:.4g}" for name in SHOWN)]) + " |")
    for judge, dataset in dict.fromkeys((row["judge"], row["scores"]["dataset"]) for row in rows):
        scores = next(r["scores"] for r in rows if (r["judge"], r["scores"]["dataset"]) == (judge, dataset))
        real = ["1" if name == "frechet_ratio" else f"{scores[f'{name}_real']:.4g}" for name in SHOWN]
        lines.append("| " + " | ".join(["real images", dataset, "", "", "", judge, *real]) + " |")
    kept = HERE / "colour.md"
    _, tried, after = kept.read_text(encoding="utf-8").partition("\n## ") if kept.exists() else ("", "", "")
    kept.write_text(TEXT + "\n".join(lines) + "\n" + tried + after, encoding="utf-8")


if __name__ == "__main__":
    main()
