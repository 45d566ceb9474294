"""Where a run stands, and one step of it: the networks, the place in the data, the stage."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from training import stages
from training.batches import Batches
from training.data import Dataset
from training.gan import Gan, StepResult
from training.precision import kept
from training.progress import MeanLosses
from training.run import RunConfig, TrainingError


class Loop:
    """Networks, batches and stages, and how many steps were taken: what one step reads and writes.

    Attributes:
        precisions: what steps were computed in so far.
        told: a sentence, where this machine computes in another than the run's; else empty.

    Raises:
        RunRefused: one of the data set's classes is empty.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.batches = Batches(dataset, config, accelerator)
        torch.manual_seed(config.seed)
        precision, self.told = kept(config.precision, accelerator.device)
        self.precisions = [precision]
        self.gan = Gan(config.settings, config.shape, accelerator, precision)
        self.stages = stages.of(config, len(dataset), accelerator.device)
        self.losses = MeanLosses(accelerator.device)
        self.logit_gap: float | None = None
        self.step = 0
        # Each process draws its own noise; weights above were drawn alike.
        torch.manual_seed(config.seed * 1_000_003 + 1 + accelerator.process_index)

    @property
    def images_per_step(self) -> int:
        """Real images that a step shows, over all processes."""
        recipe = self.gan.recipe
        return recipe.batch * recipe.d_steps

    @property
    def images_seen(self) -> int:
        """Real images shown so far, over all processes."""
        return self.step * self.images_per_step

    def advance(self, *, measure: bool) -> dict[str, float]:
        """One step; what it measured, if it is to.

        Raises:
            TrainingError: a measure is not a number.
        """
        stage = stages.at(self.stages, self.step)
        if self.step == stage.first:
            stage.begin(self.gan, self.batches)
        self.gan.set_rates(stage.rate(self.step))
        result = self.gan.step(self.step, self.batches, stage.extra_loss)
        self.step += 1
        self.losses.add(result.loss_d, result.loss_g)
        self.gan.average(stage.ema_decay(self.step))
        return self._measure(result) if measure else {}

    def _measure(self, result: StepResult) -> dict[str, float]:
        """Means over the last step. D(.) is a probability for BCE and the mean score for the others."""
        view = torch.sigmoid if self.gan.loss.probability else (lambda x: x)
        values = {
            "loss_d": result.loss_d,
            "loss_g": result.loss_g,
            "d_real": view(result.d_real).mean(),
            "d_fake_before": view(result.d_fake).mean(),
            "d_fake_after": view(self.gan.score_again(result)).mean(),
        }
        if self.gan.recipe.loss == "wasserstein":
            values["wasserstein"] = -result.loss_d
        if result.distance is not None:
            values["moments"] = result.distance
        values["logit_gap"] = (result.d_real.mean() - result.d_fake.mean()).abs()
        measures = {name: float(self.accelerator.reduce(value, "mean")) for name, value in values.items()}
        broken = [name for name, value in measures.items() if not math.isfinite(value)]
        if broken:
            raise TrainingError(
                f"training broke at step {self.step}: {', '.join(broken)} is not finite; lower the learning "
                "rate, or resume an earlier checkpoint with another recipe"
            )
        self.logit_gap = measures["logit_gap"]
        return measures

    def epoch_means(self) -> dict[str, float] | None:
        """Mean losses of the epoch that this step ended, or None while one is under way."""
        an_epoch, d_steps = self.batches.an_epoch, self.gan.recipe.d_steps
        draws = self.step * d_steps
        if draws // an_epoch == (draws - d_steps) // an_epoch:
            return None
        return {"epoch": draws // an_epoch, **self.losses.take()}

    def agreed(self, mine: bool) -> bool:
        """Whether any process says so; all get the same answer."""
        if self.accelerator.num_processes == 1:
            return mine
        vote = torch.tensor([1.0 if mine else 0.0], device=self.accelerator.device)
        return bool(self.accelerator.reduce(vote, "sum").item() > 0)

    @property
    def _finishing(self) -> bool:
        """Whether the last step left the generator as it is to be shipped."""
        return self.step > 0 and stages.at(self.stages, self.step - 1).eval_mode

    def to_export(self) -> nn.Module:
        """The generator as it would be exported now, in evaluation mode."""
        return self.gan.to_export(measure_norms=not self._finishing)

    def state(self) -> dict[str, Any]:
        """Everything that decides the rest of the run, less what :class:`Snapshots` hold."""
        on_gpu = self.accelerator.device.type == "cuda"
        return {
            "config": self.config.as_dict(),
            "step": self.step,
            "losses": self.losses.state(),
            "precisions": self.precisions,
            **dict.fromkeys(stages.MEMORIES),
            **{stage.memory: stage.state() for stage in self.stages if stage.memory},
            **self.gan.state(),
            "rng": gather_object([torch.get_rng_state()]),
            "cuda_rng": gather_object([torch.cuda.get_rng_state()]) if on_gpu else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.step = state["step"]
        self.losses.load_state(state["losses"])
        before = state.get("precisions", [self.config.precision])
        self.precisions = before + [each for each in self.precisions if each not in before]
        for stage in self.stages:
            if stage.memory:
                stage.load_state(state[stage.memory])
        self.gan.load_state(state)
        self.gan.generator.train(not self._finishing)
        rank = self.accelerator.process_index
        torch.set_rng_state(state["rng"][rank])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"][rank])
