"""A run in a tracker of the user's own besides its JSON lines and report: TensorBoard, MLflow or Weights & Biases.

    python -m training.train --recipe cgan --dataset digits --tracker tensorboard
    tensorboard --logdir runs

What a tracker is told are the run's own events: losses, metrics, sample sheets; and at first the recipe's values. The
trackers are accelerate's. TensorBoard's files stand in the run's folder; where the others keep theirs, their own
environment variables say (``MLFLOW_TRACKING_URI``, ``WANDB_MODE``, ...).
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Each with the package that it needs, and what brings that.
NEEDS: Mapping[str, tuple[str, str]] = {
    "tensorboard": ("tensorboard", "pip install 'ganserve[trackers]'"),
    "mlflow": ("mlflow", "pip install mlflow"),
    "wandb": ("wandb", "pip install wandb"),
}
PROJECT = "ganserve"
_PLACES = ("step", "steps", "images", "images_total", "seconds_left")
_LONGEST = 250


class TrackerError(ValueError):
    """No tracker of that name, or its package is missing."""


def check(name: str | None) -> None:
    """Before anything else is done: raises TrackerError for a tracker that could not be told anything."""
    if name is None:
        return
    if name not in NEEDS:
        raise TrackerError(f"{name!r} is no tracker: expected one of {', '.join(NEEDS)}")
    package, brought_by = NEEDS[name]
    if importlib.util.find_spec(package) is None:
        raise TrackerError(f"the tracker {name} needs the package {package}, which is not installed: {brought_by}")


class Tracked:
    """A run's report that tells a tracker too. One that fails is told of once, and the run goes on without it.

    Args:
        name: one of ``NEEDS``.
        config: the run's :class:`training.run.RunConfig`.
        run: the run's folder.
        report: whoever is told already.
    """

    def __init__(self, name: str, config: Any, run: Path, report: Callable[[dict[str, Any]], None]) -> None:
        self._name, self._config, self._run, self._report = name, config, run, report
        self._tracker: Any = None
        self._given_up = False

    def __call__(self, event: dict[str, Any]) -> None:
        self._report(event)
        if self._given_up:
            return
        try:
            self._tell(**event)
        except Exception as error:  # of a service that is away, a full disk, or whatever else a tracker meets
            self._given_up = True
            said = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
            self._report({"event": "warning", "reason": f"the tracker {self._name} is told nothing more: {said}"})

    def _tell(self, event: str, **told: Any) -> None:
        if event in ("progress", "samples"):
            step = int(told["step"])
            if self._tracker is None:
                self._tracker = self._begun(step)
            numbers = {
                f"{'training' if event == 'progress' else 'metrics'}/{name}": value
                for name, value in told.items()
                if name not in _PLACES and isinstance(value, int | float) and not isinstance(value, bool)
            }
            self._tracker.log(numbers | {"training/images": told["images"]}, step=step)
            if event == "samples":
                self._show(self._run / told["path"], step)
        elif event in ("finished", "failed") and self._tracker is not None:
            self._tracker.finish()

    def _begun(self, step: int) -> Any:
        """The tracker, told of the recipe's values."""
        from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker

        # A job's run is a folder of attempts below the job's own.
        run = self._run.resolve()
        title = run.parent.name if run.name.startswith("attempt-") else run.name
        if self._name == "tensorboard":
            # What was told beyond the checkpoint that a run goes on from is told again.
            tracker: Any = TensorBoardTracker("tensorboard", run, purge_step=step)
        elif self._name == "mlflow":
            tracker = MLflowTracker(PROJECT, run_name=title)
        else:
            place = run.parent if title != run.name else run
            again = hashlib.sha256(str(place).encode()).hexdigest()[:16]
            tracker = WandBTracker(PROJECT, name=title, id=again, resume="allow", dir=str(run))
        tracker.start()
        tracker.store_init_configuration(values(self._config))
        return tracker

    def _show(self, sheet: Path, step: int) -> None:
        """A sample sheet, as the tracker shows pictures."""
        if self._name == "mlflow":
            self._tracker.log_artifact(str(sheet), "samples")
            return
        with Image.open(sheet) as opened:
            picture = opened.convert("RGB")
        if self._name == "tensorboard":
            self._tracker.log_images({"samples": np.asarray(picture)[None]}, step=step, dataformats="NHWC")
        else:
            self._tracker.log_images({"samples": [picture]}, step=step)


def values(config: Any) -> dict[str, bool | int | float | str]:
    """What a run is and its recipe's numbers, as every tracker takes them."""
    told = {**dataclasses.asdict(config.settings), **config.as_dict()}
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value, default=str)[:_LONGEST]
        for name, value in told.items()
    }
