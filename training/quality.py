"""The table of all models of the repository, from their scores and one measurement of speed.

python -m training.quality          # writes benchmarks/quality.md and quality.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ganserve.card import ModelCard
from ganserve.latents import consecutive, latents
from ganserve.repository import Repository
from training.command import ends, refuse
from training.graphs import open_session, run_session

HERE = Path(__file__).parent.parent / "benchmarks"
BATCHES = (16, 64)
SHOWN = (
    "label_accuracy",
    "frechet",
    "frechet_ratio",
    "kid",
    "precision",
    "recall",
    "density",
    "coverage",
    "classifier_score",
    "class_kl",
    "within_class_variance_ratio",
    "copied",
    "cas",
    "unsupervised_frechet_ratio",
    "unsupervised_recall",
)
# Metrics whose value for real images is 1 by what they are.
RATIOS = ("frechet_ratio", "unsupervised_frechet_ratio")


def images_per_second(
    card: ModelCard, content: bytes, lanes: int, batch: int, rounds: int = 5, seconds: float = 0.4
) -> float:
    """The median rate of ``lanes`` single-threaded CPU sessions side by side, which is how the service runs them."""
    sessions = [open_session(content) for _ in range(lanes)]
    noise = latents(card.latent_recipe, consecutive(0, batch), card.z)
    label = np.zeros((batch, 1), np.int64) if card.conditional else None

    def work(session: Any) -> float:
        started, runs = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            run_session(session, noise, label)
            runs += 1
        return runs * batch / (time.perf_counter() - started)

    for session in sessions:
        run_session(session, noise, label)
    with ThreadPoolExecutor(lanes) as pool:
        return statistics.median(sum(pool.map(work, sessions)) for _ in range(rounds))


def speed(card: ModelCard, content: bytes, rounds: int = 5, seconds: float = 0.4) -> dict[str, int]:
    """Images a second of one thread, and the best of all cores, each at the better of two batch sizes."""
    cores = os.cpu_count() or 1
    rates = {
        lanes: max(images_per_second(card, content, lanes, batch, rounds, seconds) for batch in BATCHES)
        for lanes in {1, cores}
    }
    return {"images_per_second": round(rates[1]), "best_images_per_second": round(max(rates.values()))}


def rows(repository: Repository, before: Mapping[tuple[str, int], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a live model; ``before`` are rows of versions, whose speeds are taken as they are."""
    found = []
    for name in repository.names():
        version = repository.live(name)
        if version is None:
            continue
        card, content = repository.read(name, version)
        found.append(
            {
                "model": name,
                "version": version,
                "recipe": card.recipe,
                "parameters": card.parameters,
                "macs": card.macs,
                "file_bytes": card.file_bytes,
                **(_speeds(before[name, version]) if (name, version) in before else speed(card, content)),
                "metrics": repository.scores(name, version),
            }
        )
    return found


def _speeds(row: Mapping[str, Any]) -> dict[str, int]:
    return {name: row[name] for name in ("images_per_second", "best_images_per_second")}


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: the models, then what real images get in the same place."""
    head = ["model", *SHOWN, "parameters", "multiply-adds", "file, KB", "images/s, 1 thread", "images/s, best"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in found:
        shown = [_number(row["metrics"].get(name)) for name in SHOWN]
        size = [f"{row['parameters']:,}", f"{row['macs']:,}", f"{row['file_bytes'] / 1000:,.0f}"]
        rates = [f"{row['images_per_second']:,}", f"{row['best_images_per_second']:,}"]
        lines.append("| " + " | ".join([f"`{row['model']}`", *shown, *size, *rates]) + " |")
    for judge in sorted({row["metrics"]["judge"] for row in found if row["metrics"]}):
        floor = max((row["metrics"] for row in found if row["metrics"].get("judge") == judge), key=len)
        shown = ["1" if name in RATIOS else _number(floor.get(f"{name}_real")) for name in SHOWN]
        lines.append("| " + " | ".join([f"real images ({floor['dataset']})", *shown, *[""] * 5]) + " |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def write(repository: Repository, *, keep_speeds: bool = False) -> None:
    """Measure and record; with ``keep_speeds`` those that the table has of the same versions stay."""
    before: list[dict[str, Any]] = []
    if keep_speeds and (HERE / "quality.json").exists():
        before = json.loads((HERE / "quality.json").read_text(encoding="utf-8"))
    found = rows(repository, {(row["model"], row["version"]): row for row in before})
    HERE.mkdir(exist_ok=True)
    (HERE / "quality.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    judged: dict[str, Any] = next((row["metrics"] for row in found if row["metrics"]), {})
    text = (
        "# Quality of the shipped models\n\n"
        f"{judged.get('images', 'No')} generated images each, scored on the exported ONNX files against the "
        f"{judged.get('split', '')} split in the features of the shipped judge; the last row is a sample of training "
        "images in the place of generated ones, whose labels conditional models were asked for. `frechet_ratio` is the "
        "Frechet distance over that of the last row. `cas` is the accuracy on real images of a classifier that saw "
        "generated ones only; `unsupervised` metrics are in features that know no classes "
        "(`training/measure/unsupervised.py`). "
        "Images/s: single-threaded CPU sessions of onnxruntime at batches of 16 or 64, whichever is faster; one of "
        f"them, and the better of one and {os.cpu_count()} side by side, one a core, as measured when this table was "
        "written. Made by `python -m training.quality` from what `python -m training.evaluate --record` measured.\n\n"
    )
    (HERE / "quality.md").write_text(text + table(found) + "\n", encoding="utf-8")


@ends
def main(argv: Sequence[str] | None = None) -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(prog="python -m training.quality", description="Write benchmarks/quality.md.")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--keep-speeds", action="store_true", help="measure those of new versions only")
    options = parser.parse_args(argv)
    repository = Repository(options.models)
    if not repository.names():
        return refuse(f"{repository.place} holds no models: nothing is written")
    write(repository, keep_speeds=options.keep_speeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
