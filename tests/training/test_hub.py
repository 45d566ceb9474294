"""Tables of the hub: which column holds pictures and which labels, and what stands in for a split that is not there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Features, Image, Value
from PIL import Image as Pillow

from ganserve import reading
from training.data import DataError, load, splits


def picture(value: int) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("L", (8, 8), value).save(buffer, "PNG")
    return buffer.getvalue()


CELLS: list[Any] = [{"bytes": picture(10 * row), "path": None} for row in range(6)]
AB = ClassLabel(names=["a", "b"])


def hub(root: Path, kinds: dict[str, Any], *names: str, **columns: list[Any]) -> str:
    """Parquet files of these columns; pictures are there if none are given."""
    columns.setdefault("image", CELLS)
    features = Features({"image": kinds.pop("image", Image()), **kinds})
    table = datasets.Dataset.from_dict(columns, features=features)
    for name in names or ("train",):
        table.to_parquet(str(root / f"{name}.parquet"))
    return str(root)


def told(name: str, **more: Any) -> tuple[tuple[str, ...], list[int], list[int]]:
    """The classes, the labels, and one pixel of each picture."""
    found = load(name, **more)
    assert found.labels is not None
    return found.classes, found.labels.tolist(), found.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("cells", [CELLS, [cell["bytes"] for cell in CELLS]])
def test_pictures_are_found_in_a_file_that_another_program_wrote(tmp_path: Path, cells: list[Any]) -> None:
    kind = Value("binary") if isinstance(cells[0], bytes) else {"bytes": Value("binary"), "path": Value("string")}
    name = hub(tmp_path, {"image": kind, "label": Value("string")}, image=cells, label=list("bababa"))
    assert told(name) == (("a", "b"), [1, 0, 1, 0, 1, 0], [0, 10, 20, 30, 40, 50])


@pytest.mark.parametrize("empty", [None, {"bytes": b"", "path": None}])
def test_rows_without_a_picture_are_left_out_and_counted(tmp_path: Path, empty: Any) -> None:
    name = hub(tmp_path, {"label": AB}, image=[*CELLS[:4], empty, CELLS[5]], label=[0, 1] * 3)
    assert told(name) == (("a", "b"), [0, 1, 0, 1, 1], [0, 10, 20, 30, 50])
    report = load(name).report
    assert report is not None
    assert report.skipped == {"without a picture": 1}
    with pytest.raises(DataError, match="1 rows without a picture"):
        load(name, strict=True)


def test_whole_numbers_that_became_floats_beside_missing_ones_are_labels(tmp_path: Path) -> None:
    name = hub(tmp_path, {"label": Value("float64")}, label=[0.0, 10.0, None, 2.0, float("nan"), 10.0])
    assert told(name) == (("0", "2", "10"), [0, 2, 1, 2], [0, 10, 30, 50])


def test_a_text_that_a_program_wrote_for_a_missing_label_is_none_and_a_class_that_is_listed_is_one(
    tmp_path: Path,
) -> None:
    for folder in ("texts", "listed"):
        (tmp_path / folder).mkdir()
    name = hub(tmp_path / "texts", {"label": Value("string")}, label=["a", "b", "NaN", "null", "None", ""])
    assert told(name) == (("a", "b"), [0, 1], [0, 10])
    with pytest.raises(DataError, match="4 rows without a label"):
        load(name, strict=True)
    name = hub(tmp_path / "listed", {"label": ClassLabel(names=["None", "some"])}, label=[0, 1] * 3)
    assert told(name)[0] == ("None", "some")


@pytest.mark.parametrize(("labels", "count"), [([0, 1, -1, 0, 1, -1], 4), ([1, -1] * 3, 6)])
def test_minus_one_is_no_label_unless_it_is_one_of_two(tmp_path: Path, labels: list[int], count: int) -> None:
    assert len(load(hub(tmp_path, {"label": Value("int64")}, label=labels))) == count


def test_captions_and_numbers_of_rows_are_no_classes(tmp_path: Path) -> None:
    kinds = {"id": Value("string"), "breed": Value("string")}
    ids = [f"row {row}" for row in range(6)]
    assert told(hub(tmp_path, kinds, id=ids, breed=list("xyxyxy")))[0] == ("x", "y")
    captions = tmp_path / "captions"
    captions.mkdir()
    name = hub(captions, {"text": Value("string")}, text=ids)
    message = r"no column holds labels.*: its columns beside pictures are text \(string\); .*--label-column"
    with pytest.raises(DataError, match=message):
        load(name)
    assert load(name, labelled=False).labels is None
    assert len(load(name, column="text").classes) == 6


@pytest.mark.parametrize("column", [None, "labels"])
def test_a_column_of_lists_is_no_column_of_labels(tmp_path: Path, column: str | None) -> None:
    name = hub(tmp_path, {"labels": datasets.List(Value("int64"))}, labels=[[0], [1]] * 3)
    with pytest.raises(DataError, match=r"its columns beside pictures are labels \(List\)"):
        load(name, column=column)


def test_classes_that_no_row_of_the_training_split_has_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind = ClassLabel(names=["a", "b", "c"])
    hub(tmp_path, {"label": kind}, label=[0, 2] * 3)
    hub(tmp_path, {"label": kind}, "test", label=[0, 1, 2, 2, 2, 2])
    assert told(str(tmp_path))[:2] == (("a", "c"), [0, 1] * 3)
    assert "left out: b" in caplog.text
    assert told(str(tmp_path), split="test") == (("a", "c"), [0, 1, 1, 1, 1], [0, 20, 30, 40, 50])
    assert splits(str(tmp_path), 8, 1)[2] == "test"


def test_a_test_split_that_lacks_a_class_keeps_the_numbers_of_the_others(tmp_path: Path) -> None:
    hub(tmp_path, {"label": Value("string")}, label=list("abcabc"))
    hub(tmp_path, {"label": Value("string")}, "test", label=list("bcbcbc"))
    assert told(str(tmp_path), split="test")[:2] == (("a", "b", "c"), [1, 2] * 3)


def test_the_validation_split_stands_in_for_a_test_split_and_the_only_one_for_training(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"image": CELLS, "label": [0, 1] * 3}, Features({"image": Image(), "label": AB}))
    few = table.select([4, 5])
    datasets.DatasetDict({"train": table, "validation": few}).save_to_disk(str(tmp_path / "both"))
    assert told(str(tmp_path / "both"), split="test")[2] == [40, 50]
    datasets.DatasetDict({"all": table}).save_to_disk(str(tmp_path / "one"))
    assert len(load(str(tmp_path / "one"))) == 6
    with pytest.raises(DataError, match="no split 'test' beside the one to train on, 'all'"):
        load(str(tmp_path / "one"), split="test")


def test_what_was_kept_for_one_column_is_not_taken_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSERVE_DATA", str(tmp_path / "var"))
    monkeypatch.setattr(reading, "KEPT_SECONDS", -1.0)
    (tmp_path / "set").mkdir()
    name = hub(tmp_path / "set", {"x": AB, "y": AB}, x=[None, 0, 1, 0, 1, 0], y=[0, 1, 0, 1, 0, None])
    assert told(name, column="x") == (("a", "b"), [0, 1, 0, 1, 0], [10, 20, 30, 40, 50])
    assert told(name, column="y") == (("a", "b"), [0, 1, 0, 1, 0], [0, 10, 20, 30, 40])


def test_a_damaged_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="cannot be read"):
        load(str(tmp_path))


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("kind", [Value("string"), {"bytes": Value("binary"), "path": Value("string")}])
def test_a_table_may_name_pictures_that_lie_beside_it(tmp_path: Path, kind: Any, absolute: bool) -> None:
    (tmp_path / "images").mkdir()
    for row, cell in enumerate(CELLS):
        (tmp_path / "images" / f"{row}.png").write_bytes(cell["bytes"])
    paths = [str(tmp_path / "images" / f"{row}.png" if absolute else f"images/{row}.png") for row in range(6)]
    cells = [{"bytes": None, "path": path} for path in paths] if isinstance(kind, dict) else paths
    name = hub(tmp_path, {"image": kind, "label": AB}, image=cells, label=[0, 1] * 3)
    assert told(name) == (("a", "b"), [0, 1] * 3, [0, 10, 20, 30, 40, 50])


@pytest.mark.parametrize("kind", [Value("string"), {"bytes": Value("binary"), "path": Value("string")}])
def test_a_picture_that_a_table_names_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.setattr(reading, "KEPT_SECONDS", -1.0)
    for row, cell in enumerate(CELLS):
        (tmp_path / f"{row}.png").write_bytes(cell["bytes"])
    paths = [f"{row}.png" for row in range(6)]
    cells = paths if isinstance(kind, Value) else [{"bytes": None, "path": path} for path in paths]
    name = hub(tmp_path, {"image": kind, "label": AB}, image=cells, label=[0, 1] * 3)
    before = told(name)
    (tmp_path / "0.png").write_bytes(picture(99))
    assert told(name)[2] == [99, *before[2][1:]]


def test_a_table_from_elsewhere_names_no_picture_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set of the hub is a stranger's, unlike a folder."""
    path = tmp_path / "private.png"
    path.write_bytes(picture(7))
    features = Features({"image": {"bytes": Value("binary"), "path": Value("string")}, "label": AB})
    rows = {"image": [{"bytes": None, "path": str(path)}, *CELLS[1:]], "label": [0, 1] * 3}
    table = datasets.Dataset.from_dict(rows, features=features).cast_column("image", Image())
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"train": table})
    with pytest.raises(DataError, match=r"picture 'row 0': is not in the data set, which names '.*private\.png'"):
        load("somebody/something")


