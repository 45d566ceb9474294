"""Two networks, their optimisers, the average of the generator's weights, and one step of their game."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from training import networks
from training.batches import Batches, Labelled
from training.losses import LOSSES, gradient_penalty, zero_centred_penalty
from training.norms import batch_norms, frozen_statistics, recompute_statistics
from training.precision import FLOAT32, autocast
from training.recipes import Recipe
from training.run import RunRefused
from training.sampling import draw_latents, forked


class Extra(NamedTuple):
    """What a stage asks of generated images besides the discriminator.

    Attributes:
        distance: how far the images still have to go, a scalar.
        terms: scalars, weighted, that the generator's loss grows by.
    """

    distance: Tensor
    terms: tuple[Tensor, ...]


ExtraLoss = Callable[[Tensor, Tensor | None], Extra | None]


@dataclass(frozen=True)
class StepResult:
    """What a step leaves to look at; of several updates of a side, the last one.

    Attributes:
        loss_d: the discriminator's loss without penalties, a scalar.
        loss_g: the generator's loss without what a stage adds, a scalar.
        d_real: scores float32 [batch] of real images, before the discriminator's update.
        d_fake: scores float32 [batch] of generated images, before the generator's update.
        latent: the noise float32 [batch, z] of those images.
        label: their labels int64 [batch], None if unconditional.
        distance: the stage's :class:`Extra` distance, None where it adds nothing.
    """

    loss_d: Tensor
    loss_g: Tensor
    d_real: Tensor
    d_fake: Tensor
    latent: Tensor
    label: Tensor | None
    distance: Tensor | None


class Gan:
    """A recipe's networks on the device, with what trains them.

    Attributes:
        precision: what the networks compute in; penalties on gradients are float32 always.
        mixes: the discriminator has a batch norm, so that the scores of a batch's images depend on each other.
    """

    def __init__(
        self, recipe: Recipe, shape: networks.Shape, accelerator: Accelerator, precision: str = FLOAT32
    ) -> None:
        self.recipe, self.classes = recipe, shape.classes
        self.accelerator, self.device = accelerator, accelerator.device
        self.precision = precision
        generator, discriminator = networks.build(recipe.family, shape, recipe.width)
        self.generator = generator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminator = discriminator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.generator).requires_grad_(False) if recipe.ema else None
        self.opt_g = _optimiser(recipe, self.generator, recipe.optimiser.lr_g)
        self.opt_d = _optimiser(recipe, self.discriminator, recipe.optimiser.lr_d)
        self.loss = LOSSES[recipe.loss]
        self.mixes = bool(batch_norms(discriminator))

    def step(self, number: int, batches: Batches, extra_loss: ExtraLoss) -> StepResult:
        """Step ``number`` of the run: ``d_steps`` updates of the discriminator, ``g_steps`` of the generator."""
        recipe = self.recipe
        for draw in range(number * recipe.d_steps, (number + 1) * recipe.d_steps):
            real = batches.take(draw)
            label = None if real.label is None else torch.randint(self.classes, real.label.shape, device=self.device)
            latent, fake = self._generate(len(real.image), label)
            loss_d, d_real = self._train_discriminator(draw, real, Labelled(fake.image.detach(), label))
        for index in range(recipe.g_steps):
            if index:
                latent, fake = self._generate(len(real.image), label)
            loss_g, d_fake, distance = self._train_generator(fake, real, extra_loss)
        return StepResult(loss_d, loss_g, d_real, d_fake, latent, label, distance)

    def _generate(self, rows: int, label: Tensor | None) -> tuple[Tensor, Labelled]:
        """Fresh noise and its images, float32 whatever the precision inside."""
        latent = draw_latents(self.recipe, rows, self.device)
        with self.autocast():
            image: Tensor = self.generator(latent, label)
        return latent, Labelled(image.float(), label)

    def autocast(self) -> torch.autocast:
        """The context of the run's precision."""
        return autocast(self.device, self.precision)

    def _score(self, image: Tensor, label: Tensor | None) -> Tensor:
        with self.autocast():
            score: Tensor = self.discriminator(image, label)
        return score.float()

    def _score_both(self, real: Labelled, fake: Labelled) -> tuple[Tensor, Tensor]:
        if self.mixes:
            return self._score(*real), self._score(*fake)
        # One pass costs less than two.
        both = torch.cat([real.image, fake.image]).contiguous(memory_format=torch.channels_last)
        labels = None if real.label is None or fake.label is None else torch.cat([real.label, fake.label])
        d_real, d_fake = self._score(both, labels).chunk(2)
        return d_real, d_fake

    def _train_discriminator(self, draw: int, real: Labelled, fake: Labelled) -> tuple[Tensor, Tensor]:
        """Its loss without penalties, and the scores of the real images."""
        recipe = self.recipe
        d_real, d_fake = self._score_both(real, fake)
        loss = objective = self.loss.discriminator(d_real, d_fake)
        if recipe.gradient_penalty:
            penalty = gradient_penalty(lambda x: self.discriminator(x, real.label), real.image, fake.image)
            objective = loss + recipe.gradient_penalty * penalty
        if recipe.r1_r2 and draw % recipe.penalty_every == 0:
            r1 = zero_centred_penalty(lambda x: self.discriminator(x, real.label), real.image)
            r2 = zero_centred_penalty(lambda x: self.discriminator(x, fake.label), fake.image)
            objective = loss + recipe.r1_r2 * recipe.penalty_every * (r1 + r2)
        self._update(self.opt_d, self.discriminator, objective)
        if recipe.clip:
            with torch.no_grad():
                for parameter in self.discriminator.parameters():
                    parameter.clamp_(-recipe.clip, recipe.clip)
        return loss.detach(), d_real.detach()

    def _train_generator(
        self, fake: Labelled, real: Labelled, extra_loss: ExtraLoss
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Its loss without what the stage adds, the scores of its images, and the stage's distance."""
        self.discriminator.requires_grad_(False)
        d_fake = self._score(*fake)
        d_real = self._score(*real) if self.loss.needs_real else d_fake
        loss = objective = self.loss.generator(d_fake, d_real)
        extra = extra_loss(*fake)
        if extra is not None:
            objective = sum(extra.terms, loss)
        self._update(self.opt_g, self.generator, objective)
        self.discriminator.requires_grad_(True)
        return loss.detach(), d_fake.detach(), None if extra is None else extra.distance.detach()

    def _update(self, optimiser: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        if self.accelerator.num_processes > 1:
            # One message for all: what a process waits for is the message, not its length.
            owners = [parameter for parameter in network.parameters() if parameter.grad is not None]
            grads = [parameter.grad for parameter in owners if parameter.grad is not None]
            whole = self.accelerator.reduce(torch.cat([grad.reshape(-1) for grad in grads]), "mean")
            for owner, mean in zip(owners, whole.split([grad.numel() for grad in grads]), strict=True):
                assert owner.grad is not None
                owner.grad.copy_(mean.view(owner.grad.shape))
        optimiser.step()

    def set_rates(self, factor: float) -> None:
        """Both learning rates as a multiple of the recipe's."""
        chosen = self.recipe.optimiser
        for optimiser, rate in ((self.opt_g, chosen.lr_g), (self.opt_d, chosen.lr_d)):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Draw the average of the generator's weights towards them, if the recipe keeps one."""
        if self.ema is None:
            return
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.generator.parameters()), 1 - decay)
        for average, buffer in zip(self.ema.buffers(), self.generator.buffers(), strict=True):
            average.copy_(buffer)

    @torch.no_grad()
    def score_again(self, result: StepResult) -> Tensor:
        """Scores float32 [batch] of a step's noise after it, which leaves no trace: neither in the running averages
        nor in the random state."""
        with forked(self.device), frozen_statistics(self.generator, self.discriminator):
            return self._score(self.generator(result.latent, result.label).float(), result.label)

    def to_export(self, *, measure_norms: bool) -> nn.Module:
        """A copy of the generator as it would be exported, in evaluation mode: its average, with batch norm measured
        anew if the statistics are not the average's own, or itself where the recipe keeps no average."""
        source = self.ema if self.ema is not None else self.generator
        net: nn.Module = copy.deepcopy(source).requires_grad_(False)
        if self.ema is not None and measure_norms:
            recompute_statistics(net, self.recipe, self.classes, self.device)
        return net.eval()

    def go_on_from_average(self) -> None:
        """Put the average, as it would be exported, in the generator's place; its batch norm's statistics stay."""
        if self.ema is not None:
            self.generator.load_state_dict(self.ema.state_dict())
            recompute_statistics(self.generator, self.recipe, self.classes, self.device)
        self.generator.eval()
        if self.ema is not None:
            self.ema.load_state_dict(self.generator.state_dict())

    def warm_start(self, weights: Path) -> None:
        """Begin from a generator's weights instead of random ones; the discriminator begins anew.

        Raises:
            RunRefused: the weights belong to a generator of another shape.
        """
        try:
            self.generator.load_state_dict(load_file(weights))
        except (RuntimeError, OSError, ValueError) as error:
            raise RunRefused(f"cannot start from {weights.name}: {error}") from error
        if self.ema is not None:
            self.ema.load_state_dict(self.generator.state_dict())

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {name: None if part is None else part.state_dict() for name, part in self._parts().items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        for name, part in self._parts().items():
            if part is not None and state[name] is not None:
                part.load_state_dict(state[name])
        if self.ema is not None and state["ema"] is None:
            # Of a run that was begun when its recipe kept no average yet.
            self.ema.load_state_dict(self.generator.state_dict())

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer | None]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "ema": self.ema,
            "opt_g": self.opt_g,
            "opt_d": self.opt_d,
        }


def _optimiser(recipe: Recipe, network: nn.Module, lr: float) -> torch.optim.Optimizer:
    if recipe.optimiser.kind == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr=lr)
    chosen = recipe.optimiser
    return torch.optim.Adam(network.parameters(), lr=lr, betas=chosen.betas, eps=chosen.eps, fused=True)
