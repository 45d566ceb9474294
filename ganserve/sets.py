"""A set of pictures: what counts as one, which class and split it belongs to, and a report on the whole.

Folders and archives are read by the same rules, from their names and their files' first bytes:

* class folders, of any depth below; ``train/``, ``test/``, ``val/`` above them are splits; single folders around all of
  it are passed over;
* no class folders: pictures without labels;
* ``metadata.csv`` or ``metadata.jsonl`` beside pictures names files and labels, as on the Hugging Face hub;
* hidden files, those that machines leave, and whatever is no picture never count, and are counted.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ganserve import pictures

SPLITS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
}
LABEL_COLUMNS = ("label", "labels", "fine_label", "category", "class")
# fmt: off
PICTURE_SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".pbm", ".pgm", ".ppm",
    ".pnm", ".jp2", ".ico", ".avif", ".heic", ".heif",
})
# fmt: on
METADATA = ("metadata.csv", "metadata.jsonl")
HEAD_BYTES = 32
_MACHINES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "$recycle.bin"})
# What an upload keeps beside its pictures.
OWN = frozenset({"dataset.json", ".samples.png"})
LISTED = 100


class SetError(ValueError):
    """A set that cannot be read as labelled or unlabelled pictures; the message says what would be right."""


@dataclass(frozen=True)
class Entry:
    """One file: its path with slashes, below the set's root, and how to read it."""

    name: str
    read: Callable[[], bytes] = field(repr=False, compare=False)
    head: Callable[[], bytes] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Layout:
    """Which entries are pictures, and what their places say."""

    pictures: tuple[Entry, ...]
    labels: tuple[int, ...] | None  # of each picture
    classes: tuple[str, ...]
    splits: tuple[str, ...] | None  # of each picture
    skipped: tuple[tuple[str, int], ...] = ()  # why, and how many
    notices: tuple[str, ...] = ()


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts ``2`` before ``10``, for people."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def clutter(name: str) -> bool:
    """What is hidden, or what machines leave unasked, anywhere in a path."""
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part == "__MACOSX" or part.lower() in _MACHINES for part in parts)


def counts(entry: Entry) -> bool:
    """Whether a file is read: a picture by its suffix or its first bytes, or what names pictures."""
    path = PurePosixPath(entry.name)
    return path.name.lower() in METADATA or path.suffix.lower() in PICTURE_SUFFIXES or pictures.looks_like(entry.head())


def folder_entries(folder: Path) -> list[Entry]:
    """The files below a folder, by name; links that lead to files are followed, hidden folders are not entered."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not clutter(name))
        for name in sorted(names):
            path = Path(place) / name
            below = path.relative_to(folder).as_posix()
            # A name of no known encoding does no harm: it is shown with its bytes.
            shown = below.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            found.append(Entry(shown, path.read_bytes, lambda path=path: _head(path)))  # type: ignore[misc]
    return found


def _head(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def lay_out(entries: Iterable[Entry]) -> Layout:
    """What a set holds.

    Raises:
        SetError: no picture in it, or class folders that cannot be told apart.
    """
    skipped: Counter[str] = Counter()
    kept: list[Entry] = []
    metadata: list[Entry] = []
    for entry in entries:
        if entry.name in OWN:
            continue
        if clutter(entry.name):
            skipped["hidden, or left by a machine"] += 1
        elif PurePosixPath(entry.name).name.lower() in METADATA:
            metadata.append(entry)
        elif PurePosixPath(entry.name).suffix.lower() in PICTURE_SUFFIXES or pictures.looks_like(entry.head()):
            kept.append(entry)
        else:
            skipped["no picture"] += 1
    if not kept:
        told = "; ".join(f"{count} {why}" for why, count in skipped.items()) or "it is empty"
        raise SetError(f"no picture in it ({told}): expected class folders of pictures, or pictures")
    if metadata and (rows := _named(metadata)):
        return _by_metadata(kept, rows, skipped)
    return _by_folders(kept, skipped)


def _by_folders(kept: list[Entry], skipped: Counter[str]) -> Layout:
    paths = [PurePosixPath(entry.name).parts for entry in kept]
    top = 0
    # A folder around everything tells nothing, unless it is the one class there is.
    while len({path[top] for path in paths if len(path) > top + 1}) == 1 and min(map(len, paths)) > top + 2:
        top += 1
    paths = [path[top:] for path in paths]
    splits = _splits(paths)
    if splits is not None:
        paths = [path[1:] for path in paths]
    loose = [len(path) == 1 for path in paths]
    notices = []
    if all(loose):
        return Layout(tuple(kept), None, (), splits, tuple(skipped.items()))
    if any(loose):
        first = next(entry.name for entry, alone in zip(kept, loose, strict=True) if alone)
        skipped["picture in no class folder"] += sum(loose)
        notices.append(f"{sum(loose)} pictures lie in no class folder and are left out, such as {first!r}")
    chosen = [i for i, alone in enumerate(loose) if not alone]
    names = [unicodedata.normalize("NFC", paths[i][0]) for i in chosen]
    classes = tuple(sorted(set(names), key=natural))
    index = {name: i for i, name in enumerate(classes)}
    return Layout(
        tuple(kept[i] for i in chosen),
        tuple(index[name] for name in names),
        classes,
        None if splits is None else tuple(splits[i] for i in chosen),
        tuple(skipped.items()),
        tuple(notices),
    )


def _splits(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The split of each picture, where the first folders of all are splits and ``train`` is among them."""
    if any(len(path) < 2 for path in paths):
        return None
    named = [SPLITS.get(path[0].lower()) for path in paths]
    found = [name for name in named if name is not None]
    return tuple(found) if len(found) == len(named) and "train" in found else None


