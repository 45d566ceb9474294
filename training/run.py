"""A run: what was asked for, and the folder in which it leaves what it did.

A run lives in one folder::

    config.json        what was asked for, in full
    dataset.json       what the set of pictures is: classes, sizes, what was left out
    status.json        {"state": "running" | "finished" | "stopped" | "failed", ...}
    log.jsonl          one line a log interval: losses, D(x), D(G(z)), images/s
    epochs.jsonl       one line an epoch: mean losses over its steps
    snapshots.jsonl    one line a snapshot: held-out scores
    checkpoints/       everything that is needed to go on, bit for bit
    best.safetensors   the generator (its EMA, if the recipe keeps one) of the best snapshot
    samples/           fresh noise for each class, and the same noise across all classes
    curves.svg         losses, D's answers and the score over steps
    report.html        all of it in one self-contained file
    finish             is put there by whoever wants the run to end early, with the best snapshot so far
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ganserve import files
from ganserve.card import NAME
from ganserve.events import FINISH
from training import checkpoint, networks, recipes
from training.data import Dataset, fingerprint

# A young generator shows one grey blur; only one that still does after so many steps, and after this share of its
# run, has collapsed.
GRACE_STEPS, GRACE_SHARE = 500, 0.2
# Short runs have fewer snapshots.
SNAPSHOT_IMAGES = 10_000

Event = dict[str, Any]
Report = Callable[[Event], None]


class TrainingError(RuntimeError):
    """Training that cannot go on: NaN, collapse, or a resume that would not continue the same run."""


class RunRefused(TrainingError):  # noqa: N818
    """A run that cannot begin, by what was asked for: nothing was trained."""


# Characters of a model's name that can be asked for.
LONGEST = 64


class RunNameError(ValueError):
    """A name that no model could have, so that a run of it could never be exported by its own name."""


def check_name(name: str) -> None:
    """Raises RunNameError for a run's name that is no model's name either: better before the training than after."""
    if len(name) > LONGEST:
        raise RunNameError(f"run name {name[:20]!r}... has {len(name)} characters: at most {LONGEST} can be a model's")
    if not NAME.fullmatch(name):
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        instead = re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "my-run"
        raise RunNameError(
            f"run name {name!r} cannot be a model's: expected small letters, digits and hyphens, such as {instead!r}"
        )


class Stopped(Exception):  # noqa: N818  an interruption, not an error
    """The run was asked to stop; its checkpoint is saved."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes. Two runs of one config give the same weights on one machine."""

    recipe: str
    dataset: str
    images: int
    seed: int
    size: int
    channels: int
    classes: tuple[str, ...]
    init: str | None = None
    overrides: Mapping[str, float | int] = field(default_factory=dict)
    precision: str = "no"
    processes: int = 1
    pictures: str = ""  # a digest of the images and labels themselves

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with names in the place of paths: a run may be moved, and its data with it."""
        return named(json.loads(json.dumps(dataclasses.asdict(self))))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> RunConfig:
        """The inverse of :meth:`as_dict`."""
        return cls(**{**raw, "classes": tuple(raw["classes"])})

    @property
    def settings(self) -> recipes.Recipe:
        """The recipe with this run's overrides."""
        return recipes.get(self.recipe, self.overrides)

    @property
    def shape(self) -> networks.Shape:
        """What the networks are built for."""
        recipe = self.settings
        return networks.Shape(recipe.z, len(self.classes) if recipe.conditional else 0, self.channels, self.size)

    @property
    def steps(self) -> int:
        """Steps of a whole run, each of ``d_steps`` batches."""
        recipe = self.settings
        return max(1, math.ceil(self.images / (recipe.batch * recipe.d_steps)))


