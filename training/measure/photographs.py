"""Judges of small colour photographs, made to be trained in a minute of a GPU: two that have no layer in common."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import augment
from training.data import Dataset
from training.measure.classifier import Average, Batches, fit


class Whitening(nn.Module):
    """A frozen first convolution that whitens patches, a body, and a linear layer on means over places."""

    def __init__(self, whiten: nn.Conv2d, body: nn.Sequential, head: nn.Linear) -> None:
        super().__init__()
        self.whiten, self.body, self.head = whiten.requires_grad_(False), body, head

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n, classes] and features [n, features] of float images [n, c, h, w] in 0..1."""
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


class Whitened(Whitening):
    """Made to learn in core-minutes after Jordan 2024 (airbench, arXiv:2404.00498): patches of 4x4 pixels, then five
    narrow convolutions, all but one at an edge of an eighth to a quarter."""

    def __init__(self, channels: int, classes: int, width: int = 16) -> None:
        whiten = nn.Conv2d(channels, 2 * width, 4, 2, 1, bias=False)
        body = nn.Sequential(
            *_block(2 * width, 3 * width, pool=True),
            *_block(3 * width, 5 * width),
            *_block(5 * width, 5 * width, pool=True),
            *_block(5 * width, 10 * width),
            *_block(10 * width, 10 * width),
        )
        super().__init__(whiten, body, nn.Linear(10 * width, classes))


class Wide(Whitening):
    """The same idea at the article's own size: patches of 2x2 pixels, three blocks of two convolutions, 2.0 M
    parameters."""

    def __init__(self, channels: int, classes: int) -> None:
        whiten = nn.Conv2d(channels, 24, 2, 1, 0, bias=False)
        blocks = itertools.pairwise((24, 64, 256, 256))
        layers = [layer for a, b in blocks for layer in (*_block(a, b, pool=True), *_block(b, b))]
        super().__init__(whiten, nn.Sequential(*layers), nn.Linear(256, classes))


def _block(before: int, after: int, *, pool: bool = False) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, 3, 1, 1, bias=False)
    pooling = [nn.MaxPool2d(2)] if pool else []
    return [convolution, *pooling, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


class _Residual(nn.Module):
    """Two convolutions with norm and ReLU before each, added to what came in (He et al. 2016, arXiv:1603.05027)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(inplace=True))
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
        )
        same = before == after and stride == 1
        self.past = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.first(x)
        told: Tensor = self.body(seen)
        return told + (x if isinstance(self.past, nn.Identity) else self.past(seen))


class Residual(nn.Module):
    """A wide residual network (Zagoruyko and Komodakis 2016, arXiv:1605.07146) of six blocks, 2.4 M parameters."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        widths = ((60, 60, 1), (60, 60, 1), (60, 120, 2), (120, 120, 1), (120, 240, 2), (240, 240, 1))
        self.body = nn.Sequential(
            nn.Conv2d(channels, 60, 3, 1, 1, bias=False),
            *(_Residual(before, after, stride) for before, after, stride in widths),
            nn.BatchNorm2d(240),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(240, classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n, classes] and features [n, 240] of float images [n, c, h, w] in 0..1."""
        features = self.body(image * 2 - 1).mean((2, 3))
        return self.head(features), features


def fit_photographs(
    kind: type[Wide | Residual],
    rest: Dataset,
    held_out: Dataset,
    *,
    epochs: int,
    batch: int = 512,
    seed: int = 0,
    mirror: bool = False,
    cut: bool = False,
    rate: float = 0.4,
) -> tuple[Wide | Residual, list[float]]:
    """Train on ``rest``, on a GPU if there is one; returns the average of weights of the best epoch by ``held_out``,
    its weights rounded to float16, in which they are kept, and the accuracies.

    SGD with Nesterov momentum under a triangular rate, label smoothing 0.1, shifts of up to an eighth, and if asked
    ``mirror`` and ``cut``: every other image is mirrored, or loses a square.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    network = kind(rest.channels, len(rest.classes))
    if isinstance(network, Wide):
        network.see(rest.images[torch.randperm(len(rest))[:2000]].float() / 255)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = min(batch, max(2, len(rest) // 4))
    steps = epochs * (len(rest) // batch)
    weights = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(weights, lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True)
    rise = 0.2 * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / rise, (steps - step) / (steps - rise))
    )
    epoch = itertools.count(1)

    def score(candidate: nn.Module) -> float:
        found = accuracy(candidate, held_out, device)
        print(f"epoch {next(epoch)} of {epochs}: held-out accuracy {found:.4f}", flush=True)
        return found

    average = Average.of(network, steps, buffers=True)
    shown = _shown(rest, device, epochs, batch, mirror=mirror, cut=cut)
    kept, accuracies = fit(network, shown, optimiser, schedule, smoothing=0.1, average=average, score=score)
    assert isinstance(kept, Wide | Residual)
    for tensor in kept.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
    return kept.cpu(), accuracies


def _shown(
    rest: Dataset, device: torch.device, epochs: int, batch: int, *, mirror: bool, cut: bool
) -> Iterator[Batches]:
    assert rest.labels is not None
    images, labels, n = rest.images.to(device), rest.labels.to(device), len(rest)

    def one() -> Batches:
        for rows in torch.randperm(n)[: n // batch * batch].split(batch):
            rows = rows.to(device)
            image = augment.translation(images[rows].float() / 255 - 0.5)
            if mirror:
                turned = torch.rand(len(rows), 1, 1, 1, device=device) < 0.5
                image = torch.where(turned, image.flip(3), image)
            image = (augment.cutout(image) if cut else image) + 0.5
            yield image.contiguous(memory_format=torch.channels_last), labels[rows]

    for _ in range(epochs):
        yield one()


@torch.no_grad()
def accuracy(network: nn.Module, dataset: Dataset, device: torch.device) -> float:
    """Share of images whose class a network in evaluation mode names."""
    assert dataset.labels is not None
    parts = [network(chunk.to(device).float() / 255)[0].argmax(1).cpu() for chunk in dataset.images.split(500)]
    return float((torch.cat(parts) == dataset.labels).float().mean())
