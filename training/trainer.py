"""The training loop, readable from top to bottom as the story of a run.

A run lives in one folder::

    config.json        what was asked for, in full
    status.json        {"state": "running" | "finished" | "stopped" | "failed", ...}
    log.jsonl          one line a log interval: losses, D(x), D(G(z)), images/s
    epochs.jsonl       one line an epoch: mean losses over its steps
    snapshots.jsonl    one line a snapshot: held-out scores
    checkpoints/       everything that is needed to go on, bit for bit
    best.safetensors   the generator (its EMA, if the recipe keeps one) of the best snapshot
    samples/           fresh noise for each class, and the same noise across all classes
    curves.png
    report.html        all of it in one self-contained file
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from ganserve import files
from training import checkpoint, networks, pictures, recipes, teacher
from training import report as html
from training.data import Dataset, class_counts, split_held_out
from training.losses import LOSSES, gradient_penalty, zero_centred_penalty
from training.matching import COARSE, FINE, Matching
from training.measure import guard
from training.networks import projected
from training.networks.parts import in_parts

# A young generator shows one grey blur; only one that still does after so many steps, and after this share of its
# run, has collapsed.
GRACE_STEPS, GRACE_SHARE = 500, 0.2
# Scoring a snapshot takes about as long as training on a tenth of so many images; short runs have fewer of them.
SNAPSHOT_IMAGES = 10_000
# Decay of the average of weights while a run is being finished; the falling rates do the rest.
FINISH_EMA = 0.99
# Drawing curves.png takes a second, and report.html has the same curves at each snapshot.
CURVES_SECONDS = 60.0

Event = dict[str, Any]
Report = Callable[[Event], None]


class TrainingError(RuntimeError):
    """Training that cannot go on: NaN, collapse, or a resume that would not continue the same run."""


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

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

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


@dataclass(frozen=True)
class Intervals:
    """How often a run logs (steps), and checkpoints and takes snapshots (times in a whole run)."""

    log_steps: int = 100
    snapshots: int | None = None  # 20, but no closer than SNAPSHOT_IMAGES
    checkpoint_seconds: float = 60.0
    checkpoint_steps: int | None = None

    def snapshot_steps(self, total: int, images_per_step: int) -> int:
        """Steps between snapshots, which decide the best one: counted, not timed, so that every run has the same."""
        if self.snapshots is not None:
            return max(1, total // self.snapshots)
        return max(total // 20, math.ceil(SNAPSHOT_IMAGES / images_per_step))


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
        init=init,
        overrides=dict(overrides or {}),
        precision=precision,
        processes=processes,
    )


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
        TrainingError: NaN or collapse, or a run folder that holds another configuration.
        Stopped: ``should_stop`` said so; a checkpoint was saved.
    """
    accelerator = Accelerator(mixed_precision=config.precision, cpu=not torch.cuda.is_available())
    saved = _open_together(accelerator, run, config, resume, report)
    rest, held_out = split_held_out(dataset)
    loop = Loop(config, rest, accelerator)
    if saved is not None:
        loop.load_state(saved)
    else:
        loop.begin()
    score = score or guard.scorer(held_out, rest)
    files = RunFiles(run, config, loop, report, accelerator)

    files.status("running")
    clock = Clock(loop.images_seen)
    snapshot_every = intervals.snapshot_steps(loop.total_steps, loop.recipe.batch * loop.recipe.d_steps)
    try:
        while loop.step < loop.total_steps:
            logs = (loop.step + 1) % intervals.log_steps == 0 or loop.step + 1 == loop.total_steps
            measures = loop.advance(measure=logs)
            if logs:
                files.log(measures, clock)
            files.epoch()
            if loop.step % snapshot_every == 0 or loop.step == loop.total_steps:
                files.snapshot(score)
            by_steps = intervals.checkpoint_steps and loop.step % intervals.checkpoint_steps == 0
            by_time = intervals.checkpoint_steps is None and clock.since_checkpoint > intervals.checkpoint_seconds
            if by_steps or _agreed(accelerator, by_time):
                files.checkpoint()
                clock.checkpointed()
            if _agreed(accelerator, should_stop()):
                files.checkpoint()
                files.status("stopped")
                raise Stopped
        files.checkpoint()
    except TrainingError as error:
        files.status("failed", reason=str(error))
        files.draw()
        report({"event": "failed", "reason": str(error)})
        raise
    status = files.status("finished", seconds=round(clock.seconds, 1))
    files.draw()
    report({"event": "finished", **status})
    return status


