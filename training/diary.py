"""What a run tells as it goes, in its folder and to whoever watches."""

from __future__ import annotations

from typing import Any

from training import memory
from training.data import Dataset
from training.loop import Loop
from training.progress import Clock
from training.run import RunFolder
from training.snapshots import Snapshots


class Diary:
    """Status, logs, snapshots and checkpoints of one run, each when the trainer says so."""

    def __init__(self, loop: Loop, snapshots: Snapshots, folder: RunFolder, held_out: Dataset) -> None:
        self.loop, self.snapshots, self.folder, self.held_out = loop, snapshots, folder, held_out
        self.clock = Clock(loop.images_seen)
        self.seconds_left: float | None = None

    def status(self, state: str, **more: Any) -> dict[str, Any]:
        """Replace ``status.json``; returns what it holds."""
        loop = self.loop
        progress = {"step": loop.step, "steps": loop.config.steps, "images": loop.images_seen}
        if state == "running":
            more["seconds_left"] = self.seconds_left and round(self.seconds_left)
        told = {"best": self.snapshots.best, "precisions": loop.precisions}
        return self.folder.status(state, {**progress, **told}, **more)

    def log(self, measures: dict[str, float]) -> None:
        """One line in ``log.jsonl``, one progress event."""
        loop = self.loop
        rate = self.clock.rate(loop.images_seen)
        total = loop.config.steps * loop.images_per_step
        line = {
            "step": loop.step,
            "images": loop.images_seen,
            "images_per_second": round(rate, 1),
            **{name: round(value, 5) for name, value in measures.items()},
        }
        self.folder.append("log", line)
        self.seconds_left = (total - loop.images_seen) / rate if rate else None
        ahead = {"steps": loop.config.steps, "images_total": total, "seconds_left": self.seconds_left}
        self.folder.report({"event": "progress", **line, **ahead})

    def epoch(self) -> None:
        """One line in ``epochs.jsonl`` where a step ends an epoch."""
        means = self.loop.epoch_means()
        if means is not None:
            line = {name: round(value, 5) for name, value in means.items()}
            self.folder.append("epochs", {"step": self.loop.step, "images": self.loop.images_seen, **line})

    def snapshot(self) -> None:
        """Look at the generator as it stands. Raises TrainingError if it has collapsed."""
        loop = self.loop
        if self.folder.main:
            device, known = loop.accelerator.device, memory.gap(loop.gan, loop.batches.dataset, self.held_out)
            self.snapshots.take(loop.to_export(), device, loop.step, loop.images_seen, loop.logit_gap, known)
            self.status("running")
            self.snapshots.draw()

    def checkpoint(self) -> None:
        """Save everything; all processes take part, the first one writes."""
        self.folder.checkpoint({**self.loop.state(), **self.snapshots.state()})
        if self.folder.main:
            self.status("running")
        self.folder.report({"event": "checkpoint", "step": self.loop.step})
