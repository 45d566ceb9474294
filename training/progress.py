"""What a run counts while it goes: mean losses of an epoch, images a second, and times."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


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


class Clock:
    """Rates and times of this process's part of a run."""

    def __init__(self, images: int) -> None:
        self.started = self.marked = time.monotonic()
        self.last = images

    def rate(self, images: int) -> float:
        """Images a second since the last call."""
        now = time.monotonic()
        rate = (images - self.last) / max(now - self.marked, 1e-9)
        self.marked, self.last = now, images
        return rate

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started
