"""What it costs a run to be looked at: CPU time of teaching a judge and of snapshots, over that of the training.

    python -m benchmarks.watching [--mnist FOLDER] [--cifar10 FOLDER]

One thread. Of each run a few steps and two snapshots are timed, and multiplied by how many a whole run has. What is
left out, features that are taught and moments that are matched, makes a run longer and the share smaller. Measured on
an AMD EPYC of Zen 5 (AVX-512, no AMX) beside other work; where bfloat16 is faster than there, the share is larger.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator

from training import fitting, precision, trainer
from training.data import Dataset, load, split_held_out
from training.diary import Diary
from training.features import Taught
from training.loop import Loop
from training.measure.guard import JudgeScore
from training.run import Intervals, RunConfig, RunFolder, configure
from training.snapshots import Snapshots

TABLE = Path(__file__).with_suffix(".md")
STEPS = 6
HEAD = (
    "recipe", "numbers", "data", "images", "snapshots", "judge's parameters", "judge, CPU s", "a snapshot, CPU s",
    "training, CPU min", "share",
)  # fmt: skip


def few(whole: Dataset, each: int) -> Dataset:
    """The first pictures of each class, under a name that has no judge."""
    assert whole.labels is not None
    rows = torch.cat([(whole.labels == number).nonzero().squeeze(1)[:each] for number in range(len(whole.classes))])
    part = whole.subset(rows)
    return Dataset(f"{Path(whole.name).name}-{len(part)}", part.images, part.labels, part.classes)


def chosen(dataset: Dataset) -> RunConfig:
    """What is trained where no recipe is asked for."""
    choice = fitting.choose(dataset)
    return configure(choice.recipe, dataset, images=choice.images, overrides=choice.overrides, precision=precision.AUTO)


def measure(config: RunConfig, dataset: Dataset) -> str:
    """A row of the table."""
    config, _ = precision.settle(config, Path("no run yet"))
    accelerator = Accelerator(cpu=True)
    rest, held_out = split_held_out(dataset)
    with tempfile.TemporaryDirectory() as place, environment("GANSERVE_DATA", place):
        begun = time.process_time()
        score, looks = trainer.watching(config, dataset, rest, held_out, accelerator)
        judge = time.process_time() - begun
        loop = Loop(config, rest, accelerator)
        if isinstance(loop.gan.discriminator, Taught):
            loop.gan.discriminator.teach = _nothing  # type: ignore[method-assign]
        folder = RunFolder(Path(place) / "run", _nothing, accelerator)
        folder.open(config, resume=False)
        snapshots = Snapshots(folder, config, loop.batches.drawn_labels(looks.images), score, looks.images)
        diary = Diary(loop, snapshots, folder, held_out)
        loop.advance(measure=True)
        step = least(lambda: loop.advance(measure=False), STEPS)
        look = least(diary.snapshot, 2)
    every = Intervals().snapshot_steps(config.steps, loop.images_per_step, looks.snapshots)
    number = config.steps // every + bool(config.steps % every)
    share = (judge + number * look) / (config.steps * step + judge + number * look)
    network = score.judge.network if isinstance(score, JudgeScore) else None
    numbers = "float32" if config.precision == precision.FLOAT32 else config.precision
    told = (
        f"`{config.recipe}`", numbers, Path(config.dataset).name, f"{config.images:,}", f"{number} of {looks.images:,}",
        f"{sum(p.numel() for p in network.parameters()):,}" if network else "pixels",
        f"{judge:.1f}", f"{look:.2f}", f"{config.steps * step / 60:.1f}", f"{share:.1%}",
    )  # fmt: skip
    return "| " + " | ".join(told) + " |"


def least(action: Callable[[], object], times: int) -> float:
    """The least CPU seconds that it takes."""
    found = []
    for _ in range(times):
        begun = time.process_time()
        action()
        found.append(time.process_time() - begun)
    return min(found)


def _nothing(*_: object, **__: object) -> None:
    """Stands for what is left out."""


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """A variable of the environment, for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    yield
    os.environ.pop(name) if before is None else os.environ.update({name: before})


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watching")
    parser.add_argument("--mnist", default="ylecun/mnist")
    parser.add_argument("--cifar10", default="uoft-cs/cifar10")
    options = parser.parse_args()
    torch.set_num_threads(1)
    mnist, cifar10 = load(options.mnist), load(options.cifar10)
    small, large, digits = few(cifar10, 100), few(cifar10, 500), few(mnist, 50)
    rows = [__doc__ or "", "| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for config, dataset in (
        *((configure(name, mnist, precision=precision.AUTO), mnist) for name in ("projgan", "dcgan", "cgan", "cdcgan")),
        *((chosen(dataset), dataset) for dataset in (small, large, digits, cifar10)),
    ):
        rows.append(measure(config, dataset))
        print(rows[-1], flush=True)
        TABLE.write_text("# What it costs to be looked at\n\n" + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