def test_the_only_split_is_for_training_whatever_it_is_called_and_is_no_test_split_too(tmp_path: Path) -> None:
    name = hub(tmp_path, {"label": AB}, "test", label=[0, 1] * 3)
    assert len(load(name)) == 6
    with pytest.raises(DataError, match="no split 'test' beside the one to train on, 'test'"):
        load(name, split="test")
    train, test, called = splits(name, 8, 1)
    assert (called, len(train), len(test)) == ("train", 6, 6)


def test_a_column_of_splits_is_no_column_of_labels(tmp_path: Path) -> None:
    kinds = {"split": Value("string"), "animal": Value("string")}
    name = hub(tmp_path, kinds, split=["train"] * 4 + ["test"] * 2, animal=list("ababab"))
    assert told(name)[0] == ("a", "b")


@pytest.mark.parametrize("kind", [Value("string"), ClassLabel(names=["caf\u00e9", "cafe\u0301", "tea"])])
def test_a_class_has_one_name_in_whatever_form_a_table_writes_it(tmp_path: Path, kind: Any) -> None:
    name = hub(tmp_path, {"label": kind}, label=["caf\u00e9", "cafe\u0301", "tea"] * 2)
    assert told(name)[:2] == (("caf\u00e9", "tea"), [0, 0, 1] * 2)


