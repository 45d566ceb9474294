"""A report on a set of pictures, in numbers and for people."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ganserve import pictures
from ganserve.entries import Layout


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
    contradicting: int = 0  # of the duplicates, those that lie in another class
    splits: Mapping[str, int] = field(default_factory=dict)  # where several were looked at

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
            "contradicting": self.contradicting,
            "splits": dict(self.splits),
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
            total = max(1, self.pictures)
            told += [f"  {name}: {count:,} ({count / total:.1%})" for name, count in self.classes.items()]
        told += [f"split {name}: {count:,} pictures" for name, count in self.splits.items()]
        least, median, largest = self.edges
        told.append(f"short edges from {least} to {largest} pixels, half of them {median:g} or more")
        for count, what in (
            (self.enlarged, f"are smaller than {self.size} pixels and are enlarged"),
            (self.cropped, "are not square and lose their margins"),
            (self.far, "are far from the others in size or shape"),
            (self.duplicates, "are there more than once"),
            (self.contradicting, "are in one class and in another"),
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


def median_edge(edges: Sequence[int]) -> int:
    """The median of short edges, in whole pixels."""
    return max(1, int(statistics.median(edges)))


def shows_colour(coloured: int, total: int) -> bool:
    """Whether a set is one of colour: more than a stray picture in it is."""
    return coloured > max(1, 0.02 * total) or (total <= 4 and coloured > 0)


def report(layout: Layout, seen: Sequence[Seen], size: int, channels: int) -> Report:
    """The numbers of a set that was read at a size, ``seen`` in the layout's order."""
    short = [min(one.size) for one in seen]
    counts = Counter(layout.labels or ())
    digests = Counter(one.digest for one in seen)
    apart = Counter(digest for digest, _ in {*zip((one.digest for one in seen), layout.labels or (), strict=False)})
    notices = Counter(notice for one in seen for notice in one.notices)
    coloured = sum(one.coloured for one in seen)
    apart_by = Counter(digest for digest, _ in {*zip((one.digest for one in seen), layout.splits or (), strict=False)})
    stray = []
    if leaked := sum(digests[digest] for digest, splits in apart_by.items() if splits > 1):
        stray.append(f"{leaked} pictures are in one split and in another: what is measured on them says little")
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
        duplicates=len(seen) - len(digests),
        contradicting=sum(digests[digest] for digest, classes in apart.items() if classes > 1),
        splits=dict(Counter(layout.splits or ())),
        skipped=dict(layout.skipped),
        notices=(*layout.notices, *stray, *(f"{count:,} pictures: {told}" for told, count in notices.items())),
    )
