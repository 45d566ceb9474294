"""Data sets of the Hugging Face hub, and local copies of them: a column of pictures, and one of labels."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ganserve.sets import LABEL_COLUMNS, natural
from training.reading import Source

# Rows fetched at once, and how many such slices are kept.
SLICE, SLICES = 64, 8


class HubError(ValueError):
    """A data set without what training needs; the message lists what it has."""


@dataclass(frozen=True)
class Table:
    """One split: its pictures, their labels, and a mark that changes with its content."""

    sources: list[Source]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]
    skipped: tuple[tuple[str, int], ...]
    notices: tuple[str, ...]
    fingerprint: str


def is_copy(folder: Path) -> bool:
    """Whether a folder holds Parquet or Arrow files, at any depth."""
    return any(path.suffix in (".parquet", ".arrow") for path in folder.rglob("*.*"))


def table(name: str, *, split: str, column: str | None, strict: bool) -> Table:
    """Read one split.

    Raises:
        HubError: it cannot be read, or has no column of pictures, or several that may be labels, or the ``column``
            asked for is not there; with ``strict``, a row without a picture or a label.
    """
    import datasets

    found = _load(name, split)
    features: dict[str, Any] = dict(found.features)
    pictures = next((c for c, f in features.items() if isinstance(f, datasets.Image)), None)
    if pictures is None:
        raise HubError(f"it has no image column: its columns are {sorted(features)}")
    labels = _label_column({c: f for c, f in features.items() if c != pictures}, column)
    raw = found.cast_column(pictures, datasets.Image(decode=False))
    values = None if labels is None else _values(raw[labels], features[labels])
    whole = [cell is not None and (cell["bytes"] is not None or cell["path"] is not None) for cell in raw[pictures]]
    rows = [row for row, there in enumerate(whole) if there and (values is None or values[row] is not None)]
    skipped = {"without a picture": whole.count(False), "without a label": sum(whole) - len(rows)}
    skipped = {why: count for why, count in skipped.items() if count}
    if strict and skipped:
        raise HubError("; ".join(f"{count} rows {why}" for why, count in skipped.items()))
    if not rows:
        raise HubError(f"none of its {len(whole)} rows has a picture{' and a label' if labels else ''}")
    cells = _Cells(raw, pictures)
    indices, classes = _indices(values, rows, features.get(labels) if labels else None)
    return Table(
        [Source(f"row {row}", partial(cells.read, row)) for row in rows],
        indices,
        classes,
        tuple(skipped.items()),
        tuple(f"{count} rows {why} are left out" for why, count in skipped.items()),
        str(found._fingerprint),
    )


def _load(name: str, split: str) -> Any:
    import datasets

    try:
        if (Path(name) / "dataset_dict.json").exists() or (Path(name) / "state.json").exists():
            saved = datasets.load_from_disk(name)
            if isinstance(saved, datasets.DatasetDict):
                return saved[split]
            if split != "train":
                raise HubError(f"it has no split {split!r}")
            return saved
        return datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises many kinds for one meaning
        raise HubError(
            f"cannot be read (split {split!r}): {error}. Expected 'digits', an existing folder of class folders or "
            "images, a local copy of a Hugging Face data set, or a hub name"
        ) from error


def _label_column(features: dict[str, Any], asked: str | None) -> str | None:
    if asked is not None:
        if asked not in features:
            raise HubError(f"it has no column {asked!r}: its columns are {sorted(features)}")
        return asked
    candidates = {name: feature for name, feature in features.items() if _may_label(feature)}
    named = next((name for name in LABEL_COLUMNS if name in candidates), None)
    if named is not None or not candidates:
        return named
    if len(candidates) == 1:
        return next(iter(candidates))
    raise HubError(f"several columns may be labels: {sorted(candidates)}; name one with --label-column")


def _may_label(feature: Any) -> bool:
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return True
    kind = str(getattr(feature, "dtype", ""))
    return isinstance(feature, datasets.Value) and kind.startswith(("int", "uint", "bool", "string", "large_string"))


def _values(column: Any, feature: Any) -> list[Any]:
    """The labels; None where one is missing, as -1 is by the hub's custom."""
    import datasets

    listed = list(column)
    if isinstance(feature, datasets.ClassLabel):
        return [None if value is None or value < 0 else int(value) for value in listed]
    return [None if value is None or value == "" else value for value in listed]


def _indices(values: list[Any] | None, rows: list[int], feature: Any) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    import datasets

    if values is None:
        return None, ()
    chosen = [values[row] for row in rows]
    if isinstance(feature, datasets.ClassLabel):
        return tuple(chosen), tuple(feature.names)
    names = sorted({str(value) for value in chosen}, key=natural)
    index = {name: i for i, name in enumerate(names)}
    return tuple(index[str(value)] for value in chosen), tuple(names)


class _Cells:
    """The pictures' bytes, fetched in slices of which a few are kept: threads that read side by side share them."""

    def __init__(self, raw: Any, column: str) -> None:
        self._raw, self._column = raw, column
        self._lock = threading.Lock()
        self._slices: OrderedDict[int, list[Any]] = OrderedDict()

    def read(self, row: int) -> bytes:
        number, index = divmod(row, SLICE)
        with self._lock:
            if number not in self._slices:
                self._slices[number] = self._raw[number * SLICE : (number + 1) * SLICE][self._column]
                if len(self._slices) > SLICES:
                    self._slices.popitem(last=False)
            cell = self._slices[number][index]
        content: bytes = cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
        return content
