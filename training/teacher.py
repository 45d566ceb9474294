"""Teaches the frozen networks of :mod:`training.matching`: small classifiers of the run's own training images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from training.measure import classifier
from training.sampling import forked

BATCH = 128

Normed = tuple[nn.Conv2d, nn.BatchNorm2d]


def teach(
    plan: Sequence[tuple[int, int, int]],
    images: Tensor,
    labels: Tensor,
    classes: int,
    *,
    seed: int,
    shown: int,
    passes: int = 30,
    batch: int = BATCH,
    change: Callable[[Tensor], Tensor] = lambda image: classifier.augment(image, 0.08) * 2 - 1,
) -> tuple[list[Normed], nn.Linear]:
    """A classifier of uint8 [n, c, h, w] and labels int64 [n], shown ``shown`` images in all or each ``passes`` times,
    whichever is less: its convolutions, of features, kernel and stride as in ``plan``, each with its batch norm, and
    its last layer, which takes means over places.

    ``change`` makes of images in 0..1 what it is shown, in tanh's range: by default shifts, turns and scales, which
    keep it from knowing single training images. The random state of the run is left as it
    was.
    """
    n = len(images)
    batch = min(batch, max(2, n // 4))
    steps = max(1, min(shown, passes * n) // batch)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(steps):
            rows = torch.randint(n, (batch,), device=images.device)
            image = change(images[rows].float() / 255)
            yield image.contiguous(memory_format=torch.channels_last), labels[rows]

    with forked(images.device):
        torch.manual_seed(seed)
        stages: list[Normed] = []
        before = images.shape[1]
        for after, kernel, stride in plan:
            stages.append((nn.Conv2d(before, after, kernel, stride, 1, bias=False), nn.BatchNorm2d(after)))
            before = after
        layers = [layer for stage in stages for layer in (*stage, nn.ReLU(inplace=True))]
        last = nn.Linear(before, classes)
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
        network = network.to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.02, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
        classifier.fit(network, [batches()], optimiser, schedule, smoothing=0.1)
    return stages, last
