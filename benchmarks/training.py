"""Training speed beside the plain loop that the source articles write: images/s, both sides in one run.

    python -m benchmarks.training [--dataset digits] [--rounds 5] [--seconds 6] [--threads 2]

The plain side has the same networks, batch and optimiser settings, on PIL images behind a ``DataLoader`` with
per-image transforms, float tensors in the default memory format, a pass of the discriminator for real and one for
fake images, and PyTorch's optimiser as it comes. The sides take turns; the table gives medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from training import data, networks, recipes
from training.loop import Loop
from training.networks import cdcgan
from training.networks.fast import Dense, Dropout, Flatten, LabelMapConv2d, keep_memory
from training.run import RunConfig, configure
from training.sampling import draw_latents

RECIPES = ("gan", "dcgan", "cdcgan")
HERE = Path(__file__).parent
# What stands below this heading was measured once and is kept.
TRIED = "\n## Tried\n"


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

    def __init__(self, discriminator: cdcgan.Discriminator, classes: int) -> None:
        super().__init__()
        self.body, self.classes = discriminator.body, classes

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        maps = nn.functional.one_hot(label, self.classes).to(image.dtype)[:, :, None, None]
        logit: Tensor = self.body(torch.cat([image, maps.expand(-1, -1, *image.shape[2:])], 1)).squeeze(1)
        return logit


def plain(layer: nn.Module) -> nn.Module | None:
    """PyTorch's own layer with the same parameters, where ours is another."""
    match layer:
        case Dropout():
            return nn.Dropout(layer.p)
        case Flatten():
            return nn.Flatten()
        case Dense():
            made: nn.Module = nn.Linear(layer.in_features, layer.out_features)
        case LabelMapConv2d():
            made = nn.Conv2d(layer.in_channels, layer.out_channels, 4, 2, 1)
        case _:
            return None
    made.load_state_dict(layer.state_dict())
    return made


def plainly(network: nn.Module, classes: int) -> nn.Module:
    """The same network and parameters from PyTorch's own modules."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if (made := plain(child)) is not None:
                setattr(module, name, made)
    return PlainMaps(network, classes) if isinstance(network, cdcgan.Discriminator) else network


class PlainLoop:
    """One step an article's way."""

    def __init__(self, config: RunConfig, dataset: data.Dataset) -> None:
        recipe = self.recipe = config.settings
        torch.manual_seed(0)
        self.classes = config.shape.classes
        pair = networks.build(recipe.family, config.shape, recipe.width)
        self.generator, self.discriminator = (plainly(network, self.classes) for network in pair)
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
        fake = self.generator(draw_latents(recipe, rows, device), fake_label)
        loss_d = self.loss(self._judge(images, label), ones) + self.loss(self._judge(fake.detach(), fake_label), zeros)
        self.opt_d.zero_grad()
        loss_d.backward()
        self.opt_d.step()
        for _ in range(recipe.g_steps):
            fake = self.generator(draw_latents(recipe, rows, device), fake_label)
            loss_g = self.loss(self._judge(fake, fake_label), ones)
            self.opt_g.zero_grad()
            loss_g.backward()
            self.opt_g.step()
        self.shown = (loss_d.item(), loss_g.item())


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


