"""Training speed beside the plain loop that the source articles write: images/s, both sides in one run.

    python -m benchmarks.training [--dataset digits] [--colour digits] [--rounds 5] [--seconds 6] [--threads 2]

The plain side has the same networks, batch and optimiser settings in float32, on PIL images behind a ``DataLoader``
with per-image transforms, float tensors in the default memory format, a pass of the discriminator for real and one for
fake images, and PyTorch's optimiser as it comes. Ours computes in what ``--precision auto`` chooses. No article has a
loop of ``projgan-colour``: its plain side is the same networks in that loop, from PyTorch's own layers where ours are
others (enlargement and convolution as two layers), and neither side teaches its frozen features here. The sides take
turns; the table gives medians over the rounds.
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
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from training import data, networks, precision, recipes
from training.features import Taught
from training.loop import Loop
from training.losses import LOSSES
from training.networks import cdcgan
from training.networks.colour import Up
from training.networks.fast import Dense, Dropout, Flatten, LabelMapConv2d, keep_memory
from training.run import RunConfig, configure
from training.sampling import draw_latents

COLOUR = "projgan-colour"
RECIPES = ("gan", "dcgan", "cdcgan", COLOUR)
HERE = Path(__file__).parent
# What stands below this heading was measured once and is kept.
TRIED = "\n## Tried\n"


class PlainImages(TorchDataset[tuple[Tensor, int]]):
    """PIL images with a transform to a float tensor and a normalisation an image, as articles write it."""

    def __init__(self, dataset: data.Dataset, low: float, high: float, mirror: bool) -> None:
        shown = dataset.images.permute(0, 2, 3, 1).squeeze(3).numpy()
        self.images = [Image.fromarray(image) for image in shown]
        self.labels = [0] * len(self.images) if dataset.labels is None else dataset.labels.tolist()
        self.low, self.high, self.mirror = low, high, mirror

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        if self.mirror and torch.rand(()) < 0.5:
            image = ImageOps.mirror(image)
        pixels = torch.from_numpy(np.atleast_3d(np.array(image, copy=True))).permute(2, 0, 1).contiguous()
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
        case Up():
            before, after = layer.weight.shape[:2]
            convolution = nn.Conv2d(before, after, 3, 1, 1, bias=False)
            convolution.weight = nn.Parameter(layer.weight.detach().transpose(0, 1).flip(2, 3).contiguous())
            return nn.Sequential(nn.Upsample(scale_factor=2), convolution)
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
        images = PlainImages(dataset, *recipe.image_range, mirror=bool(recipe.mirror))
        self.loader = DataLoader(images, recipe.batch, shuffle=True, drop_last=True)
        self.batches = self._batches()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def _loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        if self.recipe.loss != "bce":
            return LOSSES[self.recipe.loss].discriminator(real, fake)
        real, fake = torch.sigmoid(real), torch.sigmoid(fake)
        made: Tensor = self.loss(real, torch.ones_like(real)) + self.loss(fake, torch.zeros_like(fake))
        return made

    def _loss_g(self, fake: Tensor) -> Tensor:
        if self.recipe.loss != "bce":
            return LOSSES[self.recipe.loss].generator(fake, fake)
        fake = torch.sigmoid(fake)
        made: Tensor = self.loss(fake, torch.ones_like(fake))
        return made

    def advance(self) -> None:
        """The discriminator on real and on fake images, then the generator on new noise."""
        recipe = self.recipe
        images, labels = next(self.batches)
        rows = len(images)
        device = torch.device("cpu")
        label = labels if self.classes else None
        fake_label = torch.randint(self.classes, (rows,)) if self.classes else None
        fake = self.generator(draw_latents(recipe, rows, device), fake_label)
        loss_d = self._loss_d(self.discriminator(images, label), self.discriminator(fake.detach(), fake_label))
        self.opt_d.zero_grad()
        loss_d.backward()
        self.opt_d.step()
        for _ in range(recipe.g_steps):
            fake = self.generator(draw_latents(recipe, rows, device), fake_label)
            loss_g = self._loss_g(self.discriminator(fake, fake_label))
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
    threads = 1 if side == ALONE else max(1, options.threads // processes)
    os.environ.update(environ, OMP_NUM_THREADS=str(threads))
    torch.set_num_threads(threads)
    told = (options.colour, 32, 3) if name == COLOUR else (options.dataset, 28, 1)
    dataset = data.load(told[0], size=told[1], channels=told[2])
    config = configure(name, dataset, processes=processes, precision=options.chosen)
    step: Callable[[], object]
    if side == "plain":
        step = PlainLoop(config, dataset).advance
    else:
        keep_memory()  # as training.train does
        loop = Loop(config, dataset, Accelerator(cpu=True))
        if isinstance(loop.gan.discriminator, Taught):
            loop.gan.discriminator.teach = lambda *of, **told: None  # type: ignore[method-assign]
        step = partial(loop.advance, measure=False)
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
        self.pipes, self.steps = [], 1
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


ALONE = "one process of one thread"
SIDES = ("plain", "ganserve", "two processes", ALONE)


def cpu() -> str:
    """The processor, and whether it has AMX."""
    has = torch.cpu.get_capabilities()
    return f"{has.get('cpu_name', platform.machine())} {'with' if has.get('amx_bf16') else 'without'} AMX"


def chosen(name: str) -> str:
    """What ``--precision auto`` chooses for a recipe here."""
    recipe = recipes.get(name)
    channels, size = (3, 32) if name == COLOUR else (1, 28)
    shape = networks.Shape(recipe.z, 10 if recipe.conditional else 0, channels, size)
    return precision.choose(recipe, shape, torch.device("cpu"))[0]


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A recipe's row: rates of all rounds, their medians, ratios and profiles."""
    options.chosen = chosen(name)
    sides = {side: Side(side, name, options) for side in SIDES}
    for _ in range(2):
        for side in sides.values():
            side.take(1.0)
    found: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for label, side in sides.items():
            found[label].append(side.take(options.seconds))

    def ratio(label: str, over: str) -> float:
        return statistics.median(a / b for a, b in zip(found[label], found[over], strict=True))

    profile = {label: sides[label].profile() for label in SIDES[:2]}
    for side in sides.values():
        side.end()
    return {
        "recipe": name,
        "precision": options.chosen,
        "rates": {label: statistics.median(values) for label, values in found.items()},
        "ratios": {"ganserve": ratio("ganserve", "plain"), "scaling": ratio("two processes", ALONE)},
        "rounds": found,
        "profile": profile,
    }


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", help="anything that training.train takes; made 28x28")
    parser.add_argument("--colour", default="digits", help=f"the same for {COLOUR}; made 32x32 in colour")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="in all, of each side")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.recipes:
        rows.append(measure(name, options))
        told = ", ".join(f"{label} {median:.0f}" for label, median in rows[-1]["rates"].items())
        print(f"{name} in {rows[-1]['precision']}: {told} images/s", flush=True)
    write(rows, options)


