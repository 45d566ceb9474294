"""The story of a run, from top to bottom.

:func:`train` opens the run's folder (:mod:`training.run`), makes the networks or takes them up from a checkpoint
(:mod:`training.loop`), and goes step by step (:mod:`training.gan`) through the recipe's stages
(:mod:`training.stages`). Every so often the run tells how it goes (:mod:`training.diary`), has its generator looked at
(:mod:`training.snapshots`), and saves a checkpoint (:mod:`training.checkpoint`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from training.checkpoint import Schedule
from training.data import Dataset, split_held_out
from training.diary import Diary
from training.loop import Loop
from training.measure import guard
from training.run import Intervals, Report, RunConfig, RunFolder, Stopped, TrainingError
from training.snapshots import Snapshots


def train(
    config: RunConfig,
    dataset: Dataset,
    run: Path,
    *,
    report: Report,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    intervals: Intervals = Intervals(),
    score: guard.Score | None = None,
) -> dict[str, Any]:
    """Train until ``config.images`` real images were shown; returns the final status.

    Raises:
        RunRefused: a run folder that holds another configuration, or data or weights that do not fit.
        TrainingError: NaN or collapse.
        Stopped: ``should_stop`` said so; a checkpoint was saved.
    """
    # Of bfloat16 the networks' own passes are all there is; float16 needs its gradients scaled as well.
    scaled = "fp16" if config.precision == "fp16" else "no"
    accelerator = Accelerator(mixed_precision=scaled, cpu=not torch.cuda.is_available())
    folder = RunFolder(run, report, accelerator)
    saved = folder.open(config, resume)
    folder.describe(dataset)
    rest, held_out = split_held_out(dataset)
    loop = Loop(config, rest, accelerator)
    if loop.told:
        folder.report({"event": "warning", "reason": loop.told})
    labels = loop.batches.drawn_labels(guard.IMAGES)
    own = dataset if config.settings.family == "colour" else None
    score = score or guard.scorer(held_out, rest, accelerator.device, whole=own)
    snapshots = Snapshots(folder, config, labels, score)
    if saved is not None:
        loop.load_state(saved)
        snapshots.load_state(saved)
    elif config.init:
        loop.gan.warm_start(Path(config.init))

    diary = Diary(loop, snapshots, folder)
    diary.status("running")
    try:
        _go_on(loop, diary, intervals, should_stop)
    except TrainingError as error:
        diary.status("failed", reason=str(error))
        snapshots.draw()
        folder.report({"event": "failed", "reason": str(error)})
        raise
    status = diary.status("finished", seconds=round(diary.clock.seconds, 1))
    snapshots.draw()
    folder.report({"event": "finished", **status})
    return status


def _go_on(loop: Loop, diary: Diary, intervals: Intervals, should_stop: Callable[[], bool]) -> None:
    """Step by step to the end, or to where a stop is asked for."""
    total = loop.config.steps
    snapshot_every = intervals.snapshot_steps(total, loop.images_per_step)
    schedule = Schedule(loop.step, total, intervals.checkpoint_seconds)
    while loop.step < total:
        logs = (loop.step + 1) % intervals.log_steps == 0 or loop.step + 1 == total
        measures = loop.advance(measure=logs)
        if logs:
            diary.log(measures)
        diary.epoch()
        if loop.step % snapshot_every == 0 or loop.step == total:
            diary.snapshot()
        by_steps = intervals.checkpoint_steps and loop.step % intervals.checkpoint_steps == 0
        by_time = intervals.checkpoint_steps is None and schedule.due(loop.step)
        if by_steps or loop.agreed(by_time):
            diary.checkpoint()
            schedule.saved(loop.step)
        if loop.agreed(should_stop()):
            diary.checkpoint()
            diary.status("stopped")
            raise Stopped
    diary.checkpoint()
