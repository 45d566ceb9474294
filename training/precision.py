"""In what numbers a run's networks compute: bfloat16 where that is faster on the machine it begins on, else float32.

Only what the networks do inside is meant (autocast). Weights, gradients, optimisers, averages, losses, penalties on
gradients and the statistics of norms are float32 always; so what a run leaves is float32 too, and is exported as ever.

``auto`` asks the processor: with AMX bfloat16 is several times as fast, without instructions for it several times as
slow as float32. Between the two a trial of the recipe's own step decides. A run keeps what it began with.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from training import networks
from training.losses import LOSSES
from training.recipes import Recipe
from training.run import RunConfig
from training.sampling import draw_latents, forked

AUTO, FLOAT32, BFLOAT16 = "auto", "no", "bf16"
CHOICES = (AUTO, FLOAT32, BFLOAT16, "fp16")
_TYPES = {BFLOAT16: torch.bfloat16, "fp16": torch.float16}
# A trial's seconds of CPU time, its rounds, the rows of its first look, and what bfloat16 has to be faster by.
SECONDS, ROUNDS, FEW_ROWS, WORTH = 1.0, 3, 8, 1.1

Capabilities = Mapping[str, Any]
Answer = TypeVar("Answer")


def autocast(device: torch.device, precision: str, *, learns: bool = False) -> torch.autocast:
    """The context in which networks compute.

    Args:
        learns: weights change within the context, so that none may be remembered as it was.
    """
    kind = _TYPES.get(precision, torch.bfloat16)
    return torch.autocast(device.type, kind, enabled=precision in _TYPES, cache_enabled=not learns)


def settle(config: RunConfig, run: Path) -> tuple[RunConfig, str]:
    """A configuration whose precision is no longer ``auto``, and why it is what it is, in words.

    A run that was begun keeps what it has. Of several processes the first one decides for all.
    """
    if config.precision != AUTO:
        return config, ""

    def answer() -> tuple[str, str]:
        begun = _begun(run)
        return (begun, "as the run was begun") if begun else choose(config.settings, config.shape, device())

    precision, reason = decided(answer)
    return dataclasses.replace(config, precision=precision), reason


def device() -> torch.device:
    """Where this process's networks are."""
    return torch.device(PartialState(cpu=not torch.cuda.is_available()).device)


def decided(answer: Callable[[], Answer]) -> Answer:
    """What the first process answers, for all of them."""
    state = PartialState(cpu=not torch.cuda.is_available())
    told = [answer() if state.is_main_process else None]
    if state.num_processes > 1:
        broadcast_object_list(told)
    [first] = told
    assert first is not None
    return first


def _begun(run: Path) -> str | None:
    try:
        return str(json.loads((run / "config.json").read_text(encoding="utf-8")).get("precision", FLOAT32))
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def choose(
    recipe: Recipe, shape: networks.Shape, device: torch.device, capabilities: Capabilities | None = None
) -> tuple[str, str]:
    """The precision that serves a recipe on this machine, and the reason."""
    has = torch.cpu.get_capabilities() if capabilities is None else capabilities
    if not recipe.bfloat16:
        return FLOAT32, f"{recipe.name} keeps to float32"
    if device.type != "cpu":
        return FLOAT32, "on a GPU unless it is asked for otherwise"
    if not supported(has):
        return FLOAT32, "this processor has no instructions for bfloat16"
    if has.get("amx_bf16"):
        return BFLOAT16, "this processor multiplies matrices of bfloat16 (AMX)"
    try:
        faster = gain(recipe, shape)
    except RuntimeError as error:  # of a kernel that this build of PyTorch lacks
        return FLOAT32, f"bfloat16 does not work here: {error}"
    told = f"bfloat16 is {faster:.2f} times as fast as float32 here"
    return (BFLOAT16, told) if faster >= WORTH else (FLOAT32, f"{told}, which is not worth it")


def supported(capabilities: Capabilities | None = None) -> bool:
    """Whether the processor has instructions for bfloat16; else PyTorch computes it several times as slowly."""
    has = torch.cpu.get_capabilities() if capabilities is None else capabilities
    return any(has.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))


def kept(precision: str, device: torch.device, capabilities: Capabilities | None = None) -> tuple[str, str]:
    """The precision in which this machine goes on with a run of that precision, and a sentence if it is another."""
    if precision != BFLOAT16 or device.type != "cpu" or supported(capabilities):
        return precision, ""
    return FLOAT32, (
        "the run computes in bfloat16, for which this processor has no instructions: its steps on this machine are "
        "in float32, since they would take several times as long; where they are taken elsewhere they are as before"
    )


def gain(recipe: Recipe, shape: networks.Shape) -> float:
    """How many times as fast a step's forward and backward passes are in bfloat16, by CPU time, in about a second.

    Each precision's best time counts, of rounds in which they take turns; the random state is left as it was.
    """
    with forked(torch.device("cpu")):
        step = _Step(recipe, shape)
        rows = min(recipe.batch, FEW_ROWS)
        step(rows, FLOAT32)
        each = SECONDS / (2 * (ROUNDS + 1))
        rows = max(rows, min(recipe.batch, int(rows * each / step(rows, FLOAT32))))
        best = dict.fromkeys((FLOAT32, BFLOAT16), float("inf"))
        spent = 0.0
        # The first round makes ready what later ones have.
        for number in itertools.count():
            for precision in best:
                seconds = step(rows, precision)
                spent += seconds
                if number:
                    best[precision] = min(best[precision], seconds)
            if number == ROUNDS or (number and spent > SECONDS):
                return best[FLOAT32] / best[BFLOAT16]
    raise AssertionError("unreachable")


def pace(recipe: Recipe, shape: networks.Shape, precision: str) -> float:
    """Seconds of CPU time that a step's passes take for each real image that it shows, in a trial of about a second."""
    with forked(torch.device("cpu")):
        step, rows = _Step(recipe, shape), min(recipe.batch, 4 * FEW_ROWS)
        step(rows, precision)
        best = min(step(rows, precision) for _ in range(ROUNDS))
    # A trial's step has one pass of each network's own.
    return best / rows * (recipe.d_steps + recipe.g_steps) / (2 * recipe.d_steps)


class _Step:
    """A recipe's networks, on noise: seconds of CPU time of the passes of both, forward and backward."""

    def __init__(self, recipe: Recipe, shape: networks.Shape) -> None:
        torch.manual_seed(0)
        self.recipe, self.shape, self.loss = recipe, shape, LOSSES[recipe.loss]
        self.generator, self.discriminator = (
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for net in networks.build(recipe.family, shape, recipe.width)
        )

    def __call__(self, rows: int, precision: str) -> float:
        shape, cpu = self.shape, torch.device("cpu")
        real = torch.randn(rows, shape.channels, shape.size, shape.size).contiguous(memory_format=torch.channels_last)
        label = torch.arange(rows) % shape.classes if shape.classes else None
        began = time.process_time()
        latent = draw_latents(self.recipe, rows, cpu)
        with autocast(cpu, precision):
            fake = self.generator(latent, label).float()
            d_real = self.discriminator(real, label).float()
            d_fake = self.discriminator(fake.detach(), label).float()
        self.loss.discriminator(d_real, d_fake).backward()
        with autocast(cpu, precision):
            d_fake = self.discriminator(fake, label).float()
        self.loss.generator(d_fake, d_real.detach()).backward()
        return time.process_time() - began
