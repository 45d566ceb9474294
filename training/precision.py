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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import nn

from training import networks
from training.losses import LOSSES, Loss
from training.recipes import Recipe
from training.run import RunConfig
from training.sampling import draw_latents, forked

AUTO, FLOAT32, BFLOAT16 = "auto", "no", "bf16"
CHOICES = (AUTO, FLOAT32, BFLOAT16, "fp16")
_TYPES = {BFLOAT16: torch.bfloat16, "fp16": torch.float16}
# A trial's seconds of CPU time, its rounds, the rows of its first look, and what bfloat16 has to be faster by.
SECONDS, ROUNDS, FEW_ROWS, WORTH = 1.0, 3, 8, 1.1

Capabilities = Mapping[str, Any]


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
    state = PartialState(cpu=not torch.cuda.is_available())
    decided: list[tuple[str, str] | None] = [None]
    if state.is_main_process:
        begun = _begun(run)
        decided = [(begun, "as the run was begun") if begun else choose(config.settings, config.shape, state.device)]
    if state.num_processes > 1:
        broadcast_object_list(decided)
    [answer] = decided
    assert answer is not None
    return dataclasses.replace(config, precision=answer[0]), answer[1]


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
        torch.manual_seed(0)
        pair = [
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for net in networks.build(recipe.family, shape, recipe.width)
        ]
        loss = LOSSES[recipe.loss]
        rows = min(recipe.batch, FEW_ROWS)
        _step(pair, recipe, shape, loss, rows, FLOAT32)
        each = SECONDS / (2 * (ROUNDS + 1))
        rows = max(rows, min(recipe.batch, int(rows * each / _step(pair, recipe, shape, loss, rows, FLOAT32))))
        best = dict.fromkeys((FLOAT32, BFLOAT16), float("inf"))
        spent = 0.0
        # The first round makes ready what later ones have.
        for number in itertools.count():
            for precision in best:
                seconds = _step(pair, recipe, shape, loss, rows, precision)
                spent += seconds
                if number:
                    best[precision] = min(best[precision], seconds)
            if number == ROUNDS or (number and spent > SECONDS):
                return best[FLOAT32] / best[BFLOAT16]
    raise AssertionError("unreachable")


def _step(pair: list[nn.Module], recipe: Recipe, shape: networks.Shape, loss: Loss, rows: int, precision: str) -> float:
    """Seconds of CPU time of both networks' passes, forward and backward, on noise."""
    generator, discriminator = pair
    device = torch.device("cpu")
    real = torch.randn(rows, shape.channels, shape.size, shape.size).contiguous(memory_format=torch.channels_last)
    label = torch.arange(rows) % shape.classes if shape.classes else None
    began = time.process_time()
    latent = draw_latents(recipe, rows, device)
    with autocast(device, precision):
        fake = generator(latent, label).float()
        d_real = discriminator(real, label).float()
        d_fake = discriminator(fake.detach(), label).float()
    loss.discriminator(d_real, d_fake).backward()
    with autocast(device, precision):
        d_fake = discriminator(fake, label).float()
    loss.generator(d_fake, d_real.detach()).backward()
    return time.process_time() - began
