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

from training import price
from training.checkpoint import Schedule
from training.data import Dataset, split_held_out
from training.diary import Diary
from training.loop import Loop
from training.measure import guard, judge
from training.price import IMAGES, MOST, Looks
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
    """Train until ``config.images`` real images were shown, or until :func:`training.run.ask_to_finish` was called;
    returns the final status.

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
    looks = Looks(intervals.snapshots or MOST, IMAGES)
    if score is None:
        score, looks = watching(config, dataset, rest, held_out, accelerator)
    snapshots = Snapshots(folder, config, loop.batches.drawn_labels(looks.images), score, looks.images)
    if saved is not None:
        loop.load_state(saved)
        snapshots.load_state(saved)
    elif config.init:
        loop.gan.warm_start(Path(config.init))

    diary = Diary(loop, snapshots, folder, held_out)
    diary.status("running")
    try:
        _go_on(loop, diary, intervals, looks, should_stop)
    except TrainingError as error:
        diary.status("failed", reason=str(error))
        snapshots.draw()
        folder.report({"event": "failed", "reason": str(error)})
        raise
    early = {"ended_early": True} if loop.step < config.steps else {}
    status = diary.status("finished", **early, seconds=round(diary.clock.seconds, 1))
    snapshots.draw()
    folder.report({"event": "finished", **status})
    return status


def watching(
    config: RunConfig, dataset: Dataset, rest: Dataset, held_out: Dataset, accelerator: Accelerator
) -> tuple[guard.Score, Looks]:
    """How a run's generator is scored, and how often: by the set's shipped judge, or one of its own, which is taught
    now if it may cost so much; else by pixels."""
    cost, referee = price.of(config), judge.shipped(dataset)
    teaching = price.TAUGHT * price.of_image(judge.Network(dataset.channels, 2), dataset.channels, dataset.size)
    if referee is None and accelerator.is_main_process and rest.labels is not None:
        shown = cost.shown / teaching
        referee = judge.for_dataset(dataset, shown) if shown >= len(rest) else None
    if referee is None:
        return guard.scorer(held_out, rest), cost.looks(0.0)
    looks = cost.looks(price.of_image(referee.network, dataset.channels, dataset.size))
    return guard.scorer(held_out, rest, referee.on(accelerator.device), limit=looks.images), looks


def _go_on(loop: Loop, diary: Diary, intervals: Intervals, looks: Looks, should_stop: Callable[[], bool]) -> None:
    """Step by step to the end, or to where a stop is asked for."""
    total = loop.config.steps
    snapshot_every = intervals.snapshot_steps(total, loop.images_per_step, looks.snapshots)
    schedule = Schedule(loop.step, total, intervals.checkpoint_seconds)
    finishing = loop.agreed(diary.folder.to_finish)
    while loop.step < total and not finishing:
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
        finishing = logs and loop.agreed(diary.folder.to_finish)
    if diary.snapshots.taken < loop.step:
        diary.snapshot()
    diary.checkpoint()
