"""The judge: a frozen CNN in whose features images are compared, and by whose answers labels are checked.

    python -m training.judge --dataset ylecun/mnist     # writes training/judges/mnist.safetensors and .json
    python -m training.judge --dataset uoft-cs/cifar10 --architecture whitened --epochs 8

It never takes part in training a GAN. It learns from the training split less the held-out part, by which its best
epoch is chosen; the test split is looked at once, for the figure in its json. A data set without a shipped judge
gets one of its own, trained when it is first needed and kept by the data's fingerprint.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from ganserve import files
from training.data import DataError, Dataset, load, split_held_out

SHIPPED = Path(__file__).parent / "judges"


class Network(nn.Module):
    """3x3 convolutions with batch norm, two of stride 2, global average pooling, a linear layer."""

    def __init__(self, channels: int, classes: int, width: int = 24) -> None:
        super().__init__()
        plan = [(width, 1), (2 * width, 2), (2 * width, 1), (4 * width, 2), (4 * width, 1)]
        layers: list[nn.Module] = []
        before = channels
        for after, stride in plan:
            layers += [
                nn.Conv2d(before, after, 3, stride, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
            before = after
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before, classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n, classes] and features [n, 4 * width] of float images [n, c, h, w] in 0..1."""
        features = self.body(image * 2 - 1).mean((2, 3))
        return self.head(features), features


