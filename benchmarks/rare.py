"""Whether synthetic pictures of rare classes help a classifier: real and synthetic mixed, by cross-validation.

    python -m benchmarks.rare            # goes on with the folds that are not recorded yet
    python -m benchmarks.rare --anew

The embedded digits, 8 x 8 pixels, in five folds. Of three classes the training part keeps 12 pictures each, as if they
were rare; the tested part is left whole. A generator is trained on that same training part, so that it has seen no
picture that is tested. The classifier sees batches of 64 real pictures, in three of four arms with 24 more of the rare
classes, which are, arm by arm, the real ones again, those shifted by up to a pixel, or synthetic ones: all else is the
same, seeds of weights and order among it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ganserve import machine
from ganserve.torch import Synthetic

HERE = Path(__file__).parent
RECORD = HERE / "rare.json"
RARE, KEPT = (3, 8, 9), 12
FOLDS, SEEDS = 5, 3
BATCH, MORE, STEPS = 64, 24, 400
RECIPE, IMAGES = "cgan", 300_000
ALONE, REPEATED, SHIFTED, SYNTHETIC = (
    "real pictures alone",
    "the rare ones repeated",
    "the rare ones repeated, shifted by up to a pixel",
    "synthetic ones of the rare classes",
)
ARMS = (ALONE, REPEATED, SHIFTED, SYNTHETIC)


def folds() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Training images uint8 [n, 1, 8, 8] and labels, of which few are rare; tested images and labels."""
    found = load_digits()
    images = torch.from_numpy(np.rint(found.images * 255 / 16).astype(np.uint8))[:, None]
    labels = torch.from_numpy(found.target).long()
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(found.images, found.target):
        kept = [row for row in train if labels[row] not in RARE]
        for label in RARE:
            kept += [row for row in train if labels[row] == label][:KEPT]
        yield images[kept], labels[kept], images[test], labels[test]


def generator(images: Tensor, labels: Tensor, folder: Path) -> Path:
    """Train, export and publish a generator of these pictures; the repository that it is in."""
    for row, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        place = folder / "pictures" / str(label) / f"{row}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(place)
    train = ["--recipe", RECIPE, "--dataset", str(folder / "pictures"), "--run", str(folder / "rare")]
    export = [str(folder / "rare"), "--models", str(folder / "models")]
    for command in (
        [*machine.python("training.train"), *train, "--images", str(IMAGES), "--size", "8", "--threads", "1"],
        [*machine.python("training.export"), *export],
    ):
        subprocess.run(command, check=True, cwd=HERE.parent, stdout=subprocess.DEVNULL)
    return folder / "models"


def shifted(images: Tensor) -> Tensor:
    """Each by up to a pixel, either way."""
    moves = torch.randint(-1, 2, (len(images), 2)).tolist()
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    return torch.stack([image[:, 1 - y : 9 - y, 1 - x : 9 - x] for image, (y, x) in zip(padded, moves, strict=True)])


def more(arm: str, images: Tensor, labels: Tensor, models: Path, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of pictures of the rare classes, without end."""
    if arm == SYNTHETIC:
        names = [str(label) for label in RARE]
        pictures = Synthetic(models, seed=seed << 32, n=MORE * STEPS, labels=names, block=MORE)
        yield from DataLoader(pictures, batch_size=MORE)
    rare = torch.isin(labels, torch.tensor(RARE)).nonzero()[:, 0]
    while True:
        rows = rare[torch.randint(len(rare), (MORE,))]
        yield shifted(images[rows]) if arm == SHIFTED else images[rows], labels[rows]


def classifier() -> nn.Sequential:
    """For images of 8 x 8 pixels and one channel."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.25), nn.Linear(32 * 16, 10),
    )  # fmt: skip


