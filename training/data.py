"""Data sets by name or folder, as one uint8 tensor in memory.

A name is one of, tried in this order:

* ``digits``: scikit-learn's embedded 8x8 digits;
* a folder, or a ZIP, of class folders, with or without splits above them, or of unlabelled pictures
  (:mod:`ganserve.sets`);
* a folder that holds a local copy of a Hugging Face data set, or a hub name such as ``ylecun/mnist``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ganserve import archives, pictures, reading, sets
from ganserve.entries import mark_of
from ganserve.inspection import OWN_FOLDER, hidden_classes, hidden_folders
from ganserve.labels import LONGEST_NAME
from ganserve.reading import Source, Unreadable
from ganserve.unpacking import Damaged
from training import hub, tables

# A class with fewer pictures is not measured: they are all needed for training.
MEASURED = 4

log = logging.getLogger(__name__)


class DataError(ValueError):
    """A data set that cannot be trained on; the message says why and what would be right."""


@dataclass(frozen=True)
class Dataset:
    """Images ``uint8 [n, channels, size, size]`` with labels ``int64 [n]``, or none, and the class names."""

    name: str
    images: torch.Tensor
    labels: torch.Tensor | None
    classes: tuple[str, ...]
    report: sets.Report | None = None

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

    @property
    def missing(self) -> tuple[str, ...]:
        """Classes of which there is no image here."""
        if self.labels is None:
            return ()
        counts = class_counts(self.labels, self.classes)
        return tuple(name for name, count in counts.items() if not count)


def split_held_out(dataset: Dataset, share: float = 1 / 12, limit: int = 5000) -> tuple[Dataset, Dataset]:
    """Part the training split into (rest, held out), the same parts for ever: the held-out part serves to
    choose snapshots and hyperparameters, so that the test split is seen only by the final figures.

    Every class keeps an image in the rest, and has one in the held-out part if it has at least ``MEASURED``.
    """
    n = len(dataset)
    held = min(limit, int(n * share))
    order = np.random.default_rng(20201).permutation(n)
    rest, out = set(order[held:].tolist()), set(order[:held].tolist())
    if dataset.labels is not None:
        labels = dataset.labels.numpy()
        for label in range(len(dataset.classes)):
            rows = order[labels[order] == label].tolist()
            if len(rows) >= MEASURED and not out.intersection(rows):
                out.add(rows[0])
                rest.discard(rows[0])
            elif rows and not rest.intersection(rows):
                rest.add(rows[-1])
                out.discard(rows[-1])
    return dataset.subset(torch.tensor(sorted(rest))), dataset.subset(torch.tensor(sorted(out), dtype=torch.int64))


def splits(name: str, size: int, channels: int) -> tuple[Dataset, Dataset, str]:
    """The (training, test) images and what the second is called: a set without a labelled test split is parted.

    Raises:
        DataError: the set cannot be read, or has no labels.
    """
    train = load(name, size=size, channels=channels, labelled=False)
    if train.labels is None:
        raise DataError(f"data set {name!r} has no labels, by which pictures are measured")
    test = _test_split(name, size, channels)
    if test is not None and test.classes == train.classes:
        return train, test, "test"
    rest, held_out = split_held_out(train)
    # Where every picture is needed for training, what is learned is all that there is to hold it against.
    return (rest, held_out, "held-out") if len(held_out) else (train, train, "train")


def _test_split(name: str, size: int, channels: int) -> Dataset | None:
    if name == "digits":
        return None
    try:
        found = load(name, size=size, channels=channels, split="test", labelled=False)
    except DataError as error:
        log.info("no test split is used: %s", error)
        return None
    return found if found.labels is not None and len(found) else None


def load(
    name: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    split: str = "train",
    labelled: bool = True,
    strict: bool = False,
    column: str | None = None,
    fit: Callable[[int], int] = lambda edge: edge,
    workers: int | None = None,
) -> Dataset:
    """Read a data set into memory.

    Args:
        name: see the module's text.
        size: edge in pixels that images are resized to (short edge first, then a centred square); None takes the
            median of their short edges, or what ``fit`` makes of it.
        channels: 1 (grey) or 3 (colour); None is grey where hardly a picture shows colour.
        split: ``train`` or ``test``.
        labelled: whether labels are needed; a set without any is then refused, and so is one with one class.
        strict: refuse a data set with rows that have no picture or no label, which are left out otherwise.
        column: the column of labels, where a data set of the hub, or metadata beside pictures, has several candidates.
        workers: threads that decode; all cores by default. The pixels do not depend on it.

    Raises:
        DataError: nothing there, nothing readable, no such split, no labels, or one class only.
    """
    wanted = _Wanted(size, channels, fit, workers)
    try:
        dataset = _read(name, wanted, _Rows(split, column, strict, labelled))
    except (sets.SetError, archives.Refused, Damaged, tables.HubError, Unreadable) as error:
        raise DataError(f"data set {name!r}: {error}") from error
    except OSError as error:
        raise DataError(f"data set {name[:200]!r} cannot be read: {error.strerror or error}") from error
    if long := [name for name in dataset.classes if len(name) > LONGEST_NAME]:
        told = f"a class name of {len(long[0])} characters, {long[0][:40]!r}..."
        raise DataError(f"data set {name!r} has {told}: at most {LONGEST_NAME} can be asked for")
    for line in dataset.report.notices if dataset.report else ():
        log.warning("data set %s: %s", name, line)
    if labelled:
        if dataset.labels is None:
            raise DataError(
                f"data set {name!r} has no labels: this recipe is conditional and needs a folder of class folders, a "
                "metadata.csv with the columns file_name and label beside the pictures, or a data set with a label "
                "column; or take an unconditional recipe"
            )
        if len(dataset.classes) - len(dataset.missing) < 2:
            raise DataError(f"data set {name!r} has one class only: a conditional recipe needs two or more")
    return dataset


@dataclass(frozen=True)
class _Wanted:
    size: int | None
    channels: int | None
    fit: Callable[[int], int]
    workers: int | None


@dataclass(frozen=True)
class _Rows:
    """Which pictures, and by which labels."""

    split: str
    column: str | None
    strict: bool
    labelled: bool


def _read(name: str, wanted: _Wanted, rows: _Rows) -> Dataset:
    if name == "digits":
        return _digits(wanted)
    if not name.strip():
        raise DataError("no data set is named: expected a folder, a ZIP, a data set of the hub, or 'digits'")
    place = Path(name)
    if place.is_dir():
        entries = sets.folder_entries(place)
        if not _is_table(place, entries):
            return _files(place, entries, wanted, rows, hidden=hidden_folders(place))
    if place.is_file():
        return _archive(place, wanted, rows)
    table = hub.table(name, split=rows.split, column=rows.column, strict=rows.strict, labelled=rows.labelled)
    layout = sets.Layout((), table.labels, table.classes, None, table.skipped, table.notices)
    # Which rows are left out depends on the labels.
    cache = _cache(name, [table.fingerprint, [source.name for source in table.sources]], wanted, rows)
    return _assemble(name, table.sources, layout, wanted, cache)


def _is_table(place: Path, entries: Sequence[sets.Entry]) -> bool:
    """Whether a folder is a copy of a data set of the hub. Raises DataError for one that may be class folders too."""
    if not hub.is_copy(place):
        return False
    try:
        layout = sets.lay_out(entries)
    except sets.SetError:
        return True
    if len(layout.classes) > 1:
        raise DataError(
            f"data set {str(place)!r} holds class folders ({', '.join(map(repr, layout.classes[:2]))}, ...) and tables "
            "(Parquet or Arrow): move one of them away"
        )
    return True


def _digits(wanted: _Wanted) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    size, channels = wanted.size or wanted.fit(8), wanted.channels or 1
    images = np.stack([pictures.square(Image.fromarray(image), size, channels) for image in grey])
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    return Dataset("digits", _tensor(images), labels, tuple(str(i) for i in range(10)))


def _left_out(folder: Path) -> str | None:
    """What was left out of an upload when it came, by the record beside its classes."""
    try:
        listed = [one["file"] for one in json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["left_out"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    names = f"{', '.join(map(repr, listed[:10]))}{' and more' if len(listed) > 10 else ''}"
    return f"{len(listed)} pictures could not be decoded and were left out of the upload: {names}" if listed else None


def _archive(place: Path, wanted: _Wanted, rows: _Rows) -> Dataset:
    told, lock = place.stat(), threading.Lock()

    def alone(read: Callable[[], bytes]) -> bytes:
        with lock:  # an archive is read from one place at a time
            return read()

    with archives.opened(place, _OWN_ZIP) as opened:
        entries = sorted(archives.entries(opened, _OWN_ZIP, told.st_size), key=lambda entry: _walked(entry.name))
        mark = mark_of(told)
        marked = [replace(one, read=partial(alone, one.read), mark=mark) for one in entries]
        return _files(place, marked, wanted, rows, folders=opened.folders, hidden=opened.hidden)


def _walked(name: str) -> list[tuple[bool, str]]:
    """Sorts names as a folder is walked: its files, then its folders."""
    *folders, file = name.split("/")
    return [*((True, folder) for folder in folders), (False, file)]


# A ZIP of one's own may be as large as one likes.
_OWN_ZIP = replace(OWN_FOLDER, unpacked_bytes=1 << 62, file_bytes=1 << 30, files=1 << 31, entries=1 << 31)


def _files(
    place: Path,
    entries: Sequence[sets.Entry],
    wanted: _Wanted,
    rows: _Rows,
    *,
    folders: Sequence[str] = (),
    hidden: Sequence[str],
) -> Dataset:
    layout = sets.lay_out(entries, column=rows.column, folders=folders)
    if left := _left_out(place):
        layout = replace(layout, notices=(*layout.notices, left))
    layout = replace(layout, notices=(*layout.notices, *hidden_classes(hidden, layout)))
    if place.is_dir() and (empty := sets.empty_class(place, layout)):
        raise DataError(f"class folder {empty!r} of {str(place)!r} holds no image")
    if layout.labels is None and layout.candidates and rows.labelled:
        raise DataError(
            f"data set {str(place)!r}: its metadata does not tell which column holds labels, of "
            f"{list(layout.candidates)}: call it label, or name it with --label-column"
        )
    if rows.strict and (missing := [f"{count} {why}" for why, count in layout.skipped if why in _MISSING]):
        raise DataError(f"data set {str(place)!r}: {'; '.join(missing)}")
    if layout.splits is None and rows.split != "train":
        told = f"data set {str(place)!r} has no split {rows.split!r}"
        raise DataError(f"{told}: it is one of class folders, without splits")
    layout = _in_split(layout, rows.split, str(place))
    sources = [Source(entry.name, entry.read) for entry in layout.pictures]
    marks = [(entry.name, *entry.mark) for entry in layout.pictures]
    return _assemble(str(place), sources, layout, wanted, _cache(str(place.resolve()), marks, wanted, rows))


# Of what is left out, that which ``strict`` refuses.
_MISSING = frozenset({"without a label", "not named by metadata", "named by metadata and not there"})


def _in_split(layout: sets.Layout, split: str, name: str) -> sets.Layout:
    """One split, by the classes of the training split: of others nothing can be learned."""
    if layout.splits is None:
        return layout
    asked = split if split in layout.splits else "validation" if split == "test" else split
    rows = [index for index, found in enumerate(layout.splits) if found == asked]
    if not rows:
        raise DataError(f"data set {name!r} has no split {split!r}: it has {', '.join(sorted(set(layout.splits)))}")
    if layout.labels is None:
        return replace(layout, pictures=tuple(layout.pictures[row] for row in rows), splits=None)
    learned = sorted({label for label, found in zip(layout.labels, layout.splits, strict=True) if found == "train"})
    number = {label: index for index, label in enumerate(learned)}
    known = [row for row in rows if layout.labels[row] in number]
    skipped, notices = layout.skipped, layout.notices
    if unknown := len(rows) - len(known):
        skipped = (*skipped, ("of a class that the training split lacks", unknown))
        notices = (*notices, f"{unknown} pictures of a class that the training split lacks are left out")
    return sets.Layout(
        tuple(layout.pictures[row] for row in known),
        tuple(number[layout.labels[row]] for row in known),
        tuple(layout.classes[label] for label in learned),
        None,
        skipped,
        notices,
    )


def _assemble(
    name: str, sources: Sequence[Source], layout: sets.Layout, wanted: _Wanted, cache: reading.Cache
) -> Dataset:
    if not sources:
        raise DataError(f"data set {name!r} is empty: it must hold at least one image")
    found = reading.read_once(
        sources, wanted.size, wanted.channels, fit=wanted.fit, cache=cache, workers=wanted.workers
    )
    told = sets.report(layout, found.seen, found.images.shape[2], found.images.shape[1])
    labels = None if layout.labels is None else torch.tensor(layout.labels, dtype=torch.int64)
    return Dataset(name, torch.from_numpy(found.images), labels, layout.classes, told)


def _cache(place: str, read: Any, wanted: _Wanted, rows: _Rows) -> reading.Cache:
    """Where a reading of these files is kept, in place of an older one of the same split, size and channels."""
    size = wanted.size or [wanted.fit(edge) for edge in _EDGES]
    part = [rows.split, size, wanted.channels, rows.column]
    return reading.Cache(Path(os.environ.get("GANSERVE_DATA", "var")) / "pictures", place, part, [read, part])


# By what they make of these, one function that fits sizes is told from another.
_EDGES = (1, 8, 12, 16, 24, 28, 30, 32, 48, 64, 96, 128, 256, 512, 1024)


def _tensor(images: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
    """uint8 [n, c, h, w] of [n, h, w, c]."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def class_counts(labels: torch.Tensor, classes: Sequence[str]) -> dict[str, int]:
    """Images a class, by class name."""
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    return dict(zip(classes, counts, strict=True))


def fingerprint(dataset: Dataset) -> str:
    """A digest of the images and labels themselves."""
    digest = hashlib.sha256(dataset.images.numpy().tobytes())
    if dataset.labels is not None:
        digest.update(dataset.labels.numpy().tobytes())
    return digest.hexdigest()[:24]
