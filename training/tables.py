"""A data set of the hub, or a local copy of one, by its splits: which files are read, and which rows belong where."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganserve import metadata, progress
from ganserve.entries import clutter
from ganserve.places import glued, split_of

SUFFIXES = (".parquet", ".arrow")
# As the hub numbers the parts of a table.
_SHARD = re.compile(r"(.*)-[0-9]+-of-([0-9]+)(?:-.*)?")
# What the hub's library leaves beside a data set of its own: results of map and filter.
_KEPT = re.compile(r"(?:cache|indices)-[0-9a-f]{8,}.*\.arrow$")


class HubError(ValueError):
    """A data set without what training needs; the message lists what it has."""


@dataclass(frozen=True)
class Opened:
    """The splits by name, and what is to be said of files that are in none."""

    splits: Mapping[str, Any]
    notices: tuple[str, ...] = ()


def files(folder: Path) -> list[Path]:
    """The Parquet and Arrow files of a folder, at any depth, but for hidden ones and what the hub's library keeps."""
    found = (path for path in sorted(folder.rglob("*.*")) if path.suffix in SUFFIXES and not _KEPT.match(path.name))
    return [path for path in found if not clutter(path.relative_to(folder).as_posix())]


def opened(name: str) -> Opened:
    """The data set that a folder or a hub name stands for. Raises HubError."""
    import datasets

    try:
        with _quietly():
            if (Path(name) / "dataset_dict.json").exists() or (Path(name) / "state.json").exists():
                saved = datasets.load_from_disk(name)
                found = Opened(saved if isinstance(saved, datasets.DatasetDict) else {"train": saved})
            elif Path(name).is_dir():
                found = _of_folder(Path(name))
            else:
                found = Opened(datasets.load_dataset(name))
    except HubError:
        raise
    except Exception as error:  # the library raises many kinds for one meaning
        raise HubError(_why(error)) from error
    return Opened(_by_column(found.splits), found.notices)


def _of_folder(folder: Path) -> Opened:
    """As the library parts its files by their names; where it knows none of their words, as folders are parted."""
    import datasets

    builder = datasets.load_dataset_builder(str(folder))
    found = {split: [str(path) for path in paths] for split, paths in builder.config.data_files.items()}
    tables = files(folder)
    tables, empty = _with_rows(tables)
    _check_names(tables)
    # The library takes what has such a suffix anywhere in its name, as a copy kept beside it (train.parquet.bak) has.
    within = {str(path.resolve()) for path in tables}
    taken = {split: [path for path in paths if path in within] for split, paths in found.items()}
    kind = ".arrow" if all(path.suffix == ".arrow" for path in tables) else ".parquet"
    of_kind = [path for path in tables if path.suffix == kind]
    taken = {split: paths for split, paths in taken.items() if paths} or {"train": [str(p.resolve()) for p in of_kind]}
    if len(taken) == 1 and kind == ".parquet":
        taken = _told(folder, of_kind) or taken
    if taken != found:
        builder = datasets.load_dataset_builder(kind[1:], data_files=taken)
    # What a README tells of sizes was told of the whole set, of which a folder may well hold a part.
    builder.download_and_prepare(verification_mode="no_checks")
    read = {Path(path).resolve() for paths in taken.values() for path in paths}
    missed = [path.relative_to(folder).as_posix() for path in tables if path.resolve() not in read]
    what = "tables belong to no split that is known, and are left out"
    notices = [f"{len(missed)} {what}, such as {missed[0]!r}"] if missed else []
    notices += [f"{len(empty)} tables have no row, such as {empty[0].name!r}"] if empty else []
    return Opened(builder.as_dataset(), (*notices, *_shards_missing(tables)))