def write(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print and record the tables."""
    table = [
        "| recipe | plain loop, images/s | computes in | ganserve, images/s | ratio | "
        "one process of one thread, images/s | two of them, images/s | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        plain, ours, both, alone = (row["rates"][label] for label in SIDES)
        first, second = row["ratios"].values()
        cells = [f"`{row['recipe']}`", f"{plain:.0f}", {"no": "float32", "bf16": "bfloat16"}[row["precision"]]]
        cells += [f"{ours:.0f}", f"{first:.2f}", f"{alone:.0f}", f"{both:.0f}", f"{second:.2f}"]
        table.append("| " + " | ".join(cells) + " |")
    table += [
        "",
        "Ratios are medians over the rounds. The sides take turns, each in processes of its own; two processes share "
        "each batch, as `accelerate launch` would start them, and each has its own batch-norm "
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
        f"{options.threads} threads, torch {torch.__version__}, {cpu()}; {options.rounds} rounds of "
        f"{options.seconds:g} s a side, in turn; data: {Path(options.dataset).name}, {Path(options.colour).name}. The "
        f"plain loop is in float32; that of `{COLOUR}` is ours, since no article has one. Made by "
        "`python -m benchmarks.training`."
    )
    print("\n".join(table))
    record = HERE / "training.md"
    _, tried, kept = record.read_text().partition(TRIED)
    record.write_text("# Training speed\n\n" + head + "\n\n" + "\n".join(table) + "\n" + tried + kept)
    (HERE / "training.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