class Loop:
    """Networks, optimisers, EMA and data position: what one step reads and writes."""

    def __init__(self, config: RunConfig, dataset: Dataset, accelerator: Accelerator) -> None:
        recipe = self.recipe = config.settings
        self.config, self.accelerator, self.device = config, accelerator, accelerator.device
        self.world, self.rank = accelerator.num_processes, accelerator.process_index
        if recipe.batch // self.world < 2:
            raise TrainingError(f"a batch of {recipe.batch} is too small for {self.world} processes")
        if len(dataset) < recipe.batch:
            raise TrainingError(
                f"data set {config.dataset!r} has {len(dataset)} training images, fewer than one batch of "
                f"{recipe.batch}: add images or lower `batch`"
            )
        self.images = dataset.images.contiguous(memory_format=torch.channels_last).to(self.device)
        self.labels = None if dataset.labels is None else dataset.labels.to(self.device)
        self.classes = config.shape.classes
        if self.labels is not None and self.classes:
            counts = class_counts(dataset.labels, dataset.classes)  # type: ignore[arg-type]
            empty = [name for name, count in counts.items() if not count]
            if empty:
                raise TrainingError(f"no training image of class {', '.join(empty)}: remove it or add images")

        torch.manual_seed(config.seed)
        generator, discriminator = networks.build(recipe.family, config.shape, recipe.width)
        self.generator = generator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminator = discriminator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.generator).requires_grad_(False) if recipe.ema else None
        self.opt_g = _optimiser(recipe, self.generator, recipe.optimiser.lr_g)
        self.opt_d = _optimiser(recipe, self.discriminator, recipe.optimiser.lr_d)
        self.loss = LOSSES[recipe.loss]
        self.step = 0
        self.best: dict[str, Any] | None = None
        self.guard = guard.Guard()
        self.logit_gap: float | None = None
        self._last_distance: Tensor | None = None
        self.total_steps = max(1, math.ceil(config.images / (recipe.batch * recipe.d_steps)))
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.int64)
        self.losses = MeanLosses(self.device)
        self.second_stage = math.ceil(self.total_steps * recipe.second_stage)
        self.finish = math.ceil(self.total_steps * recipe.finish.begin) if recipe.finish else self.total_steps
        self.matching: Matching | None = None
        self.finishing: Matching | None = None
        if self.labels is not None and self.classes:
            shape, n = config.shape, len(dataset)
            if recipe.matching:
                self.matching = Matching(shape.channels, self.classes, shape.size, n, COARSE).to(self.device)
            if recipe.finish:
                self.finishing = Matching(shape.channels, self.classes, shape.size, n, FINE).to(self.device)
        # Each process draws its own noise; weights above were drawn alike.
        torch.manual_seed(config.seed * 1_000_003 + 1 + self.rank)

    @property
    def images_seen(self) -> int:
        """Real images shown so far, over all processes."""
        return self.step * self.recipe.batch * self.recipe.d_steps

    def advance(self, *, measure: bool) -> dict[str, float]:
        """One step: ``d_steps`` updates of the discriminator, ``g_steps`` of the generator."""
        recipe = self.recipe
        if self.matching is not None and self.step == self.second_stage:
            self._begin_matching(self.matching)
        if self.finishing is not None and self.step == self.finish:
            self._begin_finish(self.finishing)
        self._schedule()
        for index in range(recipe.d_steps):
            real, label = self._real(self.step * recipe.d_steps + index)
            fake_label = self._fake_labels(label)
            fake = self._fake(fake_label)
            self._step_discriminator(real, label, fake.detach(), fake_label, index)
        for index in range(recipe.g_steps):
            if index:
                fake = self._fake(fake_label)
            self._step_generator(fake, fake_label, real, label)
        self.step += 1
        self.losses.add(self._last_loss_d, self._last_loss_g)
        if self.ema is not None:
            self._update_ema()
        if not measure:
            return {}
        return self._measure(fake_label)

    def drawn_labels(self, n: int) -> Tensor | None:
        """Labels int64 [n] of training images drawn once for all, so in their proportions; None if unconditional."""
        if self.labels is None or not self.classes:
            return None
        rows = torch.randint(len(self.labels), (n,), generator=torch.Generator().manual_seed(0))
        return self.labels.cpu()[rows]

    def epoch_means(self) -> dict[str, float] | None:
        """Mean losses of the epoch that this step ended, or None while one is under way."""
        per_epoch = len(self.images) // self.recipe.batch
        draws = self.step * self.recipe.d_steps
        if draws // per_epoch == (draws - self.recipe.d_steps) // per_epoch:
            return None
        return {"epoch": draws // per_epoch, **self.losses.take()}

    def _schedule(self) -> None:
        if self.step < self.second_stage:
            start = self.recipe.decay_from
            share = self.step / self.second_stage
            factor = 1.0 if share < start else (1 - share) / (1 - start)
        elif self.step < self.finish or self.recipe.finish is None:
            factor = 1.0
        else:
            left = (self.total_steps - self.step) / (self.total_steps - self.finish)
            factor = self.recipe.finish.rate * left
        for optimiser, lr in (
            (self.opt_g, self.recipe.optimiser.lr_g),
            (self.opt_d, self.recipe.optimiser.lr_d),
        ):
            for group in optimiser.param_groups:
                group["lr"] = lr * factor

    def _real(self, draw: int) -> tuple[Tensor, Tensor | None]:
        """The batch number ``draw`` of this run, this process's share: a pure function of seed and number."""
        batch, n = self.recipe.batch, len(self.images)
        epoch, index = divmod(draw, n // batch)
        if epoch != self.epoch:
            seeded = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
            self.epoch, self.order = epoch, torch.randperm(n, generator=seeded)
        share = batch // self.world
        start = index * batch + self.rank * share
        rows = self.order[start : start + share].to(self.device)
        low, high = self.recipe.image_range
        image = self.images[rows].float().mul_((high - low) / 255).add_(low)
        image = image.contiguous(memory_format=torch.channels_last)
        return image, self.labels[rows] if self.classes and self.labels is not None else None

    def _fake_labels(self, label: Tensor | None) -> Tensor | None:
        return None if label is None else torch.randint(self.classes, label.shape, device=self.device)

    def _fake(self, label: Tensor | None) -> Tensor:
        rows = self.recipe.batch // self.world
        self.latent = draw_latents(self.recipe, rows, self.device)
        with self.accelerator.autocast():
            image: Tensor = self.generator(self.latent, label)
        return image.float()

    def _score(self, image: Tensor, label: Tensor | None) -> Tensor:
        with self.accelerator.autocast():
            score: Tensor = self.discriminator(image, label)
        return score.float()

    def _step_discriminator(
        self, real: Tensor, label: Tensor | None, fake: Tensor, fake_label: Tensor | None, index: int
    ) -> None:
        recipe = self.recipe
        # One pass costs less than two; batch norm must not let the real images know of the others.
        both = torch.cat([real, fake]).contiguous(memory_format=torch.channels_last)
        labels = torch.cat([label, fake_label]) if label is not None and fake_label is not None else None
        with in_parts(self.discriminator, 2):
            d_real, d_fake = self._score(both, labels).chunk(2)
        loss = objective = self.loss.discriminator(d_real, d_fake)
        draw = self.step * recipe.d_steps + index
        if recipe.gradient_penalty:
            penalty = gradient_penalty(lambda x: self._score(x, label), real, fake)
            objective = loss + recipe.gradient_penalty * penalty
        if recipe.r1_r2 and draw % recipe.penalty_every == 0:
            r1 = zero_centred_penalty(lambda x: self._score(x, label), real)
            r2 = zero_centred_penalty(lambda x: self._score(x, fake_label), fake)
            objective = loss + recipe.r1_r2 * recipe.penalty_every * (r1 + r2)
        self._update(self.opt_d, self.discriminator, objective)
        if recipe.clip:
            with torch.no_grad():
                for parameter in self.discriminator.parameters():
                    parameter.clamp_(-recipe.clip, recipe.clip)
        self._last_real, self._last_loss_d = d_real.detach(), loss.detach()

    def _step_generator(self, fake: Tensor, fake_label: Tensor | None, real: Tensor, label: Tensor | None) -> None:
        for parameter in self.discriminator.parameters():
            parameter.requires_grad_(False)
        d_fake = self._score(fake, fake_label)
        d_real = self._score(real, label) if self.loss.needs_real else d_fake
        loss = objective = self.loss.generator(d_fake, d_real)
        finish = self.recipe.finish
        if self.finishing is not None and finish is not None and self.step >= self.finish:
            distance, unclear = self.finishing(fake, fake_label)
            objective = loss + finish.matching * distance + finish.margin * unclear
            self._last_distance = distance.detach()
        elif self.matching is not None and self.step >= self.second_stage:
            distance, _ = self.matching(fake, fake_label)
            objective = loss + self.recipe.matching * distance
            self._last_distance = distance.detach()
        self._update(self.opt_g, self.generator, objective)
        for parameter in self.discriminator.parameters():
            parameter.requires_grad_(True)
        self._last_fake, self._last_loss_g = d_fake.detach(), loss.detach()

    def _update(self, optimiser: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        if self.world > 1:
            # One message for all: what a process waits for is the message, not its length.
            owners = [parameter for parameter in network.parameters() if parameter.grad is not None]
            grads = [parameter.grad for parameter in owners if parameter.grad is not None]
            whole = self.accelerator.reduce(torch.cat([grad.reshape(-1) for grad in grads]), "mean")
            for owner, mean in zip(owners, whole.split([grad.numel() for grad in grads]), strict=True):
                assert owner.grad is not None
                owner.grad.copy_(mean.view(owner.grad.shape))
        optimiser.step()

    @torch.no_grad()
    def _update_ema(self) -> None:
        assert self.ema is not None
        # A ramp as in Karras et al. 2018: a young average must not remember the random start.
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        if self._is_finishing:
            decay = FINISH_EMA
        elif self.step > self.second_stage:
            # The longer the stage, the longer the memory: near an equilibrium that the two networks circle, averages
            # over many steps beat smaller steps (Yazici et al. 2019, arXiv:1806.04498); later ones count more
            # (polynomial-decay averaging, Shamir and Zhang 2013, arXiv:1212.1824).
            decay = min(
                (1 + self.step) / (10 + self.step),
                1 - 4 / (4 / (1 - self.recipe.ema) + self.step - self.second_stage),
            )
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.generator.parameters()), 1 - decay)
        for average, buffer in zip(self.ema.buffers(), self.generator.buffers(), strict=True):
            average.copy_(buffer)

    def _measure(self, label: Tensor | None) -> dict[str, float]:
        """Means over the last step. D(.) is a probability for BCE and the mean score for the others."""
        view = torch.sigmoid if self.loss.probability else (lambda x: x)
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            frozen_statistics(self.generator, self.discriminator),
        ):
            after = self._score(self.generator(self.latent, label).float(), label)
        values = {
            "loss_d": self._last_loss_d,
            "loss_g": self._last_loss_g,
            "d_real": view(self._last_real).mean(),
            "d_fake_before": view(self._last_fake).mean(),
            "d_fake_after": view(after).mean(),
        }
        if self.recipe.loss == "wasserstein":
            values["wasserstein"] = -self._last_loss_d
        if self._last_distance is not None:
            values["moments"] = self._last_distance
        values["logit_gap"] = (self._last_real.mean() - self._last_fake.mean()).abs()
        measures = {name: float(self.accelerator.reduce(value, "mean")) for name, value in values.items()}
        broken = [name for name, value in measures.items() if not math.isfinite(value)]
        if broken:
            raise TrainingError(
                f"training broke at step {self.step}: {', '.join(broken)} is not finite; lower the learning "
                "rate, or resume an earlier checkpoint with another recipe"
            )
        self.logit_gap = measures["logit_gap"]
        return measures

    def snapshot(self) -> nn.Module:
        """The generator as it would be exported: its EMA with batch norm measured anew, or a copy; eval mode."""
        source = self.ema if self.ema is not None else self.generator
        net: nn.Module = copy.deepcopy(source).requires_grad_(False)
        if self.ema is not None and not self._is_finishing:
            recompute_statistics(net, self.recipe, self.classes, self.device)
        return net.eval()

    @property
    def _is_finishing(self) -> bool:
        """Whether the last step was one of those that finish the run."""
        return self.finishing is not None and self.step > self.finish

    def state(self) -> dict[str, Any]:
        """Everything that decides the rest of the run."""
        return {
            "config": self.config.as_dict(),
            "step": self.step,
            "best": self.best,
            "strikes": self.guard.strikes,
            "losses": self.losses.state(),
            "matching": None if self.matching is None else self.matching.state_dict(),
            "finishing": None if self.finishing is None else self.finishing.state_dict(),
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "opt_g": self.opt_g.state_dict(),
            "opt_d": self.opt_d.state_dict(),
            "rng": gather_object([torch.get_rng_state()]),
            "cuda_rng": gather_object([torch.cuda.get_rng_state()]) if self.device.type == "cuda" else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.step, self.best, self.guard.strikes = state["step"], state["best"], state["strikes"]
        self.losses.load_state(state["losses"])
        if self.matching is not None:
            self.matching.load_state_dict(state["matching"])
        if self.finishing is not None:
            self.finishing.load_state_dict(state["finishing"])
        self.generator.train(not self._is_finishing)
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.opt_g.load_state_dict(state["opt_g"])
        self.opt_d.load_state_dict(state["opt_d"])
        torch.set_rng_state(state["rng"][self.rank])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"][self.rank])

    def begin(self) -> None:
        """What a new run does before its first step, and a resumed one finds in its checkpoint."""
        if self.config.init:
            self.warm_start(Path(self.config.init))
        if isinstance(self.discriminator, projected.Discriminator):
            assert self.labels is not None
            teacher.teach(self.discriminator.features, self.images, self.labels, self.classes, seed=self.config.seed)

    def _begin_matching(self, matching: Matching) -> None:
        assert self.labels is not None
        seed, shown = self.config.seed, self.config.images // 8
        matching.teach(self.images, self.labels, seed=seed, shown=shown)
        with torch.no_grad(), frozen_statistics(self.generator):
            each = min(matching.plan.window, max(2, len(self.images) // self.classes))
            label = torch.arange(self.classes, device=self.device).repeat(each)
            parts = []
            for part in label.split(500):
                latent = draw_latents(self.recipe, len(part), self.device)
                parts.append(self.generator(latent, part).float())
            matching.begin(torch.cat(parts), label)

    def _begin_finish(self, finishing: Matching) -> None:
        """Go on from the average as it would be exported, batch norm's statistics and all: from here on what is
        corrected is what is shipped, and no averaging or measuring anew changes it afterwards."""
        if self.ema is not None:
            self.generator.load_state_dict(self.ema.state_dict())
            recompute_statistics(self.generator, self.recipe, self.classes, self.device)
        self.generator.eval()
        if self.ema is not None:
            self.ema.load_state_dict(self.generator.state_dict())
        self._begin_matching(finishing)

    def warm_start(self, weights: Path) -> None:
        """Begin from a generator's weights instead of random ones; the discriminator begins anew.

        Raises:
            TrainingError: the weights belong to a generator of another shape.
        """
        try:
            self.generator.load_state_dict(load_file(weights))
        except (RuntimeError, OSError, ValueError) as error:
            raise TrainingError(f"cannot start from {weights.name}: {error}") from error
        if self.ema is not None:
            self.ema.load_state_dict(self.generator.state_dict())


class MeanLosses:
    """Sums of both sides' losses since the last :meth:`take`, kept on the device so that no step waits for them."""

    def __init__(self, device: torch.device) -> None:
        self.sums, self.steps = torch.zeros(2, dtype=torch.float64, device=device), 0

    def add(self, loss_d: Tensor, loss_g: Tensor) -> None:
        """One step's losses, scalars."""
        self.sums[0] += loss_d
        self.sums[1] += loss_g
        self.steps += 1

    def take(self) -> dict[str, float]:
        """Their means; counting begins anew."""
        mean_d, mean_g = (self.sums / max(1, self.steps)).tolist()
        self.sums.zero_()
        self.steps = 0
        return {"loss_d": mean_d, "loss_g": mean_g}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"sums": self.sums.tolist(), "steps": self.steps}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.sums.copy_(torch.tensor(state["sums"], dtype=torch.float64))
        self.steps = state["steps"]


def draw_latents(recipe: recipes.Recipe, rows: int, device: torch.device) -> Tensor:
    """float32 [rows, z] of the recipe's distribution, from torch's own random state (training noise only)."""
    if recipe.latent.startswith("philox-uniform"):
        return torch.rand(rows, recipe.z, device=device) * 2 - 1
    return torch.randn(rows, recipe.z, device=device)


def _optimiser(recipe: recipes.Recipe, network: nn.Module, lr: float) -> torch.optim.Optimizer:
    if recipe.optimiser.kind == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr=lr)
    chosen = recipe.optimiser
    return torch.optim.Adam(network.parameters(), lr=lr, betas=chosen.betas, eps=chosen.eps, fused=True)


def _batch_norms(*nets: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for net in nets for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@contextmanager
def frozen_statistics(*nets: nn.Module) -> Any:
    """Let a look at the networks leave their running averages as they were, without leaving training mode."""
    norms = _batch_norms(*nets)
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked.clone() for norm in norms if norm.num_batches_tracked is not None]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]


