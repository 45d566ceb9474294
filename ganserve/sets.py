"""A set of pictures: what counts as one, which class and split it belongs to, and a report on the whole.

Folders and archives are read by the same rules, from their names and their files' first bytes:

* class folders, of any depth below; ``train/``, ``test/``, ``val/`` above them are splits; single folders around all of
  it are passed over, and loose pictures beside folders are left out;
* no class folders: pictures without labels;
* ``metadata.csv`` or ``metadata.jsonl`` beside pictures names files and labels, as on the Hugging Face hub, or other
  tools' files do (:mod:`ganserve.exports`);
* hidden files, those that machines leave, and whatever is no picture never count, and are counted.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ganserve import kinds, metadata
from ganserve.entries import Entry, Layout, SetError, clutter, folder_entries, shown
from ganserve.metadata import LABEL_COLUMNS
from ganserve.places import Parts, Place, places
from ganserve.report import Report, Seen, median_edge, report, shows_colour

__all__ = [
    "LABEL_COLUMNS", "Entry", "Layout", "Report", "Seen", "SetError", "clutter", "counts",
    "folder_entries", "lay_out", "median_edge", "natural", "report", "shows_colour",
]  # fmt: skip

_NUMBER = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")
# What an upload keeps beside its pictures.
OWN = frozenset({"dataset.json", ".samples.png"})


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A key that sorts ``2`` before ``10``, for people, and no two names alike."""
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    # Digits are compared by how many they are, then one by one: of any length, they need not be numbers that fit.
    digits = {part: part.lstrip("0") for part in parts if part.isascii() and part.isdecimal()}
    return [(0, len(digits[part]), digits[part]) if part in digits else (1, 0, part) for part in parts], name


def lay_out(entries: Iterable[Entry], *, column: str | None = None, folders: Sequence[str] = ()) -> Layout:
    """What a set holds; ``column`` names the column of metadata that holds labels, ``folders`` those that may be empty.

    Raises:
        SetError: no picture in it, or metadata that cannot be read.
    """
    skipped: Counter[str] = Counter()
    kept: list[Entry] = []
    others: list[str] = []
    named: dict[str, metadata.Row] = {}
    unlabelled: list[str] = []
    for entry in entries:
        reason, found = _reason(entry)
        if reason is None:
            kept.append(entry)
        elif found is not None:
            named = metadata.joined(named, found)
            unlabelled += [] if found else [entry.name]
        elif entry.name not in OWN:
            skipped[reason] += 1
            others.append(entry.name)
    if not kept:
        told = "; ".join(f"{count} {why}" for why, count in skipped.items()) or "it is empty"
        packed = ", unpacked" if any(_kind(name) == _PACKED for name in others) else ""
        numbers = [name for name in others if _kind(name) == _NUMBERS or name.lower().endswith(_TABLES)]
        packed += f"; numbers, as in {numbers[0]!r}, are none: {_SAVED}" if numbers else ""
        raise SetError(f"no picture in it ({told}): expected class folders of pictures, or pictures{packed}")
    lying = places([tuple(entry.name.split("/")) for entry in kept])
    if not named and column is not None:
        raise SetError(f"it has no column {column!r}: no metadata.csv or metadata.jsonl names its pictures")
    layout = _by_metadata(kept, lying, named, skipped, column) if named else None
    if unlabelled and layout is None:
        said = f"{unlabelled[0]} says that the pictures have no labels: folders are no classes"
        layout = Layout(tuple(kept), None, (), None, tuple(skipped.items()), (said,))
    layout = layout or _by_folders(kept, lying, [*others, *(f"{name}/" for name in folders)], skipped)
    return replace(layout, notices=(*layout.notices, *alike(layout.classes), *_missed(others, layout)))


def empty_class(folder: Path, layout: Layout) -> str | None:
    """A folder beside the class folders that holds nothing at all."""
    for place, names, _ in os.walk(folder):
        told = {unicodedata.normalize("NFC", shown(name)): name for name in names if not clutter(name)}
        if set(layout.classes) & set(told):
            return next((name for name in sorted(told) if not os.listdir(Path(place) / told[name])), None)
    return None