def _named(metadata: list[Entry]) -> dict[str, Mapping[str, Any]]:
    """The rows of ``metadata.*`` by the paths of their pictures."""
    rows: dict[str, Mapping[str, Any]] = {}
    for file in metadata:
        folder = PurePosixPath(file.name).parent
        for row in _rows(file):
            if isinstance(name := row.get("file_name"), str):
                rows[str(folder / name.replace("\\", "/"))] = row
    return rows


def _by_metadata(kept: list[Entry], rows: Mapping[str, Mapping[str, Any]], skipped: Counter[str]) -> Layout:
    """Files and labels as ``metadata.*`` names them; a picture that it does not name is left out."""
    columns = {column for row in rows.values() for column in row} - {"file_name"}
    column = label_column(columns)
    named = [entry for entry in kept if entry.name in rows]
    if not named:
        raise SetError("metadata names none of the pictures: its column file_name must hold their paths")
    notices = []
    if missing := len(kept) - len(named):
        skipped["not named by metadata"] += missing
        notices.append(f"{missing} pictures are not named by metadata and are left out")
    if column is None:
        return Layout(tuple(named), None, (), None, tuple(skipped.items()), tuple(notices))
    told = [(entry, rows[entry.name].get(column)) for entry in named]
    labelled = [(entry, str(value)) for entry, value in told if value is not None and value != ""]
    if unlabelled := len(told) - len(labelled):
        skipped["without a label"] += unlabelled
        notices.append(f"{unlabelled} pictures have no label in metadata and are left out")
    classes = tuple(sorted({value for _, value in labelled}, key=natural))
    index = {name: i for i, name in enumerate(classes)}
    entries, names = zip(*labelled, strict=True) if labelled else ((), ())
    return Layout(entries, tuple(index[n] for n in names), classes, None, tuple(skipped.items()), tuple(notices))


def _rows(file: Entry) -> list[Mapping[str, Any]]:
    text = file.read().decode("utf-8-sig", "replace")
    if file.name.lower().endswith(".csv"):
        return list(csv.DictReader(io.StringIO(text)))
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise SetError(f"{file.name} is not JSON, one object a line: {error}") from error


def label_column(columns: Iterable[str]) -> str | None:
    """The column of labels by its name; the only one there is; None where there is none."""
    listed = list(columns)
    return next((name for name in LABEL_COLUMNS if name in listed), listed[0] if len(listed) == 1 else None)