def trained(arm: str, images: Tensor, labels: Tensor, models: Path, seed: int) -> nn.Sequential:
    """A classifier, after as many steps in every arm."""
    torch.manual_seed(seed)
    net = classifier()
    adam = torch.optim.Adam(net.parameters(), 2e-3)
    order = torch.Generator().manual_seed(seed)
    real = DataLoader(TensorDataset(images, labels), BATCH, shuffle=True, drop_last=True, generator=order)
    endless = (batch for _ in cycle([0]) for batch in real)
    extra = more(arm, images, labels, models, seed)
    for shown, told in islice(endless, STEPS):
        if arm != ALONE:
            others, theirs = next(extra)
            shown, told = torch.cat([shown, others]), torch.cat([told, theirs])
        adam.zero_grad()
        nn.functional.cross_entropy(net(shown / 255), told).backward()
        adam.step()
    return net.eval()


def measure() -> None:
    """For each fold and arm the share of right answers, of the rare classes and of all; the mean over the seeds.

    Each fold is recorded as it ends, and folds that are recorded are not measured again.
    """
    found = recorded()
    for fold, (images, labels, tested, truth) in enumerate(folds()):
        if fold < len(found):
            continue
        with tempfile.TemporaryDirectory() as folder:
            models = generator(images, labels, Path(folder))
            measured: dict[str, dict[str, float]] = {}
            for arm in ARMS:
                shares: dict[str, list[float]] = {"rare": [], "all": []}
                for seed in range(SEEDS):
                    net = trained(arm, images, labels, models, 10 * fold + seed)
                    with torch.no_grad():
                        right = net(tested / 255).argmax(1) == truth
                    shares["rare"].append(right[torch.isin(truth, torch.tensor(RARE))].float().mean().item())
                    shares["all"].append(right.float().mean().item())
                measured[arm] = {name: statistics.mean(values) for name, values in shares.items()}
            found.append(measured)
            RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def recorded() -> list[dict[str, dict[str, float]]]:
    """The folds so far."""
    found: list[dict[str, dict[str, float]]] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else []
    return found


def table(found: list[dict[str, dict[str, float]]]) -> str:
    """What was measured, with the differences to the arm that differs in nothing but where the pictures come from."""
    rows = []
    for arm in ARMS:
        cells = []
        for name in ("rare", "all"):
            shares = [fold[arm][name] for fold in found]
            cells.append(f"{statistics.mean(shares):.3f} (± {statistics.stdev(shares):.3f})")
        rows.append(f"| {arm} | {' | '.join(cells)} |")
    told = []
    for other in (REPEATED, SHIFTED):
        gains = [fold[SYNTHETIC]["rare"] - fold[other]["rare"] for fold in found]
        better = sum(gain > 0 for gain in gains)
        told.append(
            f"- Synthetic pictures against {other}: {statistics.mean(gains):+.3f} of the rare classes' pictures "
            f"(± {statistics.stdev(gains):.3f} over folds), better in {better} of {len(gains)} folds."
        )
    return "\n".join(
        [
            "# Synthetic pictures of rare classes",
            "",
            f"The embedded digits; of classes {', '.join(map(str, RARE))} the training part of each fold keeps {KEPT} "
            f"pictures, and the generator (`{RECIPE}`, {IMAGES:,} images seen) is trained on that part alone. "
            f"Shares of right answers on the tested part: mean and standard deviation over {FOLDS} folds, "
            f"{SEEDS} classifiers each.",
            "",
            "| what the classifier sees | rare classes | all classes |",
            "|---|---:|---:|",
            *rows,
            "",
            *told,
            "",
            "Made by `python -m benchmarks.rare`.",
            "",
        ]
    )


def main() -> None:
    """Measure what is not recorded yet, and write the table."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.rare", description="Real and synthetic, mixed.")
    options.add_argument("--anew", action="store_true", help="forget what is recorded")
    if options.parse_args().anew:
        RECORD.unlink(missing_ok=True)
    torch.set_num_threads(1)
    measure()
    text = table(recorded())
    (HERE / "rare.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