def counts(entry: Entry) -> bool:
    """Whether a file is read: a picture by its suffix or its first bytes, or what names pictures."""
    return metadata.is_metadata(entry.name) or _is_picture(entry)


def _is_picture(entry: Entry) -> bool:
    raw = os.path.splitext(entry.name)[1].lower() in kinds.RAW_SUFFIXES
    return kinds.called_picture(entry.name) or (not raw and kinds.looks_like(entry.head()))


def _reason(entry: Entry) -> tuple[str | None, dict[str, metadata.Row] | None]:
    """Why a file is no picture, None if it is one; and the rows of metadata in it."""
    if clutter(entry.name):
        return "hidden, or left by a machine", None
    if metadata.is_metadata(entry.name):
        return _NAMES_NONE if metadata.is_usual(entry.name) else _kind(entry.name), metadata.rows(entry)
    if _is_picture(entry):
        return None, None
    return _kind(entry.name), None


_OF_OTHER_KINDS, _PACKED, _NUMBERS = "picture of a kind that is not read", "archive", "array of numbers"
_SAVED = "save each picture as PNG in a folder of its class"
_NAMES_NONE = "metadata without a column file_name, or without a row"
_UNREAD = {
    **dict.fromkeys(kinds.UNREAD_SUFFIXES, _OF_OTHER_KINDS),
    **dict.fromkeys(kinds.ARCHIVE_SUFFIXES, _PACKED),
    **dict.fromkeys(kinds.ARRAY_SUFFIXES, _NUMBERS),
    **dict.fromkeys(kinds.RAW_SUFFIXES, "raw file of a camera"),
}


def _kind(name: str) -> str:
    suffix = "-ubyte" if name.lower().endswith("-ubyte") else os.path.splitext(name)[1].lower()
    return _UNREAD.get(suffix, "no picture")


def _missed(others: Sequence[str], layout: Layout) -> list[str]:
    """What to say of files that are passed over and may well hold pictures, or labels where there are none."""
    told = []
    what = {_OF_OTHER_KINDS: "save them as PNG, JPEG, WebP or TIFF", _NUMBERS: _SAVED}
    what |= {_PACKED: "unpack those of pictures"}
    for kind, right in what.items():
        of_kind = [name for name in others if _kind(name) == kind and not clutter(name)]
        if of_kind:
            told.append(f"left out: {len(of_kind)} {kind}, such as {of_kind[0]!r}: {right}")
    unnamed = [name for name in others if metadata.is_usual(name)]
    told += [f"{name} has no column file_name, or no row, and names no picture" for name in unnamed]
    tables = [name for name in others if name.lower().endswith(_TABLES) and name not in unnamed and not clutter(name)]
    if tables and layout.labels is None:
        right = "labels are read from class folders, or a metadata.csv with the columns file_name and label"
        told.append(f"if {tables[0]!r} holds labels, they are not read: {right}")
    return told


_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".xml", ".xlsx", ".ods")


def alike(classes: Sequence[str]) -> list[str]:
    """Some alphabets are sets of such classes, so that they are kept apart, and said."""
    looks = {name: _look(name) for name in classes}
    folded = Counter(looks.values())
    found = [name for name in classes if folded[looks[name]] > 1]
    what = "classes that look alike, or are the same number, are kept apart"
    return [f"{what}: {', '.join(map(repr, found[:10]))}"] if found else []


