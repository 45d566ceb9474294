"""Data sets of the Hugging Face hub, and local copies of them: a column of pictures, and one of labels."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ganserve import kinds, metadata
from ganserve.entries import mark_of
from ganserve.pictures import PictureError
from ganserve.reading import Source
from ganserve.sets import alike, natural
from training import tables
from training.tables import HubError

# Rows fetched at once, and how many such slices are kept.
SLICE, SLICES = 64, 8
# What stands in for a split that a data set lacks: its only one for training, and its validation split for the test.
_VALIDATION = ("validation", "valid", "val", "dev")
_BYTES, _PATH = "bytes", "path"
# What a column of pictures is called, where a mask, a depth or a thumbnail is beside it.
_USUAL = ("image", "images", "img", "picture", "photo", "pixel_values", "jpg", "png")


@dataclass(frozen=True)
class Table:
    """One split: its pictures, their labels, and a mark that changes with its content."""

    sources: list[Source]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]
    skipped: tuple[tuple[str, int], ...]
    notices: tuple[str, ...]
    fingerprint: str  # of the files beside it that it names, too


def is_copy(folder: Path) -> bool:
    """Whether a folder holds Parquet or Arrow files, at any depth."""
    return bool(tables.files(folder))


def table(name: str, *, split: str, column: str | None, strict: bool, labelled: bool = True) -> Table:
    """Read one split; classes are those of the training split, in the order in which people count.

    Raises:
        HubError: it cannot be read, or has no column of pictures, or no certain one of labels (where it is to be
            ``labelled``), or the ``column`` asked for is not there; with ``strict``, rows without a picture or a label.
    """
    opened = tables.opened(name)
    splits = opened.splits
    found = _split(splits, split)
    features: dict[str, Any] = dict(found.features)
    folder = Path(name) if Path(name).is_dir() else None
    image, held = _image_column(found, features, folder)
    raw = _undecoded(found, image)
    training = _split(splits, "train")
    label = _label_column(training, {c: f for c, f in features.items() if c not in held}, column, labelled)
    values = None if label is None else _values(found, label)
    whole = _there(raw, image)
    known = _classes(training, label, training.features) if label is not None else ()
    number = {name: index for index, name in enumerate(known)}
    rows = [row for row, there in enumerate(whole) if there and (values is None or values[row] in number)]
    unlabelled = 0 if values is None else sum(there and values[row] is None for row, there in enumerate(whole))
    skipped = {
        "without a picture": len(whole) - sum(whole),
        "without a label": unlabelled,
        "of a class that the training split lacks": sum(whole) - unlabelled - len(rows),
    }
    skipped = {why: count for why, count in skipped.items() if count}
    if strict and skipped:
        raise HubError("; ".join(f"{count} rows {why}" for why, count in skipped.items()))
    if not whole:
        raise HubError(f"its split {split!r} has no row: expected one a picture")
    if not rows:
        raise HubError(f"none of its {len(whole)} rows has a picture{' and a label' if label else ''}")
    cells = _Cells(raw, image, folder)
    return Table(
        [Source(f"row {row}", partial(cells.read, row)) for row in rows],
        None if values is None else tuple(number[str(values[row])] for row in rows),
        known,
        tuple(skipped.items()),
        (*opened.notices, *_several(image, held), *_notices(skipped, features, label, known)),
        f"{found._fingerprint} {image} {label} {_beside(raw, image, folder)}",
    )


def _several(image: str, held: Sequence[str]) -> list[str]:
    return [f"several columns hold pictures ({', '.join(held)}): {image!r} is read"] if len(held) > 1 else []


def _split(splits: Mapping[str, Any], split: str) -> Any:
    if len(splits) == 1 and split in ("train", "test"):
        if split == "train":
            return next(iter(splits.values()))
        raise HubError(f"it has no split {split!r} beside the one to train on, {next(iter(splits))!r}")
    if split in splits:
        return splits[split]
    validation = next((name for name in _VALIDATION if name in splits), None)
    if split == "test" and validation is not None and len(splits) > 1:
        return splits[validation]
    raise HubError(f"it has no split {split!r}: it has {', '.join(splits)}")


def _image_column(found: Any, features: Mapping[str, Any], folder: Path | None) -> tuple[str, list[str]]:
    """The column of pictures, and all that may be: those that say so, or else whose first cells are files of pictures,
    or, in a ``folder``, name some. Of several the one that is called after pictures, or the first."""
    import datasets

    held = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    held = held or [name for name, feature in features.items() if _holds_files(found, name, feature)]
    if not held and folder is not None:
        held = [name for name, feature in features.items() if _names_files(found, name, feature, folder)]
    if not held:
        raise HubError(f"it has no image column: its columns are {_told(features)}")
    usual = [name for called in _USUAL for name in held if name.lower() == called]
    return (usual or held)[0], held


def _holds_files(found: Any, name: str, feature: Any) -> bool:
    held = feature.get(_BYTES) if isinstance(feature, dict) else feature
    if not str(getattr(held, "dtype", "")).endswith("binary"):
        return False
    cells = [_content(cell) for cell in found[:SLICE][name]]
    return any(cell and kinds.looks_like(cell[: kinds.HEAD_BYTES]) for cell in cells)


def _names_files(found: Any, name: str, feature: Any, folder: Path) -> bool:
    if not isinstance(feature, dict) and str(getattr(feature, "dtype", "")) not in ("string", "large_string"):
        return False
    paths = [_named(cell) or "" for cell in found[:SLICE][name]]
    return any(kinds.called_picture(path) and (folder / path).is_file() for path in paths)


def _told(features: Mapping[str, Any]) -> str:
    """The columns and what each holds, for people."""
    return ", ".join(f"{name} ({_kind(feature)})" for name, feature in sorted(features.items()))


def _kind(feature: Any) -> str:
    import datasets

    return str(feature.dtype) if isinstance(feature, datasets.Value) else type(feature).__name__


def _undecoded(found: Any, image: str) -> Any:
    import datasets

    if isinstance(found.features[image], datasets.Image):
        return found.cast_column(image, datasets.Image(decode=False))
    return found


def _content(cell: Any) -> bytes | None:
    held = cell.get(_BYTES) if isinstance(cell, dict) else cell
    return held if isinstance(held, bytes) else None


def _named(cell: Any) -> str | None:
    """The path of a picture that is kept beside the table."""
    path = cell.get(_PATH) if isinstance(cell, dict) else cell
    return path if isinstance(path, str) else None


def _there(raw: Any, image: str) -> list[bool]:
    """Whether each row has a picture, without reading any."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = raw.with_format("arrow")[image]
    column = column[:] if not isinstance(column, pa.Array | pa.ChunkedArray) else column
    if not pa.types.is_struct(column.type):
        return [bool(length) for length in pc.binary_length(column).to_pylist()]
    parts = [column.type.field(index).name for index in range(column.type.num_fields)]
    held = [pc.struct_field(column, part) for part in (_BYTES, _PATH) if part in parts]
    lengths = [pc.binary_length(part).to_pylist() for part in held if not pa.types.is_null(part.type)]
    # Bytes that are there and empty are no picture, whatever path the row was made from.
    return [bool(cells[0] if cells[0] is not None else cells[-1]) for cells in zip(*lengths, strict=True)]