def _with_rows(tables: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The tables that hold rows, and the Parquet files of none, which the library cannot read. Raises HubError."""
    import pyarrow.parquet

    empty = [path for path in tables if path.suffix == ".parquet" and not pyarrow.parquet.read_metadata(path).num_rows]
    if len(empty) == len(tables):
        raise HubError(f"no table in it has a row, such as {empty[0].name!r}: expected one a picture")
    return [path for path in tables if path not in empty], empty


def _check_names(tables: Sequence[Path]) -> None:
    """Raises HubError where tables list their classes otherwise: the library would take the first list for all."""
    import pyarrow.parquet

    first: dict[str, tuple[Path, list[str]]] = {}
    for path in (path for path in tables if path.suffix == ".parquet"):
        told = (pyarrow.parquet.read_schema(path).metadata or {}).get(b"huggingface", b"{}")
        for column, feature in json.loads(told).get("info", {}).get("features", {}).items():
            names = feature.get("names") if isinstance(feature, dict) else None
            if isinstance(names, list) and first.setdefault(column, (path, names))[1] != names:
                other, others = first[column]
                lists = f"{', '.join(map(str, others[:4]))}, and {', '.join(map(str, names[:4]))}"
                raise HubError(
                    f"{other.name!r} and {path.name!r} list the classes of {column!r} otherwise ({lists}): save them "
                    "with one list"
                )


def _shards_missing(tables: Sequence[Path]) -> list[str]:
    """What to say of tables in numbered parts of which some are not there."""
    there: dict[tuple[str, str], int] = Counter()
    for path in tables:
        if part := _SHARD.fullmatch(path.stem):
            there[str(path.parent / part[1]), part[2]] += 1
    return [
        f"of the {int(total)} parts of {Path(name).name!r} only {count} are there"
        for (name, total), count in there.items()
        if count < int(total)
    ]


def _told(folder: Path, tables: Sequence[Path]) -> dict[str, list[str]]:
    """The files of each split by the words in their names; none where they tell no splits. Raises HubError."""
    told: dict[Path, str | None] = {path: split_of(path.stem) for path in tables}
    if None in told.values():
        by_end = glued(path.stem for path in tables)
        told = {path: split_of(path.stem) or by_end.get(path.stem) for path in tables}
        if by_end and None in told.values():
            names = ", ".join(repr(path.relative_to(folder).as_posix()) for path in tables[:4])
            raise HubError(f"its tables {names} may be splits, or not: call them train.parquet and test.parquet")
    if None in told.values() or not {"train"} < set(told.values()):
        return {}
    taken: dict[str, list[str]] = {}
    for path, split in told.items():
        taken.setdefault(str(split), []).append(str(path.resolve()))
    return taken


def _by_column(splits: Mapping[str, Any]) -> Mapping[str, Any]:
    """The only split parted by a column that says where each row belongs, if there is one. Raises SetError."""
    if len(splits) != 1:
        return splits
    (only,) = splits.values()
    for name in (name for name in only.column_names if name.lower() in metadata.SPLIT_COLUMNS):
        classes = getattr(only.features[name], "names", None)
        values = [metadata.label(value if classes is None or value is None else classes[value]) for value in only[name]]
        if metadata.tells_splits(name, values):
            parts = metadata.parted(name, values) or []
            rows: dict[str, list[int]] = {}
            for row, split in enumerate(parts):
                rows.setdefault(split or "train", []).append(row)
            return {split: only.select(chosen) for split, chosen in rows.items()} or splits
    return splits


def _why(error: BaseException) -> str:
    """What was wrong in the first place, in one line."""
    said = str(error)
    if said.startswith("Config name is missing"):
        configurations = said.partition("configs:")[2].partition("\n")[0].strip()
        return (
            f"it has several configurations, {configurations}: save one with datasets.load_dataset(name, "
            "configuration).save_to_disk(folder), and name that folder"
        )
    while error.__cause__ is not None:
        error = error.__cause__
    said = " ".join((str(error) or type(error).__name__).split()).rstrip(".")
    return (
        f"cannot be read: {said}. Expected 'digits', an existing folder of class folders or images, a ZIP of them, a "
        "local copy of a Hugging Face data set, or a hub name"
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """What the library logs of an error is in the error; its bars are for those who watch."""
    import datasets

    level, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(logging.CRITICAL)
    if not progress.wanted(None):
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()
