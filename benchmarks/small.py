"""Small and odd sets, as a user brings them: a folder of pictures, no recipe asked for.

    python -m benchmarks.small SET [--mnist FOLDER] [--cifar10 FOLDER] [--seed N] [--plain] [--images N] [--set K=V]

makes the set as a folder of class folders with a test split beside it, trains what fits it (``--plain``: the recipe
for digits instead) on one thread, exports the best snapshot as a float graph, and scores it beside the test split by a
judge that took no part. A line is added to ``small.jsonl``, and ``small.md`` is written from all of them.

SET is one of: ``cifar10-300``, ``cifar10-1000``, ``cifar10-5000``, ``mnist-500`` (as many of each class); ``twelve``,
grey classes of 10 to 200 pictures (the digits, and fours and sevens that lie on their side); ``fifty``, colour classes
of 20 pictures (digits in five inks). The judge of the first four is the second one of the source where there is one,
else the shipped one; of the last two it is taught on a hundred times as many such pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from training import export, fitting, trainer
from training.data import Dataset, load, split_held_out
from training.evaluate import evaluate_onnx
from training.measure import judge
from training.run import configure

HERE = Path(__file__).parent
LINES, TABLE = HERE / "small.jsonl", HERE / "small.md"
SHOWN = ("label_accuracy", "frechet_ratio", "recall", "coverage", "precision", "copied")
INKS = {
    "blue": (90, 120, 255),
    "green": (80, 220, 90),
    "red": (255, 80, 70),
    "violet": (200, 90, 255),
    "yellow": (250, 225, 70),
}
TWELVE = (10, 200, 15, 150, 20, 100, 30, 80, 40, 60, 50, 70)


@dataclass(frozen=True)
class Made:
    """Pictures [n, h, w] or [n, h, w, 3] of each class."""

    classes: dict[str, Tensor]

    def some(self, counts: Sequence[int], seed: int) -> Made:
        """So many of each class."""
        drawn = torch.Generator().manual_seed(seed)
        pairs = zip(self.classes.items(), counts, strict=True)
        return Made({name: all_[torch.randperm(len(all_), generator=drawn)[:count]] for (name, all_), count in pairs})

    def dataset(self, name: str) -> Dataset:
        """The same in memory."""
        images = torch.cat([one if one.dim() == 4 else one[..., None] for one in self.classes.values()])
        counts = torch.tensor([len(one) for one in self.classes.values()])
        labels = torch.arange(len(counts)).repeat_interleave(counts)
        return Dataset(name, images.permute(0, 3, 1, 2).contiguous(), labels, tuple(self.classes))

    def write(self, folder: Path) -> None:
        """As class folders."""
        for name, pictures in self.classes.items():
            (folder / name).mkdir(parents=True)
            for index, picture in enumerate(pictures):
                Image.fromarray(picture.numpy()).save(folder / name / f"{index:05d}.png")


def of_classes(dataset: Dataset) -> Made:
    """A source's pictures by class."""
    assert dataset.labels is not None
    images = dataset.images.permute(0, 2, 3, 1).squeeze(3)
    return Made({name: images[dataset.labels == number] for number, name in enumerate(dataset.classes)})


def twelve(source: Made) -> Made:
    """The digits, and two of them on their side."""
    turned = {f"{name}-lying": source.classes[name].rot90(1, (1, 2)).contiguous() for name in ("4", "7")}
    return Made(dict(sorted({**source.classes, **turned}.items())))


def fifty(source: Made) -> Made:
    """Each digit in five inks."""
    inked = {
        f"{digit}-{ink}": (pictures[..., None].float() * torch.tensor(colour) / 255).round().to(torch.uint8)
        for digit, pictures in source.classes.items()
        for ink, colour in INKS.items()
    }
    return Made(dict(sorted(inked.items())))


