"""The stages of a run: what each does as it begins, and what it asks of every step.

Their numbers stand in the recipe's table (:class:`training.recipes.Adversarial` and its neighbours). Every run has the
first stage, the flagship all three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training import recipes
from training.batches import Batches
from training.features import Taught
from training.gan import Extra, Gan
from training.matching import COARSE, FINE, Matching, Plan
from training.norms import frozen_statistics
from training.precision import autocast
from training.run import RunConfig
from training.sampling import draw_latents

# Decay of the average of weights while a run is being finished; the falling rates do the rest.
FINISH_EMA = 0.99
# What a checkpoint calls the memories of stages; None is there for a stage that the recipe does not have.
MEMORIES = ("matching", "finishing")


class Stage:
    """What all stages share: nothing before the first step, the recipe's own rates, and no loss but the game's.

    Attributes:
        first, end: the steps from the one up to the other are its own.
        eval_mode: the generator keeps batch norm's statistics, so what is exported is not measured anew.
        memory: what a checkpoint calls what it remembers.
    """

    eval_mode = False
    memory: str | None = None

    def __init__(self, config: RunConfig, first: int, end: int) -> None:
        self.config, self.ema, self.first, self.end = config, config.settings.ema, first, end

    def begin(self, gan: Gan, batches: Batches) -> None:
        """What happens before its first step."""

    def rate(self, step: int) -> float:
        """The learning rates of a step, as a multiple of the recipe's."""
        return 1.0

    def ema_decay(self, steps: int) -> float:
        """What the average of weights keeps of itself once the run has taken so many steps."""
        return min(self.ema, _ramp(steps))

    def extra_loss(self, fake: Tensor, label: Tensor | None) -> Extra | None:
        """What generated images, float32 [batch, c, h, w] with labels int64 [batch], are asked for besides."""
        return None

    def state(self) -> dict[str, Any]:
        """Tensors by name, for a checkpoint."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""


class AdversarialStage(Stage):
    """The two networks' game alone; its rates may fall."""

    def __init__(self, told: recipes.Adversarial, config: RunConfig, first: int, end: int) -> None:
        super().__init__(config, first, end)
        self.told = told

    def begin(self, gan: Gan, batches: Batches) -> None:
        """Teach the discriminator's frozen features, if it has any."""
        if isinstance(gan.discriminator, Taught):
            assert batches.labels is not None
            shown, mirror = int(self.config.images * self.told.taught), bool(gan.recipe.mirror)
            seed = self.config.seed
            with autocast(gan.device, gan.precision, learns=True):
                gan.discriminator.teach(batches.images, batches.labels, seed=seed, shown=shown, mirror=mirror)

    def rate(self, step: int) -> float:
        """A straight line to the floor, once the stage is as far as the recipe says."""
        share, told = (step - self.first) / (self.end - self.first), self.told
        if share < told.decay_from:
            return 1.0
        return told.floor + (1 - told.floor) * (1 - share) / (1 - told.decay_from)


class FeatureStage(Stage):
    """A stage with frozen networks that it teaches as it begins."""

    def __init__(self, config: RunConfig, first: int, end: int, matching: Matching) -> None:
        super().__init__(config, first, end)
        self.matching = matching

    def begin(self, gan: Gan, batches: Batches) -> None:
        """Teach the frozen networks, and take the first moments of what the generator makes."""
        assert batches.labels is not None
        self.matching.teach(batches.images, batches.labels, seed=self.config.seed, shown=self.config.images // 8)
        with torch.no_grad(), frozen_statistics(gan.generator):
            each = min(self.matching.plan.window, max(2, len(batches.images) // gan.classes))
            label = torch.arange(gan.classes, device=gan.device).repeat(each)
            parts = []
            for part in label.split(500):
                latent = draw_latents(gan.recipe, len(part), gan.device)
                parts.append(gan.generator(latent, part).float())
            self.matching.begin(torch.cat(parts), label)

    def state(self) -> dict[str, Any]:
        """The frozen networks and both sides' moments."""
        return self.matching.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.matching.load_state_dict(state)


class MatchingStage(FeatureStage):
    """Moments of frozen features are matched beside the game."""

    memory = "matching"

    def __init__(self, told: recipes.Matching, config: RunConfig, first: int, end: int, matching: Matching) -> None:
        super().__init__(config, first, end, matching)
        self.weight = told.weight

    def ema_decay(self, steps: int) -> float:
        """The longer the stage, the longer the memory: near an equilibrium that the two networks circle, averages over
        many steps beat smaller steps (Yazici et al. 2019, arXiv:1806.04498); later ones count more (polynomial-decay
        averaging, Shamir and Zhang 2013, arXiv:1212.1824)."""
        return min(_ramp(steps), 1 - 4 / (4 / (1 - self.ema) + steps - self.first))

    def extra_loss(self, fake: Tensor, label: Tensor | None) -> Extra | None:
        """The way that moments still have to go."""
        distance, _ = self.matching(fake, label)
        return Extra(distance, (self.weight * distance,))


class FinishingStage(FeatureStage):
    """The generator goes on from its average as it would be exported, batch norm's statistics and all: what is
    corrected is what is shipped, and no averaging or measuring anew changes it afterwards."""

    eval_mode = True
    memory = "finishing"

    def __init__(self, told: recipes.Finishing, config: RunConfig, first: int, end: int, matching: Matching) -> None:
        super().__init__(config, first, end, matching)
        self.told = told

    def begin(self, gan: Gan, batches: Batches) -> None:
        """Put the average in the generator's place, and only then teach."""
        gan.go_on_from_average()
        super().begin(gan, batches)

    def rate(self, step: int) -> float:
        """A share of the recipe's that falls to nothing."""
        return self.told.rate * ((self.end - step) / (self.end - self.first))

    def ema_decay(self, steps: int) -> float:
        """A short memory."""
        return FINISH_EMA

    def extra_loss(self, fake: Tensor, label: Tensor | None) -> Extra | None:
        """The way that moments still have to go, and how far margins fall short."""
        distance, unclear = self.matching(fake, label)
        return Extra(distance, (self.told.matching * distance, self.told.margin * unclear))


def of(config: RunConfig, images: int, device: torch.device) -> tuple[Stage, ...]:
    """The stages of a run on so many training images, in turn."""
    shape, steps = config.shape, config.steps

    def frozen(plan: Plan) -> Matching:
        return Matching(shape.channels, shape.classes, shape.size, images, plan).to(device)

    def made(told: recipes.Stage, first: int, end: int) -> Stage:
        match told:
            case recipes.Adversarial():
                return AdversarialStage(told, config, first, end)
            case recipes.Matching():
                return MatchingStage(told, config, first, end, frozen(COARSE))
            case recipes.Finishing():
                return FinishingStage(told, config, first, end, frozen(FINE))

    told = config.settings.stages
    firsts = [math.ceil(steps * stage.begin) for stage in told]
    return tuple(map(made, told, firsts, [*firsts[1:], steps]))


def at(stages: Sequence[Stage], step: int) -> Stage:
    """The stage that takes a step."""
    return next(stage for stage in reversed(stages) if stage.first <= step)


def _ramp(steps: int) -> float:
    """The most that an average keeps early in a run, as in Karras et al. 2018: a young one must not remember the
    random start."""
    return (1 + steps) / (10 + steps)
