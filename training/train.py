"""Train one GAN.

    python -m training.train --dataset path/to/class/folders            # the recipe that fits them
    python -m training.train --dataset path/to/class/folders --minutes 20
    python -m training.train --recipe cdcgan --dataset ylecun/mnist
    python -m training.train --recipe dcgan --dataset path/to/images --size 64 --run runs/faces
    python -m training.train --recipe cdcgan --dataset ylecun/mnist --resume
    accelerate launch --multi_gpu --num_processes 2 -m training.train --recipe dcgan --dataset digits
                                        # on a machine without GPUs: ACCELERATE_USE_CPU=true before it

Exit status: 0 finished; 2 bad input; 3 the training failed (NaN, collapse); 75 stopped by SIGTERM or Ctrl-C, with
a checkpoint from which ``--resume`` goes on.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ganserve import events, signals
from ganserve.events import BAD_INPUT, FAILED, FINISHED, STOPPED
from training import fitting, precision, recipes, trackers, trainer
from training.command import positive, refuse
from training.data import DataError, Dataset, load
from training.networks.fast import keep_memory
from training.relabel import in_order
from training.run import Event, Intervals, RunNameError, RunRefused, Stopped, TrainingError, check_name, configure

# A week.
MOST_MINUTES = 10_080


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, answer with the exit status of the module's text."""
    options = _parser().parse_args(argv)
    if options.die_with_parent:
        die_with_parent()
    keep_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    signals.heed()
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: asked.append(received))
    report = events.write if options.events else Bar()
    try:
        trackers.check(options.tracker)
        asked_for = _asked_for(options)
        run = options.run or Path("runs") / f"{_slug(options.dataset)}-{asked_for.recipe}"
        if not options.resume:
            check_name(run.name)
        _check_place(run)
        dataset = asked_for.dataset or _dataset(options, labelled=recipes.RECIPES[asked_for.recipe].conditional)
        config = configure(
            asked_for.recipe,
            dataset,
            images=asked_for.images,
            seed=options.seed,
            init=options.init,
            overrides=asked_for.overrides,
            precision=options.precision,
            processes=int(os.environ.get("WORLD_SIZE", "1")),
        )
        config, reason = precision.settle(config, run)
        if reason and not options.events:
            print(f"--precision {config.precision}: {reason}", file=sys.stderr)
        if short := fitting.too_short(config.settings, asked_for.images if options.recipe else options.images):
            report({"event": "warning", "reason": short})
        told = trackers.Tracked(options.tracker, config, run, report) if options.tracker else report
        intervals = Intervals(options.log_steps, options.snapshots, checkpoint_steps=options.checkpoint_steps)
        trainer.train(
            config,
            dataset,
            run,
            report=told,
            resume=options.resume,
            should_stop=lambda: bool(asked),
            intervals=intervals,
        )
    except (
        DataError, recipes.RecipeError, RunNameError, RunRefused, trackers.TrackerError, _NoPlace,
    ) as error:  # fmt: skip
        return _end(report, BAD_INPUT, error)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        return _end(report, BAD_INPUT, error)
    except TrainingError as error:
        return _end(report, FAILED, error)
    except Stopped:
        print("stopped; a checkpoint is saved, go on with --resume", file=sys.stderr)
        return STOPPED
    return FINISHED


class _AskedFor(NamedTuple):
    """What was asked for, with what was chosen where nothing was; the pictures, if it was chosen by them."""

    recipe: str
    images: int | None
    overrides: Mapping[str, float | int]
    dataset: Dataset | None = None


def _asked_for(options: argparse.Namespace) -> _AskedFor:
    """Raises RecipeError, and DataError where pictures had to be read."""
    overrides = _overrides(options.set)
    if options.minutes:
        return _within(options, overrides)
    if options.recipe is not None:
        recipes.get(options.recipe, overrides)
        return _AskedFor(options.recipe, options.images, overrides)
    dataset = _dataset(options, labelled=True)
    choice = fitting.choose(dataset)
    if options.images:
        choice = fitting.soon(choice, dataset, options.images)
    return _told(options, choice, overrides, dataset)


def _within(options: argparse.Namespace, overrides: Mapping[str, float | int]) -> _AskedFor:
    """What a number of minutes comes to; a run that was begun keeps what it came to then."""
    if options.images:
        raise recipes.RecipeError("--minutes and --images are two lengths: expected one of them")
    if torch.cuda.is_available():
        raise recipes.RecipeError("--minutes is for trainings on processors: expected --images where there is a GPU")
    if options.resume:
        if options.run is None:
            raise recipes.RecipeError("--minutes with --resume: expected --run as well, the run to go on with")
        if (begun := options.run / "config.json").exists():
            config = json.loads(begun.read_text(encoding="utf-8"))
            return _AskedFor(config["recipe"], config["images"], config["overrides"])
    if options.recipe is not None:
        recipes.get(options.recipe, overrides)
    labelled = options.recipe is None or recipes.RECIPES[options.recipe].conditional
    dataset = _dataset(options, labelled=labelled)
    threads = torch.get_num_threads() * int(os.environ.get("WORLD_SIZE", "1"))
    given = {"kind": options.precision, "threads": threads, "recipe": options.recipe}
    choice = precision.decided(lambda: fitting.within(options.minutes, dataset, overrides, **given))
    return _told(options, choice, overrides, dataset)


def _told(
    options: argparse.Namespace, choice: fitting.Choice, overrides: Mapping[str, float | int], dataset: Dataset
) -> _AskedFor:
    """What was chosen, and the command that asks for it."""
    images, overrides = options.images or choice.images, {**choice.overrides, **overrides}
    recipes.get(choice.recipe, overrides)
    if not options.events:
        told = "".join(f" --set {key}={value}" for key, value in overrides.items())
        length = f" --images {images}" if images else ""
        print(f"{choice.reason}; this is --recipe {choice.recipe}{length}{told}", file=sys.stderr)
    return _AskedFor(choice.recipe, images, overrides, dataset)


