"""Looks at a run's generator: scored, guarded against collapse, drawn, and kept if none was better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from ganserve import charts
from training import pictures, report
from training.measure import guard
from training.run import RunConfig, RunFolder, TrainingError, grace
from training.sampling import Renderer


class Snapshots:
    """What a run's generators were worth so far.

    Attributes:
        labels: int64 [n] of the images that are scored, in the training images' proportions; None if unconditional.
        images: n.
        taken: the step of the last one.
        best: the line of ``snapshots.jsonl`` whose generator is kept; None before the first.
    """

    def __init__(
        self, folder: RunFolder, config: RunConfig, labels: Tensor | None, score: guard.Score, images: int
    ) -> None:
        self.folder, self.config, self.labels, self.score, self.images = folder, config, labels, score, images
        self.guard = guard.Guard()
        # Where a run is shorter than its recipe, a generator is as young as it would be in a whole one.
        whole = round(config.steps * config.settings.images / config.images)
        self.grown = grace(max(config.steps, whole))
        self.best: dict[str, Any] | None = None
        self.taken = 0

    def take(
        self,
        net: nn.Module,
        device: torch.device,
        step: int,
        images_seen: int,
        gap: float | None,
        memory: Mapping[str, float],
    ) -> None:
        """Score a generator in evaluation mode, keep it if it is the best so far, draw its samples.

        Args:
            gap: the logit gap of the step.
            memory: what is known of the discriminator's memory, scores of their own.

        Raises:
            TrainingError: the generator has collapsed for three snapshots on end, after a fifth of its recipe's length.
        """
        folder, config = self.folder, self.config
        self.taken = step
        render = Renderer(net, config.settings, config.shape.classes, device)
        images = render(render.noise(self.images), self.labels)
        scores = {**self.score(images, self.labels), **memory}
        line = {"step": step, "images": images_seen, **scores}
        folder.append("snapshots", line)
        sheet = pictures.sample_sheets(folder.path, step, render, config.classes if config.shape.classes else ())
        told = {"event": "samples", "path": str(sheet.relative_to(folder.path)), "curve": self.curve(), **line}
        folder.report(told)
        self._watch(scores, step, gap)
        if not self.guard.strikes and self._better(scores):
            self.best = line
            folder.keep(to_safetensors({k: v.contiguous().cpu() for k, v in net.state_dict().items()}))

    def _better(self, scores: Mapping[str, Any]) -> bool:
        """Lower by held-out images, and no worse a copyist."""
        if self.best is None or guard.copies(self.best) > guard.copies(scores):
            return True
        lower: bool = scores["score"] <= self.best["score"]
        return lower and guard.copies(self.best) == guard.copies(scores)

    def curve(self) -> list[dict[str, Any]]:
        """The scores that a person follows, of every snapshot so far."""
        taken = charts.lines(self.folder.path / "snapshots.jsonl")
        return [
            {name: line[name] for name in ("images", *report.FOLLOWED, "score") if charts.finite(line.get(name))}
            for line in taken
        ]

    def _watch(self, scores: dict[str, Any], step: int, gap: float | None) -> None:
        young = step < grace(self.config.steps)
        try:
            warnings = self.guard.check(scores, logit_gap=gap, young=step < self.grown)
        except guard.CollapseError as error:
            raise TrainingError(f"the generator has collapsed: {error}") from error
        for warning in [] if young else warnings:
            self.folder.report({"event": "warning", "reason": warning, "step": step})

    def draw(self) -> None:
        """Bring ``curves.svg`` and ``report.html`` up to date."""
        if self.folder.main:
            charts.write(self.folder.path)
            report.write(self.folder.path)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"best": self.best, "strikes": self.guard.strikes, "taken": self.taken}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.best, self.guard.strikes = state["best"], state["strikes"]
        # Of a checkpoint before it was noted: the best one's step is the latest that is known.
        self.taken = state.get("taken", (self.best or {}).get("step", 0))