@torch.no_grad()
def recompute_statistics(
    net: nn.Module, recipe: recipes.Recipe, classes: int, device: torch.device, batches: int = 64
) -> None:
    """Measure batch norm's mean and variance for averaged weights, over fixed noise and balanced labels."""
    norms = _batch_norms(net)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches
    net.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(batches):
            rows = max(recipe.batch, classes)
            label = torch.arange(rows, device=device) % classes if classes else None
            net(draw_latents(recipe, rows, device), label)


class Clock:
    """Rates and times of this process's part of a run."""

    def __init__(self, images: int) -> None:
        self.started = self.marked = self.saved = time.monotonic()
        self.first = self.last = images

    def rate(self, images: int) -> float:
        """Images a second since the last call."""
        now = time.monotonic()
        rate = (images - self.last) / max(now - self.marked, 1e-9)
        self.marked, self.last = now, images
        return rate

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def since_checkpoint(self) -> float:
        return time.monotonic() - self.saved

    def checkpointed(self) -> None:
        self.saved = time.monotonic()


class RunFiles:
    """What a run leaves on disk and tells whoever watches. Only the first process writes."""

    def __init__(self, run: Path, config: RunConfig, loop: Loop, report: Report, accelerator: Accelerator) -> None:
        self.run, self.config, self.loop = run, config, loop
        self.main = accelerator.is_main_process
        self.report: Report = report if self.main else (lambda event: None)
        self.drawn = time.monotonic()

    def status(self, state: str, **more: Any) -> dict[str, Any]:
        """Replace ``status.json``."""
        loop = self.loop
        status = {
            "state": state,
            "step": loop.step,
            "steps": loop.total_steps,
            "images": loop.images_seen,
            "best": loop.best,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            **more,
        }
        if self.main:
            write_json(self.run / "status.json", status)
        return status

    def log(self, measures: dict[str, float], clock: Clock) -> None:
        """One line in ``log.jsonl``, one progress event."""
        loop = self.loop
        rate = clock.rate(loop.images_seen)
        total = loop.total_steps * loop.recipe.batch * loop.recipe.d_steps
        line = {
            "step": loop.step,
            "images": loop.images_seen,
            "images_per_second": round(rate, 1),
            **{name: round(value, 5) for name, value in measures.items()},
        }
        if self.main:
            append_json(self.run / "log.jsonl", line)
        left = (total - loop.images_seen) / rate if rate else None
        self.report(
            {
                "event": "progress",
                **line,
                "steps": loop.total_steps,
                "images_total": total,
                "seconds_left": left,
            }
        )

    def epoch(self) -> None:
        """One line in ``epochs.jsonl`` where a step ends an epoch."""
        means = self.loop.epoch_means()
        if means is not None and self.main:
            line = {name: round(value, 5) for name, value in means.items()}
            append_json(self.run / "epochs.jsonl", {"step": self.loop.step, "images": self.loop.images_seen, **line})

    def draw(self) -> None:
        """Bring ``curves.png`` and ``report.html`` up to date."""
        if self.main:
            pictures.curves(self.run)
            html.write(self.run)
            self.drawn = time.monotonic()

    def snapshot(self, score: guard.Score) -> None:
        """Score the generator as it stands, keep it if it is the best so far, draw its samples.

        Raises:
            TrainingError: the generator has collapsed for three snapshots on end.
        """
        if not self.main:
            return
        loop, config = self.loop, self.config
        net = loop.snapshot()
        render = Renderer(net, loop.recipe, loop.classes, loop.device)
        labels = loop.drawn_labels(guard.IMAGES)
        images = render(render.noise(guard.IMAGES), labels)
        scores = score(images, labels)
        line = {"step": loop.step, "images": loop.images_seen, **scores}
        append_json(self.run / "snapshots.jsonl", line)
        sheet = pictures.sample_sheets(self.run, loop.step, render, config.classes if loop.classes else ())
        self.report({"event": "samples", "path": str(sheet.relative_to(self.run)), **line})
        young = loop.step < max(GRACE_STEPS, loop.total_steps * GRACE_SHARE)
        try:
            warnings = loop.guard.check(scores, logit_gap=loop.logit_gap, young=young)
        except guard.CollapseError as error:
            raise TrainingError(f"the generator has collapsed: {error}") from error
        for warning in [] if young else warnings:
            self.report({"event": "warning", "reason": warning, "step": loop.step})
        if not loop.guard.strikes and (loop.best is None or scores["score"] <= loop.best["score"]):
            loop.best = line
            tensors = {k: v.contiguous().cpu() for k, v in net.state_dict().items()}
            files.replace(self.run / "best.safetensors", to_safetensors(tensors))
        if time.monotonic() - self.drawn > CURVES_SECONDS:
            self.draw()
        else:
            html.write(self.run)

    def checkpoint(self) -> None:
        """Save everything; all processes take part, the first one writes."""
        state = self.loop.state()
        if self.main:
            checkpoint.save(self.run / "checkpoints", self.loop.step, state)
            self.status("running")
        self.report({"event": "checkpoint", "step": self.loop.step})