def _dataset(options: argparse.Namespace, *, labelled: bool) -> Dataset:
    """The pictures that were asked for, with a word on what they are. Raises DataError."""
    if options.init and not Path(options.init).is_file():
        raise DataError(f"--init {options.init}: no such file; expected the weights of a generator (.safetensors)")
    dataset = load(
        options.dataset,
        size=options.size,
        channels=options.channels,
        labelled=labelled,
        strict=options.strict,
        column=options.label_column,
        fit=recipes.size_for,
    )
    if dataset.report is not None and not options.events:
        print(*dataset.report.lines(), sep="\n", file=sys.stderr)
    return in_order(dataset, _names(options.classes)) if options.classes else dataset


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.train", description="Train one GAN.")
    add = parser.add_argument
    add("--recipe", help=f"one of {', '.join(recipes.RECIPES)}; unset: what fits the labelled pictures")
    add(
        "--dataset",
        required=True,
        help="hub name, local copy, folder of (class folders of) images, or digits",
    )
    add("--label-column", help="the column of labels, where a data set of the hub has several that may be it")
    add("--strict", action="store_true", help="refuse a data set with rows that lack a picture or a label")
    add("--images", type=positive, help="length in images seen; the recipe's own by default")
    add("--minutes", type=_minutes, help="length in the time of its threads on this machine, in place of --images")
    add("--seed", type=int, default=0, help="of weights, noise and order")
    add("--run", type=Path, help="the run's folder; runs/<dataset>-<recipe> by default")
    add("--resume", action="store_true", help="go on from the run's latest checkpoint")
    add("--init", help="weights (.safetensors) of a generator to begin from")
    add("--classes", help="JSON list of the data set's class names, in the order that labels shall have")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"override: {', '.join(recipes.BOUNDS)}",
    )
    add("--size", type=int, choices=recipes.SUPPORTED_SIZES, help="edge in pixels; fits the data by default")
    add("--channels", type=int, choices=(1, 3), help="grey or colour; as the data by default")
    add("--precision", choices=precision.CHOICES, default=precision.AUTO, help="of the networks; auto: what is faster")
    add("--threads", type=positive, help="CPU threads of this process")
    add("--log-steps", type=positive, default=100, help="steps between log lines")
    add("--snapshots", type=positive, help="snapshots in a whole run; 20 by default, fewer in a short run")
    add("--checkpoint-steps", type=positive, help="steps between checkpoints; every minute by default")
    add("--tracker", metavar="NAME", help=f"log to {', '.join(trackers.NEEDS)} too, besides the run's own files")
    add("--events", action="store_true", help="JSON lines on stdout instead of a progress bar")
    add("--die-with-parent", action="store_true", help="end when the parent process ends (Linux)")
    return parser


def _overrides(pairs: Sequence[str]) -> dict[str, float | int]:
    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise recipes.RecipeError(f"--set {pair}: expected KEY=VALUE")
        is_int = recipes.BOUNDS.get(key, {}).get("type") == "int"
        try:
            overrides[key] = int(value) if is_int else float(value)
        except ValueError:
            overrides[key] = value
    return overrides


def _minutes(text: str) -> float:
    """An option's time. Raises ArgumentTypeError."""
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes <= MOST_MINUTES:
        raise argparse.ArgumentTypeError(f"{text}: expected minutes, up to {MOST_MINUTES}")
    return minutes


# Of a folder's name, as almost all file systems have it.
_LONGEST = 255


class _NoPlace(ValueError):  # noqa: N818  never leaves this module
    pass


def _check_place(run: Path) -> None:
    """Raises _NoPlace where a run cannot be kept: better before the data are read than after."""
    if long := [part for part in run.parts if len(os.fsencode(part)) > _LONGEST]:
        raise _NoPlace(f"--run: a folder's name of {len(os.fsencode(long[0]))} bytes: at most {_LONGEST} can be one")
    place = run
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise _NoPlace(f"--run {run}: {place} is no folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise _NoPlace(f"--run {run}: this user may not write in {place}")


def _names(text: str) -> list[str]:
    """The class names of ``--classes``. Raises DataError for anything but a JSON list of texts."""
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f'--classes {text[:80]!r}: expected a JSON list of names, such as ["cat", "dog"]')
    return names


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", Path(name).name.lower()).strip("-") or "data"


def die_with_parent() -> None:
    """Ask the kernel for a SIGKILL when the parent ends, so that no orphan goes on training."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() == 1:
        os.kill(os.getpid(), signal.SIGKILL)


class Bar:
    """Progress in the terminal: images/s and time left, with warnings above it."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, event: Event) -> None:
        from tqdm import tqdm

        if event["event"] == "progress":
            if self.bar is None:
                self.bar = tqdm(total=event["images_total"], initial=event["images"], unit="img", unit_scale=True)
            self.bar.update(event["images"] - self.bar.n)
            told = {k: event[k] for k in ("loss_d", "loss_g", "d_real", "d_fake_after") if k in event}
            self.bar.set_postfix(told)
        elif event["event"] == "warning":
            tqdm.write(f"warning: {event['reason']}", file=sys.stderr)
        elif event["event"] == "finished" and self.bar is not None:
            self.bar.close()


def _end(report: Any, status: int, error: Exception) -> int:
    if report is events.write and status == BAD_INPUT:
        report({"event": "failed", "reason": str(error)})
    refuse(error)
    return status


if __name__ == "__main__":
    sys.exit(main())
