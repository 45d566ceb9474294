"""How often and how closely a run's generator is looked at: for a small share of what the run itself costs.

Costs are counted in multiply-adds and not timed, so that every run of one configuration has the same snapshots, and so
the same best one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from training import networks
from training.norms import batch_norms
from training.precision import FLOAT32
from training.run import RunConfig
from training.sampling import forked

# The shares of a run's multiply-adds that go into teaching a judge of its own, if it needs one, and into looking.
TEACHING, LOOKING = 0.006, 0.013
# A pass that teaches costs three that look.
TAUGHT = 3
# What a snapshot takes besides networks (distances between features, sheets, the report), in multiply-adds.
BESIDES = 2e10
# How many multiply-adds of half precision take the time of one in float32, which looking stays in, on processors with
# matrix units; elsewhere it is less, and looking cheaper still.
HALF = 2.0
# Batches over which batch norm is measured anew for an average of weights.
NORM_BATCHES = 64
MOST, USUAL, FEWEST = 20, 10, 4
IMAGES, LEAST_IMAGES = 2000, 500


@dataclass(frozen=True)
class Looks:
    """``snapshots`` of a whole run, of ``images`` each."""

    snapshots: int
    images: int


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of float32: of a run's ``whole`` training, of one image that its generator makes, and of measuring
    batch norm anew for a snapshot."""

    whole: float
    image: float
    norms: float

    @property
    def shown(self) -> float:
        """Multiply-adds that may go into teaching a judge."""
        return self.whole * TEACHING

    def looks(self, referee: float) -> Looks:
        """What may be had for the share, with a judge of so many multiply-adds an image: fewer snapshots at first, then
        fewer images each, then fewer snapshots still."""
        most = self.whole * LOOKING
        image, each = self.image + referee, BESIDES + self.norms
        # Real images are seen once for all: about two snapshots' worth.
        for snapshots, images in ((MOST, IMAGES), (USUAL, IMAGES), (USUAL, LEAST_IMAGES)):
            if (cost := each + images * image) * (snapshots + 2) <= most:
                return Looks(max(snapshots, min(MOST, int(most / cost) - 2)), images)
        return Looks(max(FEWEST, int(most / (each + LEAST_IMAGES * image)) - 2), LEAST_IMAGES)


def of(config: RunConfig) -> Cost:
    """The cost of a run, less what its stages match besides."""
    recipe, shape = config.settings, config.shape
    with forked(torch.device("cpu")):
        generator, discriminator = networks.build(recipe.family, shape, recipe.width)
        label = torch.zeros(2, dtype=torch.int64) if shape.classes else None
        latent, image = torch.randn(2, recipe.z), torch.zeros(2, shape.channels, shape.size, shape.size)
        made = _macs(lambda: generator(latent, label))
        played = _macs(lambda: discriminator(generator(latent, label), label).sum().backward())
        told = _macs(lambda: discriminator(image, label).sum().backward())
    # For each real image: one generated, both scored and learnt from, and the generator's own pass.
    each = made + 2 * told + played * recipe.g_steps / recipe.d_steps
    norms = NORM_BATCHES * recipe.batch * made if recipe.ema and batch_norms(generator) else 0.0
    faster = 1.0 if config.precision == FLOAT32 else HALF
    return Cost(whole=each * config.images / faster, image=made, norms=norms)


def of_image(network: nn.Module, channels: int, size: int) -> float:
    """Multiply-adds of a judge's look at one image."""
    device = next(network.parameters()).device
    image = torch.zeros(2, channels, size, size, device=device)
    with torch.no_grad():
        return _macs(lambda: network(image))


def _macs(compute: Callable[[], object]) -> float:
    """Multiply-adds of what handles two images, for each."""
    with FlopCounterMode(display=False) as counter:
        compute()
    return float(counter.get_total_flops()) / 4