def _beside(raw: Any, image: str, folder: Path | None) -> list[tuple[int, ...]]:
    """The marks of the pictures that a table names beside itself."""
    import pyarrow as pa

    if folder is None:
        return []
    column = raw.with_format("arrow")[image]
    column = column[:] if not isinstance(column, pa.Array | pa.ChunkedArray) else column
    named = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_struct(named.type):
        parts = [named.type.field(index).name for index in range(named.type.num_fields)]
        if _PATH not in parts or (_BYTES in parts and named.field(_BYTES).null_count < len(named)):
            return []
        named = named.field(_PATH)
    paths = named.to_pylist() if pa.types.is_string(named.type) or pa.types.is_large_string(named.type) else []
    marks = []
    for path in filter(None, paths):
        with contextlib.suppress(OSError):
            marks.append(mark_of((folder / path).stat()))
    return marks


def _label_column(training: Any, features: dict[str, Any], asked: str | None, labelled: bool) -> str | None:
    columns = f"its columns beside pictures are {_told(features)}"
    if asked is not None:
        if asked not in features:
            raise HubError(f"it has no column {asked!r}: {columns}")
        if not _may_label(asked, features[asked], asked=True):
            raise HubError(f"column {asked!r} holds no labels, which are numbers, texts or truths: {columns}")
        return asked
    candidates = [name for name, feature in features.items() if _may_label(name, feature)]
    parting = [name for name in candidates if metadata.tells_splits(name, _values(training, name))]
    candidates = [name for name in candidates if name not in parting]
    certain = [name for name in candidates if name in metadata.LABEL_COLUMNS or _is_class(features[name])]
    if len(certain) == 1:
        return certain[0]
    chosen, unclear = metadata.choose(
        dict.fromkeys(certain, ()) if certain else {name: _values(training, name) for name in candidates}
    )
    if chosen is None and labelled and features:
        none = f"no column holds labels, which are whole numbers, texts or truths: {columns}"
        why = f"several columns may be labels: {list(unclear)}" if unclear else none
        raise HubError(f"{why}; name one with --label-column, or take an unconditional recipe")
    return chosen