class Whitened(nn.Module):
    """For small colour photographs, made to learn in core-minutes after Jordan 2024 (airbench, arXiv:2404.00498): a
    frozen first convolution that whitens patches of 4x4 pixels, then five narrow ones, all but one at an edge of an
    eighth to a quarter."""

    def __init__(self, channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(channels, 2 * width, 4, 2, 1, bias=False).requires_grad_(False)
        self.body = nn.Sequential(
            *_block(2 * width, 3 * width, pool=True),
            *_block(3 * width, 5 * width),
            *_block(5 * width, 5 * width, pool=True),
            *_block(5 * width, 10 * width),
            *_block(10 * width, 10 * width),
        )
        self.head = nn.Linear(10 * width, classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n, classes] and features [n, 10 * width] of float images [n, c, h, w] in 0..1."""
        features = self.body(F.relu(self.whiten(image - 0.5))).mean((2, 3))
        return self.head(features), features

    @torch.no_grad()
    def see(self, images: Tensor) -> None:
        """Set the first convolution by float images [n, c, h, w]: the strongest principal components of their
        patches, each over its deviation, once as it is and once negated, for a rectifier would drop one half."""
        weight = self.whiten.weight
        patches = F.unfold(images - 0.5, weight.shape[2], stride=3).transpose(1, 2).flatten(0, 1)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        strongest = min(len(weight) // 2, len(values))
        filters = (vectors / (values + 1e-3).sqrt()).T.flip(0)[:strongest].reshape(strongest, *weight.shape[1:])
        weight.zero_()[: 2 * strongest] = torch.cat([filters, -filters])


def _block(before: int, after: int, *, pool: bool = False) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, 3, 1, 1, bias=False)
    pooling = [nn.MaxPool2d(2)] if pool else []
    return [convolution, *pooling, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


ARCHITECTURES: dict[str, type[Network | Whitened]] = {"plain": Network, "whitened": Whitened}


@dataclass(frozen=True)
class Judge:
    """A frozen network with its digest, which names it in every measurement."""

    network: Network | Whitened
    digest: str
    classes: tuple[str, ...]

    @property
    def channels(self) -> int:
        """What images must have: the input channels of the first convolution."""
        return int(next(self.network.parameters()).shape[1])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits float32 [n, classes] and features float32 [n, features] of uint8 [n, c, h, w]."""
        parts = [self.network(chunk.float() / 255) for chunk in images.split(500)]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    def accuracy(self, dataset: Dataset) -> float:
        """Share of images whose class it names."""
        assert dataset.labels is not None
        return float((self(dataset.images)[0].argmax(1) == dataset.labels).float().mean())


def shipped(dataset: Dataset) -> Judge | None:
    """The judge that comes with ganserve for a data set of this name, classes and channels, if one does."""
    path = SHIPPED / f"{Path(dataset.name).name}.safetensors"
    if not path.exists():
        return None
    judge = read(path)
    return judge if judge.classes == dataset.classes and judge.channels == dataset.channels else None


def for_dataset(dataset: Dataset) -> Judge:
    """The shipped judge of a data set, or one of its own, trained now if it is not yet there.

    Raises:
        DataError: the set has no labels to learn from.
    """
    if (judge := shipped(dataset)) is not None:
        return judge
    if dataset.labels is None:
        raise DataError(f"data set {dataset.name!r} has no labels, and a judge can only learn from labelled images")
    cache = Path(os.environ.get("GANSERVE_DATA", "var")) / "judges"
    path = cache / f"{fingerprint(dataset)}.safetensors"
    try:
        return read(path)
    except (OSError, ValueError, KeyError):
        # Not there yet, or left half written by a process that was killed or raced with: it is only a cache.
        rest, held_out = split_held_out(dataset)
        network, accuracies = fit(rest, held_out, epochs=max(4, min(30, 600_000 // len(rest))))
        write(path, network, dataset, {"held_out_accuracies": accuracies, "trained_on": len(rest)})
    return read(path)


def fingerprint(dataset: Dataset) -> str:
    """A digest of the images and labels themselves."""
    digest = hashlib.sha256(dataset.images.numpy().tobytes())
    if dataset.labels is not None:
        digest.update(dataset.labels.numpy().tobytes())
    return digest.hexdigest()[:24]


def write(path: Path, network: Network | Whitened, dataset: Dataset, report: dict[str, Any]) -> None:
    """The weights, and beside them a json with their digest and how they came to be."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    content = to_safetensors(tensors)
    files.replace(path, content)
    told = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "dataset": Path(dataset.name).name,
        "classes": list(dataset.classes),
        "channels": dataset.channels,
        "architecture": next(name for name, kind in ARCHITECTURES.items() if type(network) is kind),
        **report,
    }
    files.replace(path.with_suffix(".json"), (json.dumps(told, indent=1) + "\n").encode())


def read(path: Path) -> Judge:
    """A judge from its files. Raises DataError if the weights are not those that the json names."""
    content = path.read_bytes()
    told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(content).hexdigest()
    if digest != told["sha256"]:
        raise DataError(f"judge {path.name} has another digest than its json says: restore the file")
    network = ARCHITECTURES[told["architecture"]](told["channels"], len(told["classes"]))
    network.load_state_dict(from_safetensors(content))
    return Judge(network.eval().requires_grad_(False), digest, tuple(told["classes"]))


def fit(
    rest: Dataset,
    held_out: Dataset,
    *,
    epochs: int,
    batch: int = 128,
    seed: int = 0,
    shift: float = 0.1,
    flip: bool = False,
    noise: float = 0.0,
) -> tuple[Network, list[float]]:
    """Train a :class:`Network` on ``rest``; returns the average of weights of the best epoch by ``held_out``, and
    its accuracies.

    Adam with a one-cycle rate, label smoothing 0.05, an average of weights, and small shifts, turns and scales,
    which keep digits upright; ``flip`` mirrors every other image, which digits would not survive. ``noise`` teaches
    it to read through speckle, which real images lack and generated ones have.
    """
    assert rest.labels is not None
    assert held_out.labels is not None
    torch.manual_seed(seed)
    network = Network(rest.channels, len(rest.classes))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False)
    n = len(rest)
    batch = min(batch, max(2, n // 4))
    per_epoch = n // batch
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * per_epoch)
    # The average spans a twentieth of a short training, and 100 steps of a long one.
    pace = max(0.01, 20 / (epochs * per_epoch))
    best, accuracies, kept = -1.0, [], copy.deepcopy(average)
    for _ in range(epochs):
        network.train()
        for rows in torch.randperm(n)[: per_epoch * batch].split(batch):
            image = augment(rest.images[rows].float() / 255, shift, flip=flip, noise=noise)
            logits, _ = network(image.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, rest.labels[rows], label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), pace)
        for mine, theirs in zip(average.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)
        judge = Judge(average.eval(), "", rest.classes)
        accuracies.append(judge.accuracy(held_out))
        if accuracies[-1] >= best:
            best, kept = accuracies[-1], copy.deepcopy(average)
    return kept.eval().requires_grad_(False), accuracies


def fit_whitened(
    rest: Dataset, held_out: Dataset, *, epochs: int, batch: int = 256, seed: int = 0, pad: int = 2
) -> tuple[Whitened, list[float]]:
    """Train a :class:`Whitened` on ``rest``; returns the average of weights of the best epoch by ``held_out``, and
    its accuracies.

    SGD with Nesterov momentum under a triangular rate, label smoothing 0.1, and what costs next to nothing: shifts of
    up to ``pad`` whole pixels, and mirroring, of each image in every other epoch.
    """
    assert rest.labels is not None
    assert held_out.labels is not None
    torch.manual_seed(seed)
    network = Whitened(rest.channels, len(rest.classes))
    network.see(rest.images[torch.randperm(len(rest))[:2000]].float() / 255)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False)
    n, size = len(rest), rest.size
    batch = min(batch, max(2, n // 4))
    per_epoch = n // batch
    steps = epochs * per_epoch
    weights = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(weights, lr=0.3, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True)
    rise = 0.2 * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / rise, (steps - step) / (steps - rise))
    )
    pace = max(0.01, 20 / steps)
    # Pixels last: rows of a shifted copy are then read whole, and lie as the convolutions want them.
    padded = F.pad(rest.images, (pad, pad, pad, pad)).permute(0, 2, 3, 1).contiguous()
    mirrored = torch.rand(n) < 0.5
    along = torch.arange(size)
    best, accuracies, kept = -1.0, [], copy.deepcopy(average)
    for epoch in range(epochs):
        network.train()
        for rows in torch.randperm(n)[: per_epoch * batch].split(batch):
            down, right = torch.randint(0, 2 * pad + 1, (2, len(rows), 1))
            turned = (mirrored[rows] ^ (epoch % 2 == 1))[:, None]
            y, x = down + along, right + torch.where(turned, size - 1 - along, along)
            image = padded[rows[:, None, None], y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2).float() / 255
            logits, _ = network(image)
            loss = F.cross_entropy(logits, rest.labels[rows], label_smoothing=0.1)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            for mine, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                mine.lerp_(theirs, pace) if mine.is_floating_point() else mine.copy_(theirs)
        judge = Judge(average.eval(), "", rest.classes)
        accuracies.append(judge.accuracy(held_out))
        print(f"epoch {epoch + 1} of {epochs}: held-out accuracy {accuracies[-1]:.4f}", flush=True)
        if accuracies[-1] >= best:
            best, kept = accuracies[-1], copy.deepcopy(average)
    return kept.eval().requires_grad_(False), accuracies


def augment(images: Tensor, shift: float, *, flip: bool = False, noise: float = 0.0) -> Tensor:
    """Shift by up to ``shift`` of the edge, turn by up to 10 degrees, scale by up to a tenth; mirror if asked, and add
    Gaussian noise, of a deviation of up to ``noise`` that each image draws for itself."""
    n = len(images)
    angle = (torch.rand(n) * 2 - 1) * math.radians(10)
    scale = 1 + (torch.rand(n) * 2 - 1) * 0.1
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = torch.cos(angle) * scale
    theta[:, 0, 1], theta[:, 1, 0] = -torch.sin(angle) * scale, torch.sin(angle) * scale
    theta[:, :, 2] = (torch.rand(n, 2) * 2 - 1) * 2 * shift
    if flip:
        theta[:, :, 0] *= torch.where(torch.rand(n, 1) < 0.5, -1.0, 1.0)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False, padding_mode="zeros")
    if noise:
        moved = (moved + torch.randn_like(moved) * torch.rand(n, 1, 1, 1) * noise).clamp(0, 1)
    return moved


def main(argv: Sequence[str] | None = None) -> int:
    """Train a judge to be shipped."""
    parser = argparse.ArgumentParser(prog="python -m training.judge", description="Train a judge to be shipped.")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="plain")
    parser.add_argument("--flip", action="store_true", help="mirror images too, where left and right do not matter")
    parser.add_argument("--noise", type=float, default=0.0, help="deviation of the noise it learns to read through")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, help="training/judges/<data set>.safetensors by default")
    options = parser.parse_args(argv)
    if options.architecture == "whitened" and (options.flip or options.noise):
        parser.error("--flip and --noise are for the plain architecture; the whitened one always mirrors")
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        train, test = load(options.dataset), load(options.dataset, split="test")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rest, held_out = split_held_out(train)
    network: Network | Whitened
    if options.architecture == "whitened":
        network, accuracies = fit_whitened(rest, held_out, epochs=options.epochs, seed=options.seed)
    else:
        network, accuracies = fit(
            rest, held_out, epochs=options.epochs, seed=options.seed, flip=options.flip, noise=options.noise
        )
    judge = Judge(network, "", train.classes)
    command = f"python -m training.judge --dataset {Path(options.dataset).name} --epochs {options.epochs}"
    if options.architecture != "plain":
        command += f" --architecture {options.architecture}"
    report = {
        "test_accuracy": judge.accuracy(test),
        "held_out_accuracy": max(accuracies),
        "held_out_accuracies": accuracies,
        "trained_on": len(rest),
        "epochs": options.epochs,
        "seed": options.seed,
        "command": command + " --flip" * options.flip + f" --noise {options.noise}" * (options.noise > 0),
    }
    out = options.out or SHIPPED / f"{Path(options.dataset).name}.safetensors"
    write(out, network, train, report)
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
