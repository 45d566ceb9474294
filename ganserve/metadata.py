"""What names pictures and their labels beside them: ``metadata.csv`` and ``metadata.jsonl``, as the Hugging Face hub
reads them, and what other tools write (:mod:`ganserve.exports`); columns of labels."""

from __future__ import annotations

import codecs
import csv
import io
import json
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from ganserve.entries import Entry, SetError, said
from ganserve.exports import ONE_HOT, STYLEGAN, of_one_hot, of_stylegan
from ganserve.places import SPLITS

NAMES = frozenset({"metadata.csv", "metadata.jsonl"})
_NAMING = NAMES | {ONE_HOT, STYLEGAN}
FILE_COLUMN = "file_name"
SPLIT_COLUMNS = frozenset({"split", "set", "subset", "partition", "fold"})
LABEL_COLUMNS = ("label", "labels", "fine_label", "category", "class")

# However it is written; the hub knows the first only.
_FILE_COLUMN = re.compile(r"file[_ ]?name", re.IGNORECASE)

# Columns that programs add: values come twice in them, and they are no labels unless they are asked for.
_NO_LABELS = re.compile(r"(?:image_?)?(?:width|height)|__.*__|unnamed: [0-9]+", re.IGNORECASE)
_POINT_ZERO = re.compile(r"-?[0-9]+\.0")
# As programs write a label that is not there.
_NONE = frozenset({"", "nan", "NaN", "NAN", "null", "NULL", "None", "<NA>", "#N/A", "N/A", "n/a"})

Row = Mapping[str, Any]


def is_metadata(name: str) -> bool:
    """Whether a path is called as what names pictures."""
    return posixpath.basename(name).lower() in _NAMING


def is_usual(name: str) -> bool:
    """Whether a path is called ``metadata``, which is written for nothing else."""
    return posixpath.basename(name).lower() in NAMES


def rows(file: Entry) -> dict[str, Row] | None:
    """Its rows by the pictures' paths below the set's root (:func:`key`); None where it names no files, or has no row;
    empty where it says that there are no labels.

    Raises:
        SetError: it names files, and cannot be read.
    """
    found = _rows(file)
    if not found:
        return None if found is None else {}
    folder = PurePosixPath(file.name).parent
    named: dict[str, Row] = {}
    for row in found:
        if isinstance(name := row.get(FILE_COLUMN), str):
            path = key(str(folder / name.strip().replace("\\", "/")))
            named[path] = _agreed(named[path], row) if path in named else row
    return named or None


def _rows(file: Entry) -> list[Row] | None:
    """Its rows with a column ``FILE_COLUMN``; None where it is of another kind, or has no row."""
    text, called = _text(file), posixpath.basename(file.name).lower()
    if called == STYLEGAN:
        return of_stylegan(file.name, text, FILE_COLUMN)
    if not _FILE_COLUMN.search(text):
        return None
    if "\0" in text:
        raise SetError(f"{file.name} holds zero bytes, which no text does: save it anew in UTF-8")
    found = _csv(file.name, text) if called.endswith(".csv") else _json_lines(file.name, text)
    table = list(map(_named, found))
    return (of_one_hot(file.name, table, FILE_COLUMN) if called == ONE_HOT else table) or None


def _named(row: Row) -> Row:
    """The row with its columns' names trimmed, and the column of files called ``FILE_COLUMN``."""
    trimmed = {name.strip(): value for name, value in row.items() if isinstance(name, str)}
    return {FILE_COLUMN if _FILE_COLUMN.fullmatch(name) else name: value for name, value in trimmed.items()}


def joined(one: Mapping[str, Row], other: Mapping[str, Row]) -> dict[str, Row]:
    """The rows of two files; of a picture that both name, what both say."""
    both = {path: _agreed(one[path], row) for path, row in other.items() if path in one}
    return {**one, **other, **both}


def _agreed(one: Row, other: Row) -> Row:
    """Of two rows on one picture, what both say."""
    return {name: value if one.get(name) == value else None for name, value in other.items()}


def key(path: str) -> str:
    """A path in the one form in which paths are compared."""
    return unicodedata.normalize("NFC", posixpath.normpath(path))


def _text(file: Entry) -> str:
    try:
        content = file.read()
    except OSError as error:
        raise SetError(f"{file.name} cannot be read: {said(error)}") from error
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        if not _FILE_COLUMN.search(content.decode("latin-1")):
            return ""
        raise SetError(f"{file.name} is not text in UTF-8: save it so ({error})") from error