def named(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the names of local files, and of copies of the hub's data sets, in the place of paths."""
    names = {key: config[key] and Path(config[key]).name for key in ("dataset", "init")}
    return {**config, **names}


@dataclass(frozen=True)
class Intervals:
    """How often a run logs (steps), and checkpoints and takes snapshots (times in a whole run)."""

    log_steps: int = 100
    snapshots: int | None = None  # as many as the run's cost allows, but no closer than SNAPSHOT_IMAGES
    checkpoint_seconds: float = 60.0
    checkpoint_steps: int | None = None

    def snapshot_steps(self, total: int, images_per_step: int, usual: int = 20) -> int:
        """Steps between snapshots, which decide the best one: counted, not timed, so that every run has the same."""
        if self.snapshots is not None:
            return max(1, total // self.snapshots)
        return max(total // usual, math.ceil(SNAPSHOT_IMAGES / images_per_step))


def configure(
    recipe: str,
    dataset: Dataset,
    *,
    images: int | None = None,
    seed: int = 0,
    init: str | None = None,
    overrides: Mapping[str, float | int] | None = None,
    precision: str = "no",
    processes: int = 1,
) -> RunConfig:
    """A run's configuration for a data set that is in memory. Raises RecipeError for what the recipe refuses."""
    settings = recipes.get(recipe, overrides)
    return RunConfig(
        recipe=recipe,
        dataset=dataset.name,
        images=images or settings.images,
        seed=seed,
        size=dataset.size,
        channels=dataset.channels,
        classes=dataset.classes,
        pictures=fingerprint(dataset),
        init=init,
        overrides=dict(overrides or {}),
        precision=precision,
        processes=processes,
    )


def grace(steps: int) -> float:
    """The step from which on a generator of a run of so many steps is old enough to be called collapsed."""
    return max(GRACE_STEPS, steps * GRACE_SHARE)


def ask_to_finish(run: Path) -> None:
    """Have a run end early, as a finished one, with the best snapshot so far."""
    (run / FINISH).touch()


class RunFolder:
    """What a run leaves on disk and tells whoever watches. Only the first process writes."""

    def __init__(self, path: Path, report: Report, accelerator: Accelerator) -> None:
        self.path, self.accelerator = path, accelerator
        self.main = accelerator.is_main_process
        self.report: Report = report if self.main else (lambda event: None)

    def open(self, config: RunConfig, resume: bool) -> dict[str, Any] | None:
        """The first process lays or checks the folder, and all hear how that went: the state to go on from, or None.

        Raises:
            RunRefused: the folder holds another configuration, or a run that is not to be resumed.
        """
        saved, outcome = None, [""]
        if self.main:
            try:
                saved = self._open(config, resume)
            except RunRefused as error:
                outcome = [str(error)]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(outcome)
        if outcome[0]:
            raise RunRefused(outcome[0])
        if not self.main and resume:
            saved, _ = checkpoint.latest(self.path / "checkpoints")
        return saved

    def _open(self, config: RunConfig, resume: bool) -> dict[str, Any] | None:
        file, name = self.path / "config.json", self.path.name
        if not file.exists():
            _write_json(file, config.as_dict())
            return None
        before, now = named(json.loads(file.read_text(encoding="utf-8"))), config.as_dict()
        # What an earlier version did not write down is not known to differ.
        changed = {key for key in before.keys() & now.keys() if before[key] != now[key]}
        if changed == {"pictures"}:
            raise RunRefused(
                f"the pictures of data set {now['dataset']!r} have changed since run {name!r} was begun: bring them "
                "back, or name another run"
            )
        if changed:
            told = "; ".join(f"{key}: {before.get(key)!r} before, {now.get(key)!r} now" for key in sorted(changed))
            raise RunRefused(f"run {name!r} was begun with another configuration ({told}); name another run")
        if not resume:
            raise RunRefused(f"run {name!r} exists: continue it with --resume, or name another run")
        state, warnings = checkpoint.latest(self.path / "checkpoints")
        for warning in warnings:
            self.report({"event": "warning", "reason": warning})
        self._trim(0 if state is None else state["step"])
        return state

    def _trim(self, step: int) -> None:
        """Drop what was logged after the checkpoint, so that a resumed run reads like an undisturbed one."""
        for name in ("log.jsonl", "epochs.jsonl", "snapshots.jsonl"):
            file = self.path / name
            if file.exists():
                lines = [json.loads(line) for line in _whole_lines(file)]
                kept = "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step)
                files.replace(file, kept.encode())

    @property
    def to_finish(self) -> bool:
        """Whether somebody wants the run to end early."""
        return (self.path / FINISH).exists()

    def status(self, state: str, progress: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Replace ``status.json``; returns what it holds."""
        threads = {"threads": torch.get_num_threads(), "torch": torch.__version__}
        status = {"state": state, **progress, **threads, **more}
        if self.main:
            _write_json(self.path / "status.json", status)
        return status

    def append(self, log: str, line: Mapping[str, Any]) -> None:
        """One line in ``log.jsonl``, ``epochs.jsonl`` or ``snapshots.jsonl``."""
        if self.main:
            with (self.path / f"{log}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def describe(self, dataset: Dataset) -> None:
        """Write ``dataset.json``, where there is a report of the set."""
        if self.main and dataset.report is not None:
            _write_json(self.path / "dataset.json", dataset.report.as_dict())

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Save everything that decides the rest of the run."""
        if self.main:
            checkpoint.save(self.path / "checkpoints", state["step"], state)

    def keep(self, weights: bytes) -> None:
        """Replace ``best.safetensors``."""
        files.replace(self.path / "best.safetensors", weights)


def _whole_lines(file: Path) -> list[str]:
    """Lines that were written to their end; a kill can leave half of one."""
    return [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    """One JSON document, atomically."""
    files.replace(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