def _look(name: str) -> str:
    """A class's name without capital letters, spaces at its ends and what is not seen; a number's value."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf").strip().casefold()
    return f"{float(seen):g}" if _NUMBER.fullmatch(seen) else seen


def _by_folders(kept: list[Entry], lying: list[Place], others: Sequence[str], skipped: Counter[str]) -> Layout:
    notices = []
    splits = tuple(place.split or "train" for place in lying) if any(place.split for place in lying) else None
    labelled = any(place.label is not None for place in lying)
    chosen = [i for i, place in enumerate(lying) if place.label is not None or (not labelled and splits is None)]
    chosen = chosen or [i for i, place in enumerate(lying) if place.split is not None]
    if loose := len(kept) - len(chosen):
        first = kept[min(set(range(len(kept))) - set(chosen))].name
        kind = "class folder" if labelled else "split"
        skipped[f"picture in no {kind}"] += loose
        notices.append(f"{loose} pictures lie in no {kind} and are left out, such as {first!r}")
    if not labelled:
        parts = None if splits is None else tuple(splits[i] for i in chosen)
        return Layout(tuple(kept[i] for i in chosen), None, (), parts, tuple(skipped.items()), tuple(notices))
    names = [unicodedata.normalize("NFC", str(lying[index].label)) for index in chosen]
    classes = tuple(sorted(set(names), key=natural))
    for folder in _without_pictures({lying[index].above for index in chosen}, others, classes):
        notices.append(f"folder {folder!r} holds no picture and is no class")
    within = [kept[i].name for i in chosen if kept[i].name.count("/") > len(lying[i].above) + 1]
    if within:
        label = next(lying[i].label for i in chosen if kept[i].name == within[0])
        where = f"such as {within[0]!r}, which is of class {label!r}"
        notices.append(f"{len(within)} pictures lie deeper than their class folder, {where}")
    number = {name: index for index, name in enumerate(classes)}
    return Layout(
        tuple(kept[index] for index in chosen),
        tuple(number[name] for name in names),
        classes,
        None if splits is None else tuple(splits[index] for index in chosen),
        tuple(skipped.items()),
        tuple(notices),
    )


def _without_pictures(above: set[Parts], others: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Folders beside the class folders of which no file is a picture."""
    found = set()
    for parts in (tuple(name.split("/")) for name in others):
        for place in above:
            if parts[: len(place)] == place and len(parts) > len(place) + 1:
                found.add(unicodedata.normalize("NFC", parts[len(place)]))
    return sorted(name for name in found - set(classes) if not clutter(name))


def _by_metadata(
    kept: list[Entry],
    lying: list[Place],
    named: Mapping[str, metadata.Row],
    skipped: Counter[str],
    asked: str | None,
) -> Layout | None:
    """Files and labels as metadata names them; a picture that it does not name is left out. None where it tells no
    labels but folders do."""
    chosen = [index for index, entry in enumerate(kept) if metadata.key(entry.name) in named]
    if not chosen:
        names = f"it names {next(iter(named))!r}, and there is {kept[0].name!r}"
        raise SetError(f"metadata names none of the pictures, whose paths its column file_name must hold: {names}")
    found = [named[metadata.key(kept[index].name)] for index in chosen]
    told, parted = metadata.columns(found), metadata.splits(found)
    if asked is not None and asked not in told:
        raise SetError(f"its metadata has no column {asked!r}: it has {', '.join(sorted(told))}")
    column, candidates = metadata.choose(told, asked)
    if column is None and any(place.label for place in lying):
        return None
    values = told[column] if column is not None else [""] * len(chosen)
    splits = parted or [lying[index].split for index in chosen]
    rows = [row for row, value in enumerate(values) if value is not None]
    counts = {
        "not named by metadata": len(kept) - len(chosen),
        "named by metadata and not there": len(named) - len(chosen),
        "without a label": len(chosen) - len(rows),
    }
    skipped.update({why: count for why, count in counts.items() if count})
    classes = tuple(sorted({str(values[row]) for row in rows}, key=natural)) if column is not None else ()
    number = {name: index for index, name in enumerate(classes)}
    notices = [f"{count} pictures {why} are left out" for why, count in counts.items() if count]
    called = {row: unicodedata.normalize("NFC", str(lying[chosen[row]].label)) for row in rows}
    apart = [row for row, name in called.items() if name != values[row]]
    if apart and set(classes) & set(called.values()):
        first = kept[chosen[apart[0]]].name
        where = f"such as {first!r}"
        notices.append(f"{len(apart)} pictures are of another class than their folder by the metadata, {where}")
    return Layout(
        tuple(kept[chosen[row]] for row in rows),
        tuple(number[str(values[row])] for row in rows) if column is not None else None,
        classes,
        tuple(splits[row] or "train" for row in rows) if any(splits) else None,
        tuple(skipped.items()),
        tuple(notices),
        candidates or (tuple(sorted(told)) if column is None else ()),
    )