def lay(name: str, source: str, place: Path) -> tuple[Path, Path]:
    """The set as a folder, and the weights of the judge that it is held to."""
    train, test = of_classes(load(source)), of_classes(load(source, split="test"))
    folder = place / name
    if name in ("twelve", "fifty"):
        change, counts = (twelve, TWELVE) if name == "twelve" else (fifty, (20,) * 50)
        whole, test = change(train), change(test)
        few = whole.some(counts, 5)
        many = whole.some([min(2000, 100 * count) for count in counts], 6).dataset(name)
        rest, held_out = split_held_out(many)
        network, accuracies = judge.fit(rest, held_out, epochs=4)
        referee = place / "judge.safetensors"
        judge.write(referee, network, many, {"held_out_accuracies": accuracies})
        test = test.some([200] * len(counts), 7)
    else:
        number = int(name.rpartition("-")[2])
        few = train.some([number // len(train.classes)] * len(train.classes), 5)
        second = judge.SHIPPED / "second" / f"{Path(source).name}.safetensors"
        referee = second if second.exists() else judge.SHIPPED / f"{Path(source).name}.safetensors"
    few.write(folder / "train")
    test.write(folder / "test")
    return folder, referee


def run(options: argparse.Namespace, asked: Mapping[str, float | int]) -> dict[str, Any]:
    """Lay, train, export and score; the line to be kept."""
    source = options.cifar10 if options.name.startswith("cifar10") else options.mnist
    with tempfile.TemporaryDirectory() as place:
        os.environ["GANSERVE_DATA"] = place
        folder, referee = lay(options.name, source, Path(place))
        dataset = load(str(folder))
        choice = fitting.choose(dataset)
        recipe, given = ("projgan", {"batch": 64}) if options.plain else (choice.recipe, {**choice.overrides, **asked})
        config = configure(
            recipe, dataset, images=options.images or choice.images, seed=options.seed, overrides=given,
            precision=options.precision,
        )  # fmt: skip
        begun = time.process_time()
        status = trainer.train(config, dataset, Path(place) / "run", report=_tell)
        minutes = (time.process_time() - begun) / 60
        content = export.float_model(export.FinishedRun.read(Path(place) / "run"), "small", None)[1]
        scores = evaluate_onnx(content, str(folder), referee=referee)
        lines = (Path(place) / "run" / "snapshots.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    followed = ("images", "score", "label_accuracy", "frechet_ratio", "recall", "near_copies", "held_out_gap")
    return {
        "set": options.name,
        "recipe": recipe,
        "images": config.images,
        "seed": options.seed,
        "overrides": given,
        "cpu_minutes": round(minutes, 1),
        "best": status["best"]["images"],
        "scores": {key: scores[key] for name in SHOWN for key in (name, f"{name}_real") if key in scores},
        "judge": scores["judge"],
        "curve": [{name: line[name] for name in followed if line.get(name) is not None} for line in told],
    }


def _tell(event: Mapping[str, Any]) -> None:
    shown = {key: event[key] for key in ("images", "label_accuracy", "score", "coverage", "reason") if key in event}
    if event["event"] in ("samples", "warning"):
        print(json.dumps(shown), f"{time.process_time() / 60:.1f} CPU minutes", flush=True)


def write() -> None:
    """The table of all lines."""
    rows = [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]
    head = ("set", "recipe", "images", "seed", "overrides", "CPU minutes", "best at", *SHOWN)
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        asked = ", ".join(f"{key} {value:g}" for key, value in row["overrides"].items())
        told = [row["set"], f"`{row['recipe']}`", f"{row['images']:,}", str(row["seed"]), asked]
        told += [f"{row['cpu_minutes']:g}", f"{row['best']:,}"]
        lines.append("| " + " | ".join([*told, *(f"{row['scores'][name]:.4g}" for name in SHOWN)]) + " |")
    for name, real in {row["set"]: row["scores"] for row in rows}.items():
        shown = ["1" if metric == "frechet_ratio" else f"{real[f'{metric}_real']:.4g}" for metric in SHOWN]
        lines.append("| " + " | ".join([name, "training pictures", *[""] * 5, *shown]) + " |")
    TABLE.write_text("# Small and odd sets\n\n" + (__doc__ or "") + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Train one, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small")
    parser.add_argument("name", choices=("cifar10-300", "cifar10-1000", "cifar10-5000", "mnist-500", "twelve", "fifty"))
    parser.add_argument("--mnist", default="ylecun/mnist")
    parser.add_argument("--cifar10", default="uoft-cs/cifar10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--images", type=int)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs = [pair.partition("=") for pair in options.set]
    line = run(options, {key: float(value) if "." in value else int(value) for key, _, value in pairs})
    with LINES.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    write()


if __name__ == "__main__":
    main()
