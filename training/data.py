"""Data sets by name or folder, as one uint8 tensor in memory.

A name is one of, tried in this order:

* ``digits``: scikit-learn's embedded 8x8 digits;
* a folder of class folders of images (labelled), or a folder of images (unlabelled);
* a folder that holds a local copy of a Hugging Face data set, or a hub name such as ``ylecun/mnist``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
LABEL_COLUMNS = ("label", "fine_label", "labels")


class DataError(ValueError):
    """A data set that cannot be trained on; the message says why and what would be right."""


@dataclass(frozen=True)
class Dataset:
    """Images ``uint8 [n, channels, size, size]`` with labels ``int64 [n]``, or none, and the class names."""

    name: str
    images: torch.Tensor
    labels: torch.Tensor | None
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return int(self.images.shape[0])

    @property
    def channels(self) -> int:
        return int(self.images.shape[1])

    @property
    def size(self) -> int:
        return int(self.images.shape[2])

    def subset(self, indices: torch.Tensor) -> Dataset:
        """The rows named by ``indices`` (int64 [m])."""
        labels = None if self.labels is None else self.labels[indices]
        return Dataset(self.name, self.images[indices], labels, self.classes)


def split_held_out(dataset: Dataset, share: float = 1 / 12, limit: int = 5000) -> tuple[Dataset, Dataset]:
    """Part the training split into (rest, held out), the same parts for ever: the held-out part serves to
    choose snapshots and hyperparameters, so that the test split is seen only by the final figures."""
    n = len(dataset)
    held = min(limit, int(n * share))
    order = torch.from_numpy(np.random.default_rng(20201).permutation(n))
    return dataset.subset(order[held:].sort().values), dataset.subset(order[:held].sort().values)


def load(
    name: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    split: str = "train",
    labelled: bool = True,
) -> Dataset:
    """Read a data set into memory.

    Args:
        name: see the module's text.
        size: edge in pixels that images are resized to (short edge first, then a centred square); None keeps
            the edge of the first image.
        channels: 1 (grey) or 3 (colour); None keeps what the first image has.
        split: ``train`` or ``test``; a folder has no test split of its own and serves for both.
        labelled: whether labels are needed; a set without any is then refused, and so is one with one class.

    Raises:
        DataError: nothing there, nothing readable, no labels, or one class only.
    """
    images, labels, classes = _read(name, size, channels, split)
    if not len(images):
        raise DataError(f"data set {name!r} is empty: it must hold at least one image")
    if labelled:
        if labels is None:
            raise DataError(
                f"data set {name!r} has no labels: this recipe is conditional and needs a folder of class "
                "folders or a data set with a label column; or take an unconditional recipe"
            )
        present = int(torch.unique(labels).numel())
        if present < 2:
            raise DataError(f"data set {name!r} has one class only: a conditional recipe needs two or more")
    return Dataset(name, images, labels, classes)


def _read(
    name: str, size: int | None, channels: int | None, split: str
) -> tuple[torch.Tensor, torch.Tensor | None, tuple[str, ...]]:
    if name == "digits":
        return _digits(size, channels)
    folder = Path(name)
    if folder.is_dir() and not any(folder.rglob("*.parquet")) and not any(folder.rglob("*.arrow")):
        return _folder(folder, size, channels)
    return _hugging_face(name, size, channels, split)


def _digits(size: int | None, channels: int | None) -> tuple[torch.Tensor, torch.Tensor | None, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    images = _stack((Image.fromarray(image) for image in grey), size, channels)
    return images, torch.from_numpy(bunch.target.astype(np.int64)), tuple(str(i) for i in range(10))


def _folder(
    folder: Path, size: int | None, channels: int | None
) -> tuple[torch.Tensor, torch.Tensor | None, tuple[str, ...]]:
    class_folders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    files: list[Path] = []
    labels: list[int] = []
    classes: tuple[str, ...] = ()
    if class_folders:
        classes = tuple(p.name for p in class_folders)
        for index, class_folder in enumerate(class_folders):
            found = _image_files(class_folder)
            if not found:
                raise DataError(f"class folder {class_folder.name!r} of {str(folder)!r} holds no image")
            files += found
            labels += [index] * len(found)
    else:
        files = _image_files(folder)
    if not files:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"no image in {str(folder)!r}: expected files ({suffixes}) or class folders of them")
    images = _stack((_open(path) for path in files), size, channels)
    return images, torch.tensor(labels) if class_folders else None, classes


def _image_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES)


def _open(source: Path | io.BytesIO, label: str = "") -> Image.Image:
    try:
        image = Image.open(source)
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"cannot read image {label or str(source)!r}: {error}") from error
    return image


def _hugging_face(
    name: str, size: int | None, channels: int | None, split: str
) -> tuple[torch.Tensor, torch.Tensor | None, tuple[str, ...]]:
    import datasets

    try:
        table = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises many kinds for one meaning
        raise DataError(
            f"cannot read data set {name!r} (split {split!r}): {error}. Expected 'digits', an existing folder "
            "of class folders or images, a local copy of a Hugging Face data set, or a hub name"
        ) from error
    features: dict[str, Any] = dict(table.features)
    image_column = next((c for c, f in features.items() if isinstance(f, datasets.Image)), None)
    if image_column is None:
        raise DataError(f"data set {name!r} has no image column: its columns are {sorted(features)}")
    label_column = next((c for c in LABEL_COLUMNS if isinstance(features.get(c), datasets.ClassLabel)), None)
    raw = table.cast_column(image_column, datasets.Image(decode=False))
    images = _stack(
        (_open(io.BytesIO(cell["bytes"]), f"row {i}") for i, cell in enumerate(raw[image_column])),
        size,
        channels,
    )
    if label_column is None:
        return images, None, ()
    return (
        images,
        torch.tensor(np.asarray(raw[label_column], dtype=np.int64)),
        tuple(features[label_column].names),
    )


def _stack(images: Iterator[Image.Image], size: int | None, channels: int | None) -> torch.Tensor:
    """uint8 [n, c, size, size] of square images."""
    rows: list[np.ndarray[Any, np.dtype[np.uint8]]] = []
    for image in images:
        if channels is None:
            channels = 1 if image.mode in ("1", "L", "I", "I;16", "F") else 3
        if size is None:
            size = min(image.size)
        image = image.convert("L" if channels == 1 else "RGB")
        rows.append(np.asarray(_square(image, size)))
    if not rows:
        return torch.empty(0, channels or 1, size or 1, size or 1, dtype=torch.uint8)
    stacked = np.stack(rows)
    if stacked.ndim == 3:
        stacked = stacked[..., None]
    return torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)))


def _square(image: Image.Image, size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    width, height = image.size
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    box = (left, top, left + edge, top + edge)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def class_counts(labels: torch.Tensor, classes: Sequence[str]) -> dict[str, int]:
    """Images a class, by class name."""
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    return dict(zip(classes, counts, strict=True))
