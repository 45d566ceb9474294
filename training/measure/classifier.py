"""How every classifier here learns: one loop, and small changes of images that keep it from knowing them by heart."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Average:
    """An average of the weights, drawn by ``pace`` towards the network after each step.

    Batch norm's statistics are averaged likewise (``buffers``), or taken as they are at the end of an epoch.
    """

    network: nn.Module
    pace: float
    buffers: bool

    @classmethod
    def of(cls, network: nn.Module, steps: int, *, buffers: bool) -> Average:
        """One that spans a twentieth of a short training, and 100 steps of a long one."""
        return cls(copy.deepcopy(network).requires_grad_(False), max(0.01, 20 / steps), buffers)

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """After a step."""
        if not self.buffers:
            torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), self.pace)
            return
        for mine, theirs in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            mine.lerp_(theirs, self.pace) if mine.is_floating_point() else mine.copy_(theirs)

    @torch.no_grad()
    def settled(self, network: nn.Module) -> nn.Module:
        """The average as it stands at the end of an epoch."""
        if not self.buffers:
            for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
                mine.copy_(theirs)
        return self.network


def fit(
    network: nn.Module,
    epochs: Iterable[Batches],
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    smoothing: float = 0.0,
    average: Average | None = None,
    score: Callable[[Any], float] | None = None,
) -> tuple[nn.Module, list[float]]:
    """Teach a classifier on epochs of (image float32 [n, c, h, w], label int64 [n]).

    After each epoch the network, or its ``average``, is scored in evaluation mode; the best one is kept, the later of
    equals. Without a ``score`` the last is.

    Returns:
        The network that was kept, and the score of every epoch.
    """
    kept = network
    # As whoever asks computes; on a GPU always.
    halved = torch.is_autocast_enabled("cpu")
    scores: list[float] = []
    for batches in epochs:
        network.train()
        for image, label in batches:
            with torch.autocast(image.device.type, torch.bfloat16, enabled=halved or image.is_cuda):
                logits = _logits(network(image))
            loss = F.cross_entropy(logits.float(), label, label_smoothing=smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            if average is not None:
                average.follow(network)
        candidate = network if average is None else average.settled(network)
        if score is None:
            kept = candidate
            continue
        found = score(candidate.eval())
        if found >= max(scores, default=-math.inf):
            kept = copy.deepcopy(candidate)
        scores.append(found)
    return kept.eval().requires_grad_(False), scores


def _logits(told: Any) -> Tensor:
    """A judge tells logits and features, another classifier logits alone."""
    logits: Tensor = told[0] if isinstance(told, tuple) else told
    return logits


def augment(images: Tensor, shift: float, *, flip: bool = False, noise: float = 0.0) -> Tensor:
    """Shift float [n, c, h, w] by up to ``shift`` of the edge, turn by up to 10 degrees, scale by up to a tenth; mirror
    if asked, and add Gaussian noise, of a deviation of up to ``noise`` that each image draws for itself."""
    n = len(images)
    angle = (torch.rand(n) * 2 - 1) * math.radians(10)
    scale = 1 + (torch.rand(n) * 2 - 1) * 0.1
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = torch.cos(angle) * scale
    theta[:, 0, 1], theta[:, 1, 0] = -torch.sin(angle) * scale, torch.sin(angle) * scale
    theta[:, :, 2] = (torch.rand(n, 2) * 2 - 1) * 2 * shift
    if flip:
        theta[:, :, 0] *= torch.where(torch.rand(n, 1) < 0.5, -1.0, 1.0)
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False, padding_mode="zeros")
    if noise:
        moved = (moved + torch.randn_like(moved) * torch.rand(n, 1, 1, 1).to(images.device) * noise).clamp(0, 1)
    return moved
