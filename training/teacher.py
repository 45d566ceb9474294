"""Teaches the frozen features of a ``projected`` discriminator: a small classifier of the run's own training images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.measure.classifier import augment
from training.networks.projected import Features

EPOCH_IMAGES, BATCH = 300_000, 128


def teach(
    features: Features, images: Tensor, labels: Tensor, classes: int, *, seed: int, shown: int = EPOCH_IMAGES
) -> tuple[nn.Linear, float]:
    """Fill ``features`` from a classifier of uint8 [n, c, h, w] and labels int64 [n], shown ``shown`` times in all
    or 30 times each, whichever is less; returns its last layer, which takes means over places, and its last loss.

    Shifts, turns and scales keep it from knowing single training images, which a discriminator would exploit. The
    random state of the run is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stages: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
        before = images.shape[1]
        for after, kernel, stride in features.plan:
            stages.append((nn.Conv2d(before, after, kernel, stride, 1, bias=False), nn.BatchNorm2d(after)))
            before = after
        layers = [layer for stage in stages for layer in (*stage, nn.ReLU(inplace=True))]
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
        network = network.to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        n = len(images)
        batch = min(BATCH, max(2, n // 4))
        steps = max(1, min(shown, EPOCH_IMAGES, 30 * n) // batch)
        optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.02, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
        loss = torch.zeros(())
        for _ in range(steps):
            rows = torch.randint(n, (batch,), device=images.device)
            image = augment(images[rows].cpu().float() / 255, 0.08).to(images.device) * 2 - 1
            logits = network(image.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=0.1)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    features.load(stages)
    last = network[-1]
    assert isinstance(last, nn.Linear)
    return last.requires_grad_(False), loss.item()