class Renderer:
    """Images uint8 from a generator in evaluation mode, from noise that is the same at every call."""

    def __init__(self, net: nn.Module, recipe: recipes.Recipe, classes: int, device: torch.device) -> None:
        self.net, self.recipe, self.classes, self.device = net, recipe, classes, device

    def balanced(self, n: int) -> tuple[Tensor, Tensor | None]:
        """``n`` images uint8 [n, c, h, w] of fixed seeds, and their labels in turn (None if unconditional)."""
        labels = torch.arange(n) % self.classes if self.classes else None
        return self(self.noise(n), labels), labels

    def noise(self, n: int, first: int = 0) -> Tensor:
        """float32 [n, z]: the published latents of seeds ``first`` on."""
        from ganserve.latents import consecutive, latents

        return torch.from_numpy(latents(self.recipe.latent, consecutive(first, n), self.recipe.z))

    @torch.no_grad()
    def __call__(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        low, high = self.recipe.image_range
        parts = []
        for start in range(0, len(noise), 500):
            label = None if labels is None else labels[start : start + 500].to(self.device)
            image = self.net(noise[start : start + 500].to(self.device), label)
            parts.append(to_uint8(image, low, high).cpu())
        return torch.cat(parts)


def to_uint8(image: Tensor, low: float, high: float) -> Tensor:
    """The recipe's range scaled to 0..255, rounded and clipped."""
    return ((image.float() - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)


def _open_together(
    accelerator: Accelerator, run: Path, config: RunConfig, resume: bool, report: Report
) -> dict[str, Any] | None:
    """The first process lays or checks the folder, and all hear how that went."""
    saved, outcome = None, [""]
    if accelerator.is_main_process:
        try:
            saved = _open_run(run, config, resume, report)
        except TrainingError as error:
            outcome = [str(error)]
    if accelerator.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[0]:
        raise TrainingError(outcome[0])
    if not accelerator.is_main_process and resume:
        saved, _ = checkpoint.latest(run / "checkpoints")
    return saved


def _open_run(run: Path, config: RunConfig, resume: bool, report: Report) -> dict[str, Any] | None:
    """Lay the run's folder or find its checkpoint."""
    file = run / "config.json"
    if not file.exists():
        write_json(file, config.as_dict())
        return None
    before, now = json.loads(file.read_text(encoding="utf-8")), config.as_dict()
    changed = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
    if changed:
        told = "; ".join(f"{key}: {before.get(key)!r} before, {now.get(key)!r} now" for key in sorted(changed))
        raise TrainingError(f"run {run.name!r} was begun with another configuration ({told}); name another run")
    if not resume:
        raise TrainingError(f"run {run.name!r} exists: continue it with --resume, or name another run")
    state, warnings = checkpoint.latest(run / "checkpoints")
    for warning in warnings:
        report({"event": "warning", "reason": warning})
    _trim(run, 0 if state is None else state["step"])
    return state


def _trim(run: Path, step: int) -> None:
    """Drop what was logged after the checkpoint, so that a resumed run reads like an undisturbed one."""
    for name in ("log.jsonl", "epochs.jsonl", "snapshots.jsonl"):
        file = run / name
        if file.exists():
            lines = [json.loads(line) for line in _whole_lines(file)]
            kept = "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step)
            files.replace(file, kept.encode())


def _whole_lines(file: Path) -> list[str]:
    """Lines that were written to their end; a kill can leave half of one."""
    return [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _agreed(accelerator: Accelerator, mine: bool) -> bool:
    """Whether any process says so; all get the same answer."""
    if accelerator.num_processes == 1:
        return mine
    vote = torch.tensor([1.0 if mine else 0.0], device=accelerator.device)
    return bool(accelerator.reduce(vote, "sum").item() > 0)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """One JSON document, atomically."""
    files.replace(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def append_json(path: Path, value: Mapping[str, Any]) -> None:
    """One JSON line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")