def test_classes_keep_the_order_that_a_table_tells_and_their_pictures(tmp_path: Path) -> None:
    kind = ClassLabel(names=["zebra", "ape", "lion"])
    name = hub(tmp_path, {"label": kind}, label=[0, 1, 2] * 2)
    assert told(name) == (("zebra", "ape", "lion"), [0, 1, 2] * 2, [0, 10, 20, 30, 40, 50])


def test_every_row_of_a_long_table_is_its_own(tmp_path: Path) -> None:
    cells = [{"bytes": picture(row), "path": None} for row in range(150)]
    name = hub(tmp_path, {"label": AB}, image=cells, label=[0, 1] * 75)
    assert told(name)[2] == list(range(150))


@pytest.mark.parametrize("kind", [Image(), Value("binary")])
@pytest.mark.parametrize("called", ["image", "IMG", "pixel_values"])
def test_of_several_columns_of_pictures_the_one_called_so_is_read_and_said(
    tmp_path: Path, called: str, kind: Any
) -> None:
    dark = [picture(200)] * 6
    cells = [cell["bytes"] for cell in CELLS]
    features = Features({"annotated": kind, called: kind, "label": AB})
    rows = {"annotated": dark, called: cells, "label": [0, 1] * 3}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "train.parquet"))
    assert told(str(tmp_path))[2] == [0, 10, 20, 30, 40, 50]
    report = load(str(tmp_path)).report
    assert report is not None
    assert report.notices == (f"several columns hold pictures (annotated, {called}): {called!r} is read",)