@dataclass(frozen=True)
class Report:
    """What a set is, in numbers: for the terminal, the page, a run's configuration and a card."""

    pictures: int
    classes: Mapping[str, int]
    size: int
    channels: int
    edges: tuple[int, float, int]  # least, median and largest short edge
    enlarged: int  # smaller than the size
    cropped: int  # not square
    far: int  # more than twice as long as wide, or smaller than half the size
    coloured: int
    duplicates: int
    skipped: Mapping[str, int]
    notices: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        total = max(1, self.pictures)
        return {
            "pictures": self.pictures,
            "classes": {
                name: {"pictures": count, "share": round(count / total, 4)} for name, count in self.classes.items()
            },
            "size": self.size,
            "channels": self.channels,
            "edges": {"least": self.edges[0], "median": self.edges[1], "largest": self.edges[2]},
            "enlarged": self.enlarged,
            "cropped": self.cropped,
            "far": self.far,
            "coloured": self.coloured,
            "duplicates": self.duplicates,
            "background": "#{:02x}{:02x}{:02x}".format(*pictures.BACKGROUND),
            "skipped": dict(self.skipped),
            "notices": list(self.notices),
        }

    def lines(self) -> list[str]:
        """For people."""
        of = f"of {self.pictures:,} pictures"
        kind = "colour" if self.channels == 3 else "grey"
        told = [f"{self.pictures:,} pictures, {kind}, read at {self.size} x {self.size} pixels"]
        if self.classes:
            few = min(self.classes, key=lambda name: self.classes[name])
            many = max(self.classes, key=lambda name: self.classes[name])
            told.append(
                f"{len(self.classes)} classes, from {self.classes[few]:,} pictures ({few}) to {self.classes[many]:,} "
                f"({many})"
            )
        least, median, largest = self.edges
        told.append(f"short edges from {least} to {largest} pixels, half of them {median:g} or more")
        for count, what in (
            (self.enlarged, f"are smaller than {self.size} pixels and are enlarged"),
            (self.cropped, "are not square and lose their margins"),
            (self.far, "are far from the others in size or shape"),
            (self.duplicates, "are there more than once"),
        ):
            if count:
                told.append(f"{count:,} {of} {what}")
        told += [f"left out: {count:,} {why}" for why, count in self.skipped.items()]
        return told + list(self.notices)


@dataclass(frozen=True)
class Seen:
    """What a report needs of one picture: upright (width, height), whether it shows colour, a digest of its bytes."""

    size: tuple[int, int]
    coloured: bool
    digest: bytes
    notices: tuple[str, ...] = ()


def median_edge(sizes: Sequence[tuple[int, int]]) -> int:
    """The median of the short edges, in whole pixels."""
    return max(1, int(statistics.median(min(size) for size in sizes)))


def shows_colour(coloured: int, total: int) -> bool:
    """Whether a set is one of colour: more than a stray picture in it is."""
    return coloured > max(1, 0.02 * total) or (total <= 4 and coloured > 0)


def report(layout: Layout, seen: Sequence[Seen], size: int, channels: int) -> Report:
    """The numbers of a set that was read at a size, ``seen`` in the layout's order."""
    short = [min(one.size) for one in seen]
    counts = Counter(layout.labels or ())
    notices = Counter(notice for one in seen for notice in one.notices)
    coloured = sum(one.coloured for one in seen)
    stray = []
    if channels == 1 and coloured:
        stray.append(f"{coloured} of {len(seen)} pictures show colour and are read as grey")
    elif channels == 3 and coloured < len(seen):
        stray.append(f"{len(seen) - coloured} of {len(seen)} pictures are grey")
    far = [edge < size / 2 or max(one.size) > 2 * edge for edge, one in zip(short, seen, strict=True)]
    return Report(
        pictures=len(seen),
        classes={name: counts[index] for index, name in enumerate(layout.classes)},
        size=size,
        channels=channels,
        edges=(min(short), statistics.median(short), max(short)),
        enlarged=sum(edge < size for edge in short),
        cropped=sum(one.size[0] != one.size[1] for one in seen),
        far=sum(far),
        coloured=coloured,
        duplicates=len(seen) - len({one.digest for one in seen}),
        skipped=dict(layout.skipped),
        notices=(*layout.notices, *stray, *(f"{count:,} pictures: {told}" for told, count in notices.items())),
    )
