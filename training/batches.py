"""Real images, batch by batch, in an order that a run's seed decides."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from training.data import Dataset, class_counts
from training.run import RunConfig, RunRefused

log = logging.getLogger(__name__)


class Labelled(NamedTuple):
    """Images float32 [n, c, h, w] and their labels int64 [n], None if unconditional."""

    image: Tensor
    label: Tensor | None


class Batches:
    """A data set in the device's memory, of which each process takes its share of every batch.

    Raises:
        RunRefused: a batch is too small for so many processes, or a class has no image.
    """

    def __init__(self, dataset: Dataset, config: RunConfig, accelerator: Accelerator) -> None:
        self.dataset = dataset
        recipe, self.device = config.settings, accelerator.device
        self.batch, self.image_range, self.seed = recipe.batch, recipe.image_range, config.seed
        self.mirror = bool(recipe.mirror)
        self.rank, self.share = accelerator.process_index, recipe.batch // accelerator.num_processes
        if self.share < 2:
            raise RunRefused(f"a batch of {self.batch} is too small for {accelerator.num_processes} processes")
        if len(dataset) < self.batch:
            log.warning(
                "data set %s has %d training images, fewer than a batch of %d: each batch shows some of them again",
                config.dataset, len(dataset), self.batch,
            )  # fmt: skip
        self.images = dataset.images.contiguous(memory_format=torch.channels_last).to(self.device)
        self.labels: Tensor | None = None
        if dataset.labels is not None and config.shape.classes:
            counts = class_counts(dataset.labels, dataset.classes)
            empty = [name for name, count in counts.items() if not count]
            if empty:
                raise RunRefused(f"no training image of class {', '.join(empty)}: remove it or add images")
            self.labels = dataset.labels.to(self.device)
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    @property
    def an_epoch(self) -> int:
        """Batches of one epoch; what is left of the images has its turn in another."""
        return max(1, len(self.images) // self.batch)

    def take(self, draw: int) -> Labelled:
        """The batch number ``draw`` of this run, this process's share, in the recipe's range: a pure function of seed
        and number."""
        epoch, index = divmod(draw, self.an_epoch)
        if epoch != self._epoch:
            seeded = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            passes = math.ceil(self.batch / len(self.images))  # more than one where a batch is more than all of them
            orders = [torch.randperm(len(self.images), generator=seeded) for _ in range(passes)]
            self._epoch, self._order = epoch, torch.cat(orders)
        start = index * self.batch + self.rank * self.share
        rows = self._order[start : start + self.share].to(self.device)
        low, high = self.image_range
        image = self.images[rows].float().mul_((high - low) / 255).add_(low)
        if self.mirror:
            seeded = torch.Generator().manual_seed((self.seed * 1_000_003 + draw) * 64 + self.rank)
            turned = torch.rand(len(rows), 1, 1, 1, generator=seeded) < 0.5
            image = torch.where(turned.to(self.device), image.flip(3), image)
        image = image.contiguous(memory_format=torch.channels_last)
        return Labelled(image, None if self.labels is None else self.labels[rows])

    def drawn_labels(self, n: int) -> Tensor | None:
        """Labels int64 [n] of training images drawn once for all, so in their proportions; None if unconditional."""
        if self.labels is None:
            return None
        rows = torch.randint(len(self.labels), (n,), generator=torch.Generator().manual_seed(0))
        return self.labels.cpu()[rows]