def work(pipe: Connection, side: str, name: str, options: argparse.Namespace, environ: dict[str, str]) -> None:
    """One process of a side: takes a number of steps, answers with the seconds they took; None asks for its profile."""
    processes = int(environ.get("WORLD_SIZE", "1"))
    threads = max(1, options.threads // processes)
    os.environ.update(environ, OMP_NUM_THREADS=str(threads))
    torch.set_num_threads(threads)
    dataset = data.load(options.dataset, size=28, channels=1)
    config = configure(name, dataset, processes=processes)
    step: Callable[[], object]
    if side == "plain":
        step = PlainLoop(config, dataset).advance
    else:
        keep_memory()  # as training.train does
        step = partial(Loop(config, dataset, Accelerator(cpu=True)).advance, measure=False)
    pipe.send("ready")
    while (steps := pipe.recv()) != 0:
        if steps is None:
            pipe.send(shares(step))
            continue
        started = time.perf_counter()
        for _ in range(steps):
            step()
        pipe.send(time.perf_counter() - started)


class Side:
    """The processes of one side, idle between turns."""

    def __init__(self, side: str, name: str, options: argparse.Namespace) -> None:
        world, self.batch = (2 if side == "two processes" else 1), recipes.get(name).batch
        context = multiprocessing.get_context("spawn")
        self.pipes, self.steps = [], 5
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(world):
            environ = {
                "WORLD_SIZE": str(world),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "LOCAL_WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            here, there = context.Pipe()
            context.Process(
                target=work, args=(there, side, name, options, environ if world > 1 else {}), daemon=True
            ).start()
            self.pipes.append(here)
        for pipe in self.pipes:
            pipe.recv()

    def take(self, seconds: float) -> float:
        """Images a second over a turn of about so long."""
        for pipe in self.pipes:
            pipe.send(self.steps)
        rate: float = self.steps / max(pipe.recv() for pipe in self.pipes)
        self.steps = max(1, round(rate * seconds))
        return rate * self.batch

    def profile(self) -> dict[str, float]:
        """Where the time goes of a side with one process."""
        (pipe,) = self.pipes
        pipe.send(None)
        found: dict[str, float] = pipe.recv()
        return found

    def end(self) -> None:
        """Let the processes go."""
        for pipe in self.pipes:
            pipe.send(0)


SIDES = ("plain", "ganserve", "two processes")


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", help="anything that training.train takes; made 28x28")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="in all, of each side")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in RECIPES:
        sides = {side: Side(side, name, options) for side in SIDES}
        for _ in range(2):
            for side in sides.values():
                side.take(1.0)
        found: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(options.rounds):
            for label, side in sides.items():
                found[label].append(side.take(options.seconds))
        medians = {label: statistics.median(values) for label, values in found.items()}
        ratios = {
            label: statistics.median(a / b for a, b in zip(found[label], found["plain"], strict=True))
            for label in SIDES[1:]
        }
        profile = {label: sides[label].profile() for label in SIDES[:2]}
        for side in sides.values():
            side.end()
        rows.append({"recipe": name, "rates": medians, "ratios": ratios, "rounds": found, "profile": profile})
        told = ", ".join(f"{label} {median:.0f}" for label, median in medians.items())
        print(f"{name}: {told} images/s", flush=True)
    table = [
        "| recipe | plain loop, images/s | ganserve, images/s | ratio | as two processes, images/s | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        plain, ours, both = (row["rates"][label] for label in SIDES)
        first, second = row["ratios"].values()
        table.append(f"| `{row['recipe']}` | {plain:.0f} | {ours:.0f} | {first:.2f} | {both:.0f} | {second:.2f} |")
    table += [
        "",
        "Ratios are medians over the rounds. The sides take turns, each in processes of its own; two processes share "
        "the threads and each batch, as `accelerate launch` would start them, and each has its own batch-norm "
        "statistics, as PyTorch's data parallelism has them.",
        "",
        "Where a step's time goes, by PyTorch's profiler:",
        "",
        "| recipe | side | " + " | ".join([*KINDS, "the rest"]) + " |",
        "|---|---|" + "---|" * (len(KINDS) + 1),
    ]
    for row in rows:
        for label in SIDES[:2]:
            share = row["profile"][label]
            table.append(f"| `{row['recipe']}` | {label} | " + " | ".join(f"{s:.0%}" for s in share.values()) + " |")
    head = (
        f"{options.threads} threads, torch {torch.__version__}, {platform.machine()}; {options.rounds} rounds of "
        f"{options.seconds:g} s a side, in turn; data: {Path(options.dataset).name}. Made by "
        "`python -m benchmarks.training`."
    )
    print("\n".join(table))
    record = HERE / "training.md"
    _, tried, kept = record.read_text().partition(TRIED)
    record.write_text("# Training speed\n\n" + head + "\n\n" + "\n".join(table) + "\n" + tried + kept)
    (HERE / "training.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
