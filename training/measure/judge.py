"""The judge: a frozen CNN in whose features images are compared, and by whose answers labels are checked.

It never takes part in training a GAN. It learns from the training split less the held-out part, by which its best
epoch is chosen; the test split is looked at once, for the figure in its json. A data set without a shipped judge
gets one of its own, trained when it is first needed and kept by the data's fingerprint.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from ganserve import files
from ganserve.reading import place_mark
from training.data import DataError, Dataset, fingerprint, split_held_out
from training.measure.classifier import Average, Batches, augment
from training.measure.classifier import fit as teach
from training.measure.photographs import Residual, Whitened, Wide

SHIPPED = Path(__file__).parents[1] / "judges"


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


Net = Network | Whitened | Wide | Residual
ARCHITECTURES: dict[str, type[Net]] = {"plain": Network, "whitened": Whitened, "wide": Wide, "residual": Residual}
# Those whose weights are kept as float16.
HALVED = (Wide, Residual)


@dataclass(frozen=True)
class Judge:
    """A frozen network with its digest, which names it in every measurement."""

    network: Net
    digest: str
    classes: tuple[str, ...]

    @property
    def channels(self) -> int:
        """What images must have: the input channels of the first convolution."""
        return int(next(self.network.parameters()).shape[1])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits float32 [n, classes] and features float32 [n, features] of uint8 [n, c, h, w]."""
        device = next(self.network.parameters()).device
        parts = [self.network(chunk.to(device).float() / 255) for chunk in images.split(500)]
        logits, features = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        return logits, features

    def on(self, device: torch.device) -> Judge:
        """The same, computing there."""
        return replace(self, network=self.network.to(device))

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


def for_dataset(dataset: Dataset, shown: float = math.inf) -> Judge:
    """The shipped judge of a data set, or one of its own, trained now if it is not yet there; by at most ``shown``
    images, or one epoch, where whoever asks cannot wait for a better one.

    Raises:
        DataError: the set has no labels to learn from.
    """
    if (judge := shipped(dataset)) is not None:
        return judge
    if dataset.labels is None:
        raise DataError(f"data set {dataset.name!r} has no labels, and a judge can only learn from labelled images")
    rest, held_out = split_held_out(dataset)
    most = max(4, min(30, 600_000 // len(rest)))
    epochs = most if shown >= most * len(rest) else max(1, int(shown) // len(rest))
    cache = Path(os.environ.get("GANSERVE_DATA", "var")) / "judges"
    quick = f"-{epochs}" if epochs < most else ""
    path = cache / f"{private(dataset.name)}{fingerprint(dataset)}{quick}.safetensors"
    try:
        return read(path)
    except (OSError, ValueError, KeyError):
        # Not there yet, or left half written by a process that was killed or raced with: it is only a cache.
        network, accuracies = fit(rest, held_out, epochs=epochs)
        write(path, network, dataset, {"held_out_accuracies": accuracies, "trained_on": len(rest)})
    return read(path)


def private(dataset: str) -> str:
    """What names begin with of what was learnt of a folder, so that it goes with the folder; nothing for other sets."""
    folder = Path(dataset)
    return f"{place_mark(str(folder.resolve()))}-" if folder.is_dir() else ""


def write(path: Path, network: Net, dataset: Dataset, report: dict[str, Any]) -> None:
    """The weights, and beside them a json with their digest and how they came to be."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    if isinstance(network, HALVED):
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
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
    labels = rest.labels
    torch.manual_seed(seed)
    network = Network(rest.channels, len(rest.classes))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    n = len(rest)
    batch = min(batch, max(2, n // 4))
    steps = epochs * (n // batch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)

    def epoch() -> Batches:
        for rows in torch.randperm(n)[: n // batch * batch].split(batch):
            image = augment(rest.images[rows].float() / 255, shift, flip=flip, noise=noise)
            yield image.contiguous(memory_format=torch.channels_last), labels[rows]

    kept, accuracies = teach(
        network,
        (epoch() for _ in range(epochs)),
        optimiser,
        schedule,
        smoothing=0.05,
        average=Average.of(network, steps, buffers=False),
        score=lambda average: Judge(average, "", rest.classes).accuracy(held_out),
    )
    assert isinstance(kept, Network)
    return kept, accuracies


def fit_whitened(
    rest: Dataset, held_out: Dataset, *, epochs: int, batch: int = 256, seed: int = 0, pad: int = 2
) -> tuple[Whitened, list[float]]:
    """Train a :class:`Whitened` on ``rest``; returns the average of weights of the best epoch by ``held_out``, and
    its accuracies.

    SGD with Nesterov momentum under a triangular rate, label smoothing 0.1, and what costs next to nothing: shifts of
    up to ``pad`` whole pixels, and mirroring, of each image in every other epoch.
    """
    torch.manual_seed(seed)
    network = Whitened(rest.channels, len(rest.classes))
    network.see(rest.images[torch.randperm(len(rest))[:2000]].float() / 255)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = min(batch, max(2, len(rest) // 4))
    steps = epochs * (len(rest) // batch)
    weights = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(weights, lr=0.3, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True)
    rise = 0.2 * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / rise, (steps - step) / (steps - rise))
    )
    average = Average.of(network, steps, buffers=True)
    epoch = itertools.count(1)

    def score(candidate: Whitened) -> float:
        accuracy = Judge(candidate, "", rest.classes).accuracy(held_out)
        print(f"epoch {next(epoch)} of {epochs}: held-out accuracy {accuracy:.4f}", flush=True)
        return accuracy

    shifted = _shifted(rest, epochs, batch, pad)
    kept, accuracies = teach(network, shifted, optimiser, schedule, smoothing=0.1, average=average, score=score)
    assert isinstance(kept, Whitened)
    return kept, accuracies


def _shifted(rest: Dataset, epochs: int, batch: int, pad: int) -> Iterator[Batches]:
    """Epochs of whole-pixel shifts, in which each image is mirrored every other time."""
    assert rest.labels is not None
    labels, n, size = rest.labels, len(rest), rest.size
    # Pixels last: rows of a shifted copy are then read whole, and lie as the convolutions want them.
    padded = F.pad(rest.images, (pad, pad, pad, pad)).permute(0, 2, 3, 1).contiguous()
    mirrored = torch.rand(n) < 0.5
    along = torch.arange(size)

    def one(odd: bool) -> Batches:
        for rows in torch.randperm(n)[: n // batch * batch].split(batch):
            down, right = torch.randint(0, 2 * pad + 1, (2, len(rows), 1))
            turned = (mirrored[rows] ^ odd)[:, None]
            y, x = down + along, right + torch.where(turned, size - 1 - along, along)
            image = padded[rows[:, None, None], y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
            yield image.float() / 255, labels[rows]

    for epoch in range(epochs):
        yield one(epoch % 2 == 1)
