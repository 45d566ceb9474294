"""The classification accuracy score (Ravuri and Vinyals 2019, arXiv:1905.10887).

A classifier that learns only from generated images, balanced over the classes, and is tested on real ones. It is of
another architecture than the judge: 5x5 convolutions with max pooling and dropout, and two dense layers. Its best
epoch is chosen on generated images too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.measure.classifier import Batches, augment, fit


def classifier(channels: int, size: int, classes: int) -> nn.Sequential:
    """Conv 16 k5, pool, conv 32 k5, pool, dense 128, dropout, dense."""
    edge = size // 4
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, 1, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, 1, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * edge * edge, 128), nn.ReLU(inplace=True), nn.Dropout(0.3),
        nn.Linear(128, classes),
    )  # fmt: skip


def score(
    images: Tensor,
    labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    *,
    seed: int,
    epochs: int = 5,
    batch: int = 128,
) -> float:
    """Accuracy on real images, uint8 [m, c, h, w], of a classifier that saw only ``images``, uint8 [n, c, h, w]."""
    classes = int(max(labels.max(), test_labels.max())) + 1
    held = max(1, len(images) // 12)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = classifier(images.shape[1], images.shape[2], classes)
        order = torch.randperm(len(images))
        chosen, rest = order[:held], order[held:]
        batch = min(batch, len(rest))
        per_epoch = len(rest) // batch
        optimiser = torch.optim.Adam(network.parameters(), lr=2e-3, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=epochs * per_epoch)

        def epoch() -> Batches:
            shuffled = rest[torch.randperm(len(rest))]
            for rows in shuffled[: per_epoch * batch].split(batch):
                yield augment(images[rows].float() / 255, 0.05) * 2 - 1, labels[rows]

        kept, _ = fit(
            network,
            (epoch() for _ in range(epochs)),
            optimiser,
            schedule,
            score=lambda network: accuracy(network, images[chosen], labels[chosen]),
        )
    return accuracy(kept, test_images, test_labels)


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of uint8 images that are classified right."""
    network.eval()
    answers = torch.cat([network(part.float() / 127.5 - 1).argmax(1) for part in images.split(500)])
    return float((answers == labels).float().mean())
