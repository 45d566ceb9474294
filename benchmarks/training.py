"""Training speed beside the plain loop that the source articles write: images/s, both sides in one run.

    python -m benchmarks.training [--dataset digits] [--rounds 5] [--seconds 6] [--threads 2]

The plain side has the same networks, batch and optimiser settings, on PIL images behind a ``DataLoader`` with
per-image transforms, float tensors in the default memory format, a pass of the discriminator for real and one for
fake images, and PyTorch's optimiser as it comes. The sides take turns; the table gives medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from training import data, networks, recipes, trainer
from training.networks import cdcgan
from training.networks.dropout import Dropout

RECIPES = ("gan", "dcgan", "cdcgan")
HERE = Path(__file__).parent


class PlainImages(TorchDataset[tuple[Tensor, int]]):
    """PIL images with a transform to a float tensor and a normalisation an image, as articles write it."""

    def __init__(self, dataset: data.Dataset, low: float, high: float) -> None:
        self.images = [Image.fromarray(image.squeeze(0).numpy()) for image in dataset.images]
        self.labels = [0] * len(self.images) if dataset.labels is None else dataset.labels.tolist()
        self.low, self.high = low, high

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = torch.from_numpy(np.array(self.images[index], copy=True)).unsqueeze(0)
        tensor = pixels.to(torch.float32).div(255)
        return tensor.mul(self.high - self.low).add(self.low), self.labels[index]


class PlainMaps(nn.Module):
    """The conditional article's discriminator as it is written: the one-hot maps joined to every image."""

    def __init__(self, discriminator: cdcgan.Discriminator) -> None:
        super().__init__()
        self.body, self.classes = discriminator.body, discriminator.classes

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        maps = nn.functional.one_hot(label, self.classes).to(image.dtype)[:, :, None, None]
        logit: Tensor = self.body(torch.cat([image, maps.expand(-1, -1, *image.shape[2:])], 1)).squeeze(1)
        return logit


def plainly(network: nn.Module) -> nn.Module:
    """The same network and parameters from PyTorch's own modules."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.p))
    return PlainMaps(network) if isinstance(network, cdcgan.Discriminator) else network


class PlainLoop:
    """One step an article's way."""

    def __init__(self, config: trainer.RunConfig, dataset: data.Dataset) -> None:
        recipe = self.recipe = config.settings
        torch.manual_seed(0)
        self.generator, self.discriminator = map(plainly, networks.build(recipe.family, config.shape, recipe.width))
        self.classes = config.shape.classes
        chosen = recipe.optimiser
        self.opt_g = torch.optim.Adam(self.generator.parameters(), lr=chosen.lr_g, betas=chosen.betas)
        self.opt_d = torch.optim.Adam(self.discriminator.parameters(), lr=chosen.lr_d, betas=chosen.betas)
        self.loss = nn.BCELoss()
        images = PlainImages(dataset, *recipe.image_range)
        self.loader = DataLoader(images, recipe.batch, shuffle=True, drop_last=True)
        self.batches = self._batches()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def _judge(self, images: Tensor, label: Tensor | None) -> Tensor:
        return torch.sigmoid(self.discriminator(images, label))

    def advance(self) -> None:
        """The discriminator on real and on fake images, then the generator on new noise."""
        recipe = self.recipe
        images, labels = next(self.batches)
        rows = len(images)
        ones, zeros = torch.ones(rows), torch.zeros(rows)
        device = torch.device("cpu")
        label = labels if self.classes else None
        fake_label = torch.randint(self.classes, (rows,)) if self.classes else None
        fake = self.generator(trainer.draw_latents(recipe, rows, device), fake_label)
        loss_d = self.loss(self._judge(images, label), ones) + self.loss(self._judge(fake.detach(), fake_label), zeros)
        self.opt_d.zero_grad()
        loss_d.backward()
        self.opt_d.step()
        for _ in range(recipe.g_steps):
            fake = self.generator(trainer.draw_latents(recipe, rows, device), fake_label)
            loss_g = self.loss(self._judge(fake, fake_label), ones)
            self.opt_g.zero_grad()
            loss_g.backward()
            self.opt_g.step()
        self.shown = (loss_d.item(), loss_g.item())


def rate(step: object, batch: int, seconds: float) -> float:
    """Images a second of a step that is called for so long."""
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()  # type: ignore[operator]
        steps += 1
    return steps * batch / (time.perf_counter() - started)


# Kinds of work, by what a kernel's name has in it; the first that fits counts.
KINDS = {
    "convolutions": ("conv", "mkldnn"),
    "matrix products": ("addmm", "aten::mm", "matmul", "linear"),
    "norms": ("norm",),
    "optimiser": ("adam", "foreach"),
    "data and copies": (
        "copy",
        "index",
        "cat",
        "stack",
        "contiguous",
        "getitem",
        "dataloader",
        "empty",
        "fill",
        "zero",
    ),
}


def shares(step: Callable[[], object], steps: int = 10) -> dict[str, float]:
    """Where a step's CPU time goes: the share of each kind of work, kernels' own time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(steps):
            step()
    found = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for event in profile.key_averages():
        name = event.key.lower()
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "the rest")
        found[kind] += event.self_cpu_time_total
    return {kind: time / sum(found.values()) for kind, time in found.items()}


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", help="anything that training.train takes; made 28x28")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = data.load(options.dataset, size=28, channels=1)
    rows: list[dict[str, Any]] = []
    for name in RECIPES:
        config = trainer.configure(name, dataset)
        ours, plain = trainer.Loop(config, dataset, Accelerator(cpu=True)), PlainLoop(config, dataset)
        batch = recipes.get(name).batch
        sides = {"plain": plain.advance, "ours": lambda loop=ours: loop.advance(measure=False)}
        for step in sides.values():
            rate(step, batch, 1.0)
        found: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(options.rounds):
            for side, step in sides.items():
                found[side].append(rate(step, batch, options.seconds))
        medians = {side: statistics.median(values) for side, values in found.items()}
        pairs = [a / b for a, b in zip(found["ours"], found["plain"], strict=True)]
        profile = {side: shares(step) for side, step in sides.items()}
        ratio = statistics.median(pairs)
        rows.append({"recipe": name, **medians, "ratio": ratio, "ratios": pairs, "profile": profile})
        print(f"{name}: plain {medians['plain']:.0f}, ours {medians['ours']:.0f} images/s", flush=True)
    table = [
        "| recipe | plain loop, images/s | ganserve, images/s | ratio (median of pairs) |",
        "|---|---|---|---|",
    ]
    for row in rows:
        table.append(f"| `{row['recipe']}` | {row['plain']:.0f} | {row['ours']:.0f} | {row['ratio']:.2f} |")
    table += [
        "",
        "Where a step's time goes, by PyTorch's profiler:",
        "",
        "| recipe | side | " + " | ".join([*KINDS, "the rest"]) + " |",
        "|---|---|" + "---|" * (len(KINDS) + 1),
    ]
    for row in rows:
        for side, share in row["profile"].items():
            table.append(f"| `{row['recipe']}` | {side} | " + " | ".join(f"{s:.0%}" for s in share.values()) + " |")
    head = (
        f"{options.threads} threads, torch {torch.__version__}, {platform.machine()}; {options.rounds} rounds of "
        f"{options.seconds:g} s a side, in turn; data: {Path(options.dataset).name}. Made by "
        "`python -m benchmarks.training`."
    )
    print("\n".join(table))
    (HERE / "training.md").write_text("# Training speed\n\n" + head + "\n\n" + "\n".join(table) + "\n")
    (HERE / "training.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
