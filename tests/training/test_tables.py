"""Which files and rows of a table belong to which split: what was kept apart is not trained on, and nothing is missed
without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Value

from tests.training.test_hub import AB, hub, picture, told
from training.data import DataError, load
from training.tables import HubError, opened


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Testing"),
        ("TRAIN-0", "TEST-0"),
        ("pets_Train", "pets_Test"),
        ("mytrain", "mytest"),
        ("trainpets", "testpets"),
    ],
)
def test_files_are_parted_by_the_words_that_part_folders(tmp_path: Path, names: tuple[str, str]) -> None:
    hub(tmp_path, {"label": AB}, names[0], label=[0, 1] * 3)
    name = hub(tmp_path, {"label": AB}, names[1], label=[1, 0] * 3)
    assert told(name)[1] == [0, 1] * 3
    assert told(name, split="test")[1] == [1, 0] * 3


def test_files_that_may_be_splits_are_never_mixed(tmp_path: Path) -> None:
    name = hub(tmp_path, {"label": AB}, "mytrain", "mytest", "other", label=[0, 1] * 3)
    with pytest.raises(DataError, match=r"may be splits, or not: call them train.parquet and test.parquet"):
        load(name)


def test_a_copy_kept_beside_a_table_is_not_read(tmp_path: Path) -> None:
    name = hub(tmp_path, {"label": AB}, label=[0, 1] * 3)
    for copy in ("train.parquet.bak", "train.parquet.old", "train.parquet~", "train.parquet.1"):
        (tmp_path / copy).write_bytes((tmp_path / "train.parquet").read_bytes())
    assert len(load(name)) == 6


def test_what_the_hubs_library_keeps_beside_a_table_is_not_read(tmp_path: Path) -> None:
    name = hub(tmp_path, {"label": AB}, label=[0, 1] * 3)
    kept = tmp_path / ".cache" / "huggingface" / "download"
    kept.mkdir(parents=True)
    other = opened(name).splits["train"].select(range(2))
    other.to_parquet(kept / "train.parquet")
    other.save_to_disk(str(kept / "saved"))
    for copy in ("cache-0123456789abcdef.arrow", "cache-0123456789abcdef_00000_of_00002.arrow"):
        (tmp_path / copy).write_bytes((kept / "saved" / "data-00000-of-00001.arrow").read_bytes())
    report = load(name).report
    assert report is not None
    assert (report.pictures, report.notices) == (6, ())


def test_class_folders_are_not_a_table_by_what_the_hubs_library_keeps(class_folders: Path) -> None:
    (class_folders / "cache-0123456789abcdef.arrow").write_bytes(b"ARROW1")
    assert load(str(class_folders)).classes == ("cat", "dog")


def test_tables_that_list_their_classes_otherwise_are_refused(tmp_path: Path) -> None:
    hub(tmp_path, {"label": AB}, "train", label=[0, 1] * 3)
    name = hub(tmp_path, {"label": ClassLabel(names=["b", "a"])}, "test", label=[0, 1] * 3)
    with pytest.raises(DataError, match=r"'test.parquet' and 'train.parquet' list the classes of 'label' otherwise"):
        load(name)


def test_splits_that_were_saved_with_lists_of_their_own_mean_the_same_classes(tmp_path: Path) -> None:
    names = {"train": ["a", "b"], "test": ["b", "a"]}
    for split, listed in names.items():
        (tmp_path / split).mkdir()
        hub(tmp_path / split, {"label": ClassLabel(names=listed)}, label=[0, 1] * 3)
    saved = {split: opened(str(tmp_path / split)).splits["train"] for split in names}
    datasets.DatasetDict(saved).save_to_disk(str(tmp_path / "saved"))
    assert told(str(tmp_path / "saved"))[:2] == (("a", "b"), [0, 1] * 3)
    assert told(str(tmp_path / "saved"), split="test")[:2] == (("a", "b"), [1, 0] * 3)


def test_a_part_of_a_set_is_read_whatever_its_readme_says_of_the_whole(tmp_path: Path) -> None:
    name = hub(tmp_path, {"label": AB}, label=[0, 1] * 3)
    info = "dataset_info:\n  splits:\n  - name: train\n    num_bytes: 9\n    num_examples: 60000\n"
    (tmp_path / "README.md").write_text(f"---\n{info}---\n")
    assert len(load(name)) == 6


def test_a_table_without_rows_is_said_and_hides_no_other(tmp_path: Path) -> None:
    name = hub(tmp_path, {"label": AB}, "test", image=[], label=[])
    with pytest.raises(DataError, match=r": no table in it has a row, such as 'test.parquet': expected one a picture$"):
        load(name)
    hub(tmp_path, {"label": AB}, label=[0, 1] * 3)
    report = load(name).report
    assert report is not None
    assert report.notices == ("1 tables have no row, such as 'test.parquet'",)


def test_parts_of_a_table_that_are_not_there_are_said(tmp_path: Path) -> None:
    name = hub(tmp_path, {"label": AB}, "train-00000-of-00003", "train-00002-of-00003", label=[0, 1] * 3)
    report = load(name).report
    assert report is not None
    assert report.pictures == 12
    assert report.notices == ("of the 3 parts of 'train' only 2 are there",)


def test_pictures_beside_a_table_do_not_hide_it(tmp_path: Path) -> None:
    name = hub(tmp_path, {"label": AB}, label=[0, 1] * 3)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    assert told(name)[1] == [0, 1] * 3


def test_a_table_of_no_split_is_left_out_and_said(tmp_path: Path) -> None:
    name = hub(tmp_path, {"label": AB}, "train", "spare", label=[0, 1] * 3)
    report = load(name).report
    assert report is not None
    assert report.pictures == 6
    assert report.notices == ("1 tables belong to no split that is known, and are left out, such as 'spare.parquet'",)


def test_tables_without_any_word_of_a_split_are_all_trained_on(tmp_path: Path) -> None:
    name = hub(tmp_path, {"label": AB}, "one", "two", label=[0, 1] * 3)
    assert opened(name).notices == ()
    assert len(load(name)) == 12


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Value("string"), ["train", "test", "Train", None, "test", "train"]),
        (ClassLabel(names=["test", "train"]), [1, 0, 1, 1, 0, 1]),
    ],
)
def test_a_column_of_splits_parts_the_rows(tmp_path: Path, kind: Any, values: list[Any]) -> None:
    name = hub(tmp_path, {"split": kind, "animal": Value("string")}, split=values, animal=list("ababab"))
    assert told(name) == (("a", "b"), [0, 0, 1, 1], [0, 20, 30, 50])
    assert told(name, split="test") == (("a", "b"), [1, 0], [10, 40])


def test_a_column_that_tells_a_split_of_no_known_name_is_refused(tmp_path: Path) -> None:
    kinds = {"split": Value("string"), "animal": Value("string")}
    name = hub(tmp_path, kinds, split=["train"] * 4 + ["secret"] * 2, animal=list("ababab"))
    with pytest.raises(DataError, match="column 'split' tells the split 'secret': expected train, test or validation"):
        load(name)


def test_several_configurations_are_told_with_how_to_take_one(tmp_path: Path) -> None:
    for language in ("en", "fr"):
        (tmp_path / language).mkdir()
        hub(tmp_path / language, {"label": AB}, label=[0, 1] * 3)
    configurations = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("en", "fr"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configurations}---\n")
    with pytest.raises(HubError, match=r"several configurations, \['en', 'fr'\]: save one .* and name that folder"):
        opened(str(tmp_path))


def test_what_is_wrong_with_a_file_is_one_line_and_nothing_is_logged_besides(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hub(tmp_path, {"label": Value("int64")}, "train-0", label=[0, 1] * 3)
    name = hub(tmp_path, {"label": Value("string")}, "train-1", label=list("ababab"))
    capfd.readouterr()
    with pytest.raises(HubError, match=r"cannot be read: Failed to parse string: '[ab]'") as refused:
        opened(name)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")
