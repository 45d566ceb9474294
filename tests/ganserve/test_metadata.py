"""Metadata beside pictures is read as it was written, or refused in a sentence that names it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ganserve import metadata
from ganserve.entries import Entry, SetError


def entry(name: str, content: bytes) -> Entry:
    return Entry(name, lambda: content, lambda: content[:32])


TABLE = "file_name,label\na.png,x\n"


@pytest.mark.parametrize(
    "content",
    [
        TABLE.encode(),
        TABLE.encode("utf-8-sig"),
        TABLE.encode("utf-16"),
        TABLE.replace("\n", "\r\n").encode(),
        TABLE.replace(",", ";").encode(),
        TABLE.replace(",", "\t").encode(),
        b'"file_name","label"\n"a.png","x"\n',
        b"file_name,label\n./a.png,x,more\n",
        b"File_Name , label\n a.png , x\n".replace(b" ,", b","),
        b"filename,label\na.png,x\n",
    ],
)
def test_a_table_is_read_as_whatever_program_wrote_it(content: bytes) -> None:
    found = metadata.rows(entry("train/metadata.csv", content))
    assert found is not None
    assert found["train/a.png"]["label"] == "x"


def test_a_name_is_the_same_in_every_form_in_which_it_is_written() -> None:
    found = metadata.rows(entry("metadata.csv", "file_name,label\ncafe\u0301.png,x\n".encode()))
    assert found is not None
    assert metadata.key("caf\u00e9.png") in found


@pytest.mark.parametrize("content", [b"id,title\n1,x\n", b"", b"\xff\xfe\0", "id,caf\u00e9\n".encode("latin-1")])
def test_what_names_no_files_is_no_metadata(content: bytes) -> None:
    assert metadata.rows(entry("metadata.csv", content)) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "file_name,label\ncaf\u00e9.png,x\n".encode("latin-1"), "not text in UTF-8"),
        ("metadata.csv", b"file_name,label\na.png,\"" + b"x" * 200_000, "not a table"),
        ("metadata.jsonl", b'{"file_name": "a.png"}\n{"file_name": ', "line 2, is not JSON"),
        ("metadata.jsonl", b'["file_name"]\n', "line 1, is not a JSON object"),
        ("metadata.csv", b"file_name,label, label\na.png,x,y\n", "has 2 columns called 'label'"),
        ("metadata.csv", b"file_name,label\na.png,x\0\n", "holds zero bytes"),
    ],
)
def test_metadata_that_cannot_be_read_is_refused_by_name(name: str, content: bytes, message: str) -> None:
    with pytest.raises(SetError, match=rf"{name}.*{message}"):
        metadata.rows(entry(name, content))


@pytest.mark.parametrize(
    ("value", "label"),
    [(3, "3"), (3.0, "3"), ("3", "3"), (True, "True"), (None, None), ("", None), (0.5, None), ([1], None)]
    + [(word, None) for word in ("NaN", "nan", "null", "NULL", "None", "<NA>", " ")]
    + [(word, word) for word in ("none", "NA", "Nan Desu")],
)
def test_a_label_is_a_text_a_whole_number_or_a_truth(value: object, label: str | None) -> None:
    assert metadata.label(value) == label


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["0", "1", "-1"], ["0", "1", None]),
        (["1", "-1"], ["1", "-1"]),
        (["1.0", None, "-1.0", "2.0"], ["1", None, None, "2"]),
        (["1.0", "1.5"], ["1.0", "1.5"]),
    ],
)
def test_numbers_are_whole_and_minus_one_is_none_unless_it_is_one_of_two(
    values: list[str | None], labels: list[str | None]
) -> None:
    assert metadata.labels(values) == labels


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"text": "ab", "class": "xx"}, ("class", ())),
        ({"text": "aa", "Label": "xy"}, ("Label", ())),
        ({"labels": "ab", "label": "xx"}, ("label", ())),
        ({"caption": "abc", "breed": "xyx"}, ("breed", ())),
        ({"caption": "abc"}, (None, ())),
        ({"caption": ["a", None, None], "breed": "xyx"}, ("breed", ())),
        ({"width": "889", "image_height": "888", "breed": "xyx"}, ("breed", ())),
        ({"width": "889"}, (None, ())),
        ({"__index_level_0__": "010", "__url__": "aab", "Unnamed: 0": "001", "breed": "xyx"}, ("breed", ())),
        ({"breed": "xyx", "colour": "rrg"}, (None, ("breed", "colour"))),
    ],
)
def test_the_column_of_labels_is_the_one_that_can_be_it(
    columns: dict[str, Sequence[str | None]], chosen: tuple[str | None, tuple[str, ...]]
) -> None:
    assert metadata.choose(columns) == chosen


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("split", ["train", "TEST", None], True),
        ("Split", ["train", "secret"], True),
        ("split", ["left", "right"], False),
        ("half", ["train", "test"], False),
        ("fold", ["val", "test"], True),
    ],
)
def test_a_column_tells_splits_if_it_is_called_so_and_names_one_to_train_on(
    name: str, values: list[str | None], told: bool
) -> None:
    assert metadata.tells_splits(name, values) is told


def test_rows_are_parted_by_the_splits_that_are_told_or_refused_with_what_would_be_right() -> None:
    assert metadata.parted("split", ["Training", "dev", None]) == ["train", "validation", None]
    assert metadata.parted("split", ["val", "test"]) is None, "there is none to train on"
    with pytest.raises(SetError, match="tells the split 'secret': expected train, test or validation"):
        metadata.parted("split", ["train", "secret"])