def _csv(name: str, text: str) -> list[Row]:
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        # A row of more cells than there are columns has the rest under None, which is no column.
        found: list[Row] = [_trimmed(row) for row in table]
    except csv.Error as error:
        raise SetError(f"{name} is not a table of comma-separated values: {error}") from error
    called = Counter(column.strip() for column in table.fieldnames or ())
    if twice := [column for column, times in called.items() if column and times > 1]:
        raise SetError(f"{name} has {called[twice[0]]} columns called {twice[0]!r}: give each a name of its own")
    return found


def _trimmed(row: Mapping[Any, Any]) -> Row:
    return {name: value.strip() if isinstance(value, str) else value for name, value in row.items()}


def _json_lines(name: str, text: str) -> list[Row]:
    found: list[Row] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SetError(f"{name}, line {number}, is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise SetError(f"{name}, line {number}, is not a JSON object: expected one a line")
        found.append(row)
    return found


def columns(named: Iterable[Row]) -> dict[str, list[Any]]:
    """The columns that may hold labels, with the value of each row; None where there is none."""
    listed = list(named)
    names = dict.fromkeys(name for row in listed for name in row if isinstance(name, str) and name != FILE_COLUMN)
    told = {name: [label(row.get(name)) for row in listed] for name in names}
    told = {name: labels(values) for name, values in told.items() if any(value is not None for value in values)}
    return {name: values for name, values in told.items() if not tells_splits(name, values)}


def labels(values: list[str | None]) -> list[str | None]:
    """Whole numbers as such where programs wrote them as 0.0 and 1.0, as they do beside missing ones; none for -1, by
    the hub's custom, unless it is one of two classes."""
    if all(value is None or _POINT_ZERO.fullmatch(value) for value in values):
        values = [value and value.partition(".")[0] for value in values]
    return [None if value == "-1" else value for value in values] if len({*values} - {"-1", None}) >= 2 else values


def tells_splits(name: str, values: Iterable[str | None]) -> bool:
    """Whether a column says which split each row belongs to, which is no label."""
    told = {value.lower() for value in values if value is not None}
    known = {SPLITS[value] for value in told if value in SPLITS}
    return name.lower() in SPLIT_COLUMNS and ("train" in known or len(told) == len(told & SPLITS.keys()))


def parted(name: str, values: Sequence[str | None]) -> list[str | None] | None:
    """The split of each row by a column that tells them; None where all are in one, or none is to be trained on.

    Raises:
        SetError: it tells splits that are not known.
    """
    unknown = sorted({value for value in values if value is not None and value.lower() not in SPLITS})
    if unknown:
        raise SetError(f"column {name!r} tells the split {unknown[0]!r}: expected train, test or validation")
    found = [SPLITS[value.lower()] if value else None for value in values]
    return found if "train" in found and len(set(found)) > 1 else None


def splits(named: Iterable[Row]) -> list[str | None] | None:
    """The split of each row, where a column tells them. Raises SetError as :func:`parted` does."""
    listed = list(named)
    for name in dict.fromkeys(name for row in listed for name in row if isinstance(name, str)):
        values = [label(row.get(name)) for row in listed]
        if tells_splits(name, values):
            return parted(name, values)
    return None


def label(value: Any) -> str | None:
    """A label's text, in its composed form; None for none, however it is written, and for what can be no label, such
    as a list."""
    if isinstance(value, float) and value.is_integer():  # whole numbers, beside missing ones
        value = int(value)
    if value is None or isinstance(value, float | list | dict) or str(value).strip() in _NONE:
        return None
    return class_name(str(value))


def class_name(text: str) -> str | None:
    """A class's name in its composed form; None for none. A table that lists its classes may call one ``None``."""
    return unicodedata.normalize("NFC", text) or None


def choose(told: Mapping[str, Sequence[Hashable]], asked: str | None = None) -> tuple[str | None, tuple[str, ...]]:
    """The column of labels, and those among which it cannot be told.

    It is the one asked for, or the first of ``LABEL_COLUMNS``, or the only one in which a value comes twice: captions
    and numbers of rows are no classes.
    """
    if asked is not None:
        return asked, ()
    for usual in LABEL_COLUMNS:
        called = [name for name in told if name.lower() == usual]
        if len(called) == 1:
            return called[0], ()
    present = {name: [value for value in values if value is not None] for name, values in told.items()}
    repeated = [name for name, values in present.items() if len(set(values)) < len(values)]
    repeated = [name for name in repeated if not _NO_LABELS.fullmatch(name)]
    if len(repeated) == 1:
        return repeated[0], ()
    return None, tuple(sorted(told)) if len(told) > 1 else ()
