"""A set looked through before it is trained on or kept: every picture decoded once, and a report on the whole.

The same rules for a folder and an archive, for ``ganserve check`` and for an upload: what one refuses the other does.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganserve import archives, kinds, pictures, sets
from ganserve import entries as set_files
from ganserve.archives import LISTED, Limits, Problem, Refused, of_archive
from ganserve.unpacking import Damaged

# Edge of a sample, and at which it is judged whether a picture shows colour.
EDGE = 64
COLUMNS = 10
# Joins letters of some scripts, and the parts of some emoji; all else that is never seen only pretends.
_JOINERS = "\u200c\u200d"
_TAGS = range(0xE0020, 0xE0080)

# What becomes of a picture's bytes: (split or None, class, bytes).
Keep = Callable[[str | None, str, bytes], None]


@dataclass(frozen=True)
class Inspected:
    """A sound set: where its pictures belong, what is said of it, what was left out, one square a class."""

    layout: sets.Layout
    report: sets.Report
    left_out: tuple[Problem, ...]
    bytes: int
    samples: tuple[NDArray[np.uint8], ...] = field(repr=False)


# A folder is its owner's: only what cannot be read at all is refused.
OWN_FOLDER = Limits(pixels=pictures.MAX_PIXELS, total_pixels=1 << 62, seconds=float("inf"))


def folder(path: Path) -> Inspected:
    """A folder, labelled or not, as training reads it. Raises Refused."""
    found = inspect(set_files.folder_entries(path), OWN_FOLDER, strange=False, hidden=hidden_folders(path))
    if (empty := sets.empty_class(path, found.layout)) is not None:
        raise Refused([Problem(empty, "is a class folder and holds no image: remove it, or add images")])
    return found


def hidden_folders(root: Path) -> list[str]:
    """The hidden folders of pictures below a folder."""
    found: dict[str, None] = {}
    for place, folders, names in os.walk(root):
        parts = Path(place).relative_to(root).parts
        above = [set_files.hidden_above((*parts, name)) for name in names if kinds.called_picture(name)]
        found |= dict.fromkeys(set_files.shown(folder) for folder in above if folder is not None)
        folders[:] = sorted(name for name in folders if not set_files.clutter("/".join(parts)))
    return list(found)


def hidden_classes(hidden: Iterable[str], layout: sets.Layout) -> tuple[str, ...]:
    """What to say of hidden folders of pictures beside the class folders, which may be classes, such as ``.net``."""
    within: set[str] = set()
    classes = set(layout.classes)
    for parts in (entry.name.split("/") for entry in layout.pictures if hidden):
        named = [unicodedata.normalize("NFC", part) in classes for part in parts]
        within |= {"/".join(parts[:index]) for index, is_class in enumerate(named) if is_class}
    told = [path.rpartition("/")[2] for path in hidden if path.rpartition("/")[0] in within]
    return tuple(f"folder {name!r} is hidden and left out: rename it if it is a class" for name in told)


def archive(
    path: Path, limits: Limits = Limits(), *, skip_invalid: bool = False, keep: Keep | None = None
) -> Inspected:
    """A ZIP of class folders; ``skip_invalid`` leaves out pictures that cannot be decoded. Raises Refused."""
    with archives.opened(path, limits) as found:
        if not found.members:
            raise of_archive("holds no file: expected <class>/<image>")
        entries = archives.entries(found, limits, path.stat().st_size)
        return inspect(
            entries,
            limits,
            skip_invalid=skip_invalid,
            passed_over=found.skipped,
            folders=found.folders,
            hidden=found.hidden,
            keep=keep,
        )


def inspect(
    entries: Sequence[set_files.Entry],
    limits: Limits,
    *,
    strange: bool = True,
    skip_invalid: bool = False,
    passed_over: int = 0,
    folders: Sequence[str] = (),
    hidden: Sequence[str] = (),
    keep: Keep | None = None,
) -> Inspected:
    """Lay out, decode and describe a set.

    Args:
        strange: refuse a set without class folders, and class names that cannot be kept.
        skip_invalid: leave out pictures that cannot be decoded, up to a share of them.
        passed_over: files that machines left, which are no entries any more.
        folders: those that are named and may be empty.
        hidden: folders of pictures that are no entries.
        keep: is given each sound picture, in the layout's order, before it is known whether all are.

    Raises:
        Refused: with all that is wrong.
    """
    try:
        layout = sets.lay_out(entries, folders=folders)
    except set_files.SetError as error:
        raise of_archive(str(error)) from error
    except Damaged as error:
        raise of_archive(f"what names its pictures {error}") from error
    layout = replace(layout, notices=(*layout.notices, *hidden_classes(hidden, layout)))
    layout = _named(layout, limits) if strange else layout
    reading = _Reading(layout, limits, skip_invalid, keep)
    for row in range(len(layout.pictures)):
        reading.take(row)
        if len(reading.problems) >= LISTED:
            break
    if reading.problems:
        raise Refused(reading.problems)
    return reading.done(passed_over)


def _named(layout: sets.Layout, limits: Limits) -> sets.Layout:
    """The layout with class names that can be kept: trimmed, equal ones made one. Raises Refused."""
    if layout.labels is None and layout.candidates:
        columns = ", ".join(map(repr, layout.candidates))
        raise of_archive(f"its metadata does not tell which column holds labels, of {columns}: call it label")
    if layout.labels is None:
        first = layout.pictures[0].name
        raise Refused([Problem(first, "is not in a class folder: expected <class>/<image>")])
    trimmed = [unicodedata.normalize("NFC", name).strip() for name in layout.classes]
    problems = []
    for label, name in enumerate(trimmed):
        if (reason := unusable(name, limits)) is not None:
            problems.append(Problem(layout.pictures[layout.labels.index(label)].name, reason))
    if problems:
        raise Refused(problems)
    classes = tuple(sorted(set(trimmed), key=sets.natural))
    if len(classes) > limits.classes:
        raise of_archive(f"has {len(classes)} classes: more than {limits.classes} classes are not taken")
    index = {name: label for label, name in enumerate(classes)}
    labels = tuple(index[trimmed[label]] for label in layout.labels)
    before = sets.alike(layout.classes)  # of which trimming made some one
    notices = (*(told for told in layout.notices if told not in before), *sets.alike(classes))
    return replace(layout, labels=labels, classes=classes, notices=notices)


def unusable(name: str, limits: Limits) -> str | None:
    """Why a class cannot have this name."""
    right = f"expected something to be seen, at most {limits.class_name} characters, not beginning with a dot"
    hidden = [c for c in name if not (c.isprintable() or c in _JOINERS or ord(c) in _TAGS)]
    if not name or name.startswith(".") or "/" in name or hidden or not any(c.isprintable() and c != " " for c in name):
        return f"has an unusable class name; {right}, without / and control characters"
    if name.casefold() in sets.OWN:
        return f"has an unusable class name; {name} is what the record beside the classes is called: rename the folder"
    if len(name) > limits.class_name:
        return f"has an unusable class name of {len(name)} characters; {right}"
    if (size := len(name.encode("utf-8", "surrogatepass"))) > limits.class_bytes:
        return f"has an unusable class name of {size} bytes in UTF-8; at most {limits.class_bytes} fit a folder's name"
    return None


class _Reading:
    """Decodes one picture after the other, within what the limits allow in all."""

    def __init__(self, layout: sets.Layout, limits: Limits, skip_invalid: bool, keep: Keep | None) -> None:
        self.layout, self.limits, self.keep = layout, limits, keep
        self.skip_invalid = skip_invalid
        self.problems: list[Problem] = []
        self.left_out: list[Problem] = []
        self.rows: list[int] = []
        self.seen: list[sets.Seen] = []
        self.samples: dict[int, NDArray[np.uint8]] = {}
        self.bytes = self.pixels = 0
        self.began = time.thread_time()

    def take(self, row: int) -> None:
        """Look at one picture. Raises Refused where all of them are too much, and for bytes that are no picture's."""
        entry = self.layout.pictures[row]
        try:
            content = entry.read()
            width, height = pictures.measure(content, max_pixels=self.limits.pixels)
            self._count(width * height)
            found = pictures.decode(content, edge=EDGE, max_pixels=self.limits.pixels)
        except pictures.TooManyPixels as error:
            self.problems.append(Problem(entry.name, str(error)))
            return
        except (pictures.PictureError, Damaged, OSError) as error:
            (self.left_out if self.skip_invalid else self.problems).append(Problem(entry.name, set_files.said(error)))
            return
        square = pictures.square(found.image, EDGE, 3)
        coloured = found.image.mode != "L" and pictures.coloured(square)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        self.rows.append(row)
        self.seen.append(sets.Seen(found.size, coloured, digest, found.notices))
        self.bytes += len(content)
        label = self.layout.labels[row] if self.layout.labels is not None else 0
        self.samples.setdefault(label, square)
        if self.keep is not None:
            split = self.layout.splits[row] if self.layout.splits is not None else None
            self.keep(split, self.layout.classes[label], content)

    def _count(self, pixels: int) -> None:
        self.pixels += pixels
        if self.pixels > self.limits.total_pixels:
            raise of_archive(f"holds more than {self.limits.total_pixels} pixels in all")
        if time.thread_time() - self.began > self.limits.seconds:
            raise of_archive(f"takes more than {self.limits.seconds:g} seconds of a core to decode")

    def done(self, passed_over: int) -> Inspected:
        """The set without what was left out. Raises Refused if that is too much of it."""
        total, lost = len(self.layout.pictures), len(self.left_out)
        layout = self.layout
        if not self.rows or lost > self.limits.left_out * total:
            share = f"{lost} of {total} pictures cannot be decoded: at most {self.limits.left_out:.0%} may be left out"
            raise Refused([Problem(archives.ARCHIVE, share), *self.left_out], lost + 1)
        if layout.labels is not None:
            left = {layout.labels[row] for row in self.rows}
            gone = [name for label, name in enumerate(layout.classes) if label not in left]
            if gone:
                told = [Problem(name, "is a class of which no picture can be decoded") for name in gone]
                raise Refused([*told, *self.left_out], len(gone) + lost)
        skipped = Counter(dict(layout.skipped))
        if passed_over:
            skipped["hidden, or left by a machine"] += passed_over
        if lost:
            skipped["cannot be decoded"] += lost
        layout = replace(
            layout,
            pictures=tuple(layout.pictures[row] for row in self.rows),
            labels=None if layout.labels is None else tuple(layout.labels[row] for row in self.rows),
            splits=None if layout.splits is None else tuple(layout.splits[row] for row in self.rows),
            skipped=tuple(skipped.items()),
        )
        channels = 3 if sets.shows_colour(sum(one.coloured for one in self.seen), len(self.seen)) else 1
        size = sets.median_edge([min(one.size) for one in self.seen])
        report = sets.report(layout, self.seen, size, channels)
        samples = tuple(self.samples[label] for label in sorted(self.samples))
        return Inspected(layout, report, tuple(self.left_out), self.bytes, samples)


def sheet(samples: Sequence[NDArray[np.uint8]]) -> bytes:
    """A PNG of squares uint8 [edge, edge, 3], ten a row, on white."""
    columns = min(COLUMNS, len(samples))
    rows = -(-len(samples) // columns)
    whole = Image.new("RGB", (columns * EDGE, rows * EDGE), "white")
    for index, sample in enumerate(samples):
        whole.paste(Image.fromarray(sample), (index % columns * EDGE, index // columns * EDGE))
    buffer = io.BytesIO()
    whole.save(buffer, "PNG")
    return buffer.getvalue()
