"""How fast ``ganserve.torch.Synthetic`` feeds a training, beside the training itself.

    python -m benchmarks.feeding

A small convolutional classifier of 10 million multiplications an image is trained by Adam on batches of pictures that
are in memory; data loader and training take turns in one process of one thread, so that what else the machine does
falls on both alike. Rates are images a second of CPU time, the median of the rounds; where a server makes the pictures,
its CPU time counts too.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from torch import nn
from torch.utils.data import DataLoader

from ganserve.torch import Synthetic

HERE = Path(__file__).parent
MODELS = HERE.parent / "models"
BATCH, BATCHES, ROUNDS = 128, 24, 9


def classifier() -> nn.Sequential:
    """For images of 28 x 28 pixels and one channel."""
    layers: list[nn.Module] = []
    for before, channels in ((1, 24), (24, 32)):
        layers += [nn.Conv2d(before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    layers.append(nn.MaxPool2d(2))
    layers += [nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(64, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 7 * 7, 10)]
    return nn.Sequential(*layers)


def multiplications(net: nn.Sequential) -> int:
    """Those of one image's forward pass through convolutions and dense layers."""
    total, image = 0, torch.zeros(1, 1, 28, 28)
    for layer in net:
        image = layer(image)
        if isinstance(layer, nn.Conv2d):
            total += image[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += layer.weight.numel()
    return total


class Training:
    """Steps of the classifier on one batch that is in memory."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.net = classifier()
        self.adam = torch.optim.Adam(self.net.parameters())
        self.images, self.labels = images, labels

    def __call__(self) -> None:
        for _ in range(BATCHES):
            self.adam.zero_grad()
            nn.functional.cross_entropy(self.net(self.images.float() / 255), self.labels).backward()
            self.adam.step()


def feed(pictures: Synthetic) -> None:
    """Read all of it through a loader."""
    read = sum(len(labels) for _, labels in DataLoader(pictures, batch_size=BATCH))
    assert read == BATCH * BATCHES


@contextmanager
def server() -> Iterator[tuple[str, psutil.Process]]:
    """A service of one process."""
    command = [sys.executable, "-m", "service", "--port", "0", "--workers", "1", "--models", str(MODELS)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=HERE.parent)
    try:
        assert process.stderr is not None
        found = None
        while found is None:
            found = re.search(r"running on (http://127\.0\.0\.1:\d+)", process.stderr.readline())
        yield found[1], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.communicate()


def main() -> None:
    """Measure in turn, and write the table."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    n = BATCH * BATCHES
    with server() as (url, behind):
        local, served = Synthetic(MODELS, n=n), Synthetic(url, n=n)
        images, labels = next(iter(DataLoader(local, batch_size=BATCH)))
        sides: dict[str, Callable[[], None]] = {
            "training of the classifier": Training(images, labels),
            "`Synthetic` of a folder": lambda: feed(local),
            "`Synthetic` of a server, its own time included": lambda: feed(served),
        }

        def spent() -> float:
            times = behind.cpu_times()
            return time.process_time() + float(times.user) + float(times.system)

        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(ROUNDS):
            for name, side in sides.items():
                before = spent()
                side()
                rates[name].append(n / (spent() - before))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    slowest = medians["training of the classifier"]
    rows = [f"| {name} | {rate:,.0f} | {rate / slowest:.1f} |" for name, rate in medians.items()]
    text = "\n".join(
        [
            "# Feeding a training",
            "",
            f"Images a second of CPU time, one thread, median of {ROUNDS} rounds in turns. The classifier has "
            f"{multiplications(classifier()) / 1e6:.1f} million multiplications an image; the pictures are "
            f"{local.model}'s, version {local.version}. 2 cores AMD EPYC Zen 5.",
            "",
            "| what | images/s | times the training |",
            "|---|---:|---:|",
            *rows,
            "",
            "Made by `python -m benchmarks.feeding`.",
            "",
        ]
    )
    (HERE / "feeding.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