def _is_class(feature: Any) -> bool:
    import datasets

    return isinstance(feature, datasets.ClassLabel)


def _may_label(name: str, feature: Any, *, asked: bool = False) -> bool:
    """A class, a whole number, a text or a truth; a float only in a column that is called after labels."""
    import datasets

    if _is_class(feature):
        return True
    floats = ("float", "double") if asked or name in metadata.LABEL_COLUMNS else ()
    kinds = ("int", "uint", "bool", "string", "large_string", *floats)
    return isinstance(feature, datasets.Value) and str(feature.dtype).startswith(kinds)


def _values(found: Any, column: str) -> list[str | None]:
    """The labels as text; None where one is missing."""
    listed = list(found[column])
    feature = found.features[column]
    if _is_class(feature):
        names = [metadata.class_name(name) for name in feature.names]
        return [None if value is None or not 0 <= value < len(names) else names[value] for value in listed]
    return metadata.labels([metadata.label(value) for value in listed])


def _classes(training: Any, column: str, features: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of which the training split has a row: of others nothing can be learned."""
    present = {value for value in _values(training, column) if value is not None}
    if _is_class(features[column]):
        names = map(metadata.class_name, features[column].names)
        return tuple(dict.fromkeys(name for name in names if name in present))
    return tuple(sorted(present, key=natural))


def _notices(
    skipped: Mapping[str, int], features: Mapping[str, Any], label: str | None, known: Sequence[str]
) -> tuple[str, ...]:
    """What to say of rows, and of classes without one, that are left out."""
    told = [f"{count} rows {why} are left out" for why, count in skipped.items()]
    if label is not None and _is_class(features[label]):
        unlearned = [name for name in features[label].names if metadata.class_name(name) not in known]
        told += [f"classes without a picture to learn from are left out: {', '.join(unlearned)}"] if unlearned else []
    return (*told, *alike(known))


class _Cells:
    """The pictures' bytes, fetched in slices of which a few are kept: threads that read side by side share them."""

    def __init__(self, raw: Any, column: str, folder: Path | None) -> None:
        self._raw, self._column, self._folder = raw, column, folder
        self._lock = threading.Lock()
        self._slices: OrderedDict[int, Sequence[Any]] = OrderedDict()

    def read(self, row: int) -> bytes:
        number, index = divmod(row, SLICE)
        with self._lock:
            if number not in self._slices:
                self._slices[number] = self._raw[number * SLICE : (number + 1) * SLICE][self._column]
                if len(self._slices) > SLICES:
                    self._slices.popitem(last=False)
            cell = self._slices[number][index]
        content = _content(cell)
        return content if content is not None else self._file(str(_named(cell)))

    def _file(self, path: str) -> bytes:
        if self._folder is not None:
            return (self._folder / path).read_bytes()
        import datasets
        import huggingface_hub.constants

        # A stranger's table must not name a picture of this machine's.
        downloaded = (huggingface_hub.constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE)
        if not any(Path(path).resolve().is_relative_to(Path(place).resolve()) for place in downloaded):
            raise PictureError(f"is not in the data set, which names {path!r} in its place")
        return Path(path).read_bytes()
