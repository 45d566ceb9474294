"""What a folder of pictures is taken for, and what is said of it."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganserve import sets
from ganserve.sets import Seen, SetError


def picture(value: int = 0, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(buffer, form)
    return buffer.getvalue()


def folder(root: Path, *names: str, **contents: bytes) -> Path:
    """Files of these names: pictures, or what is given."""
    for index, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents.get(path.name.replace(".", "_"), picture(index)))
    return root


def laid(root: Path) -> dict[str, str | None]:
    """The class of each picture."""
    layout = sets.lay_out(sets.folder_entries(root))
    if layout.labels is None:
        return dict.fromkeys((entry.name for entry in layout.pictures), None)
    pairs = zip(layout.pictures, layout.labels, strict=True)
    return {entry.name: layout.classes[label] for entry, label in pairs}


def layout_of(root: Path) -> sets.Layout:
    return sets.lay_out(sets.folder_entries(root))


def test_classes_are_folders_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    folder(tmp_path, *(f"{number}/a.png" for number in range(1, 13)))
    layout = sets.lay_out(sets.folder_entries(tmp_path))
    assert layout.classes == tuple(str(number) for number in range(1, 13))


@pytest.mark.parametrize("around", ["", "pets/", "data/pets/"])
def test_single_folders_around_the_classes_are_passed_over(tmp_path: Path, around: str) -> None:
    folder(tmp_path, f"{around}cat/1.png", f"{around}cat/more/2.png", f"{around}dog/1.png")
    assert set(laid(tmp_path).values()) == {"cat", "dog"}


def test_one_class_folder_is_one_class(tmp_path: Path) -> None:
    assert set(laid(folder(tmp_path, "cat/1.png", "cat/2.png")).values()) == {"cat"}


@pytest.mark.parametrize("around", ["", "set/"])
@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("train", "test"), "test"),
        (("Training", "Val"), "validation"),
        (("trainset", "TestSet"), "test"),
        (("train", "eval"), "validation"),
        (("my train data", "holdout"), "validation"),
        (("petstrain", "petstest"), "test"),
    ],
)
def test_splits_above_the_classes_are_splits(tmp_path: Path, around: str, names: tuple[str, str], told: str) -> None:
    first, second = names
    folder(tmp_path, *(f"{around}{split}/{c}/1.png" for split in (first, second) for c in ("cat", "dog")))
    layout = sets.lay_out(sets.folder_entries(tmp_path))
    assert layout.classes == ("cat", "dog")
    assert layout.splits is not None
    assert set(layout.splits) == {"train", told}


def test_words_that_end_as_splits_do_are_classes(tmp_path: Path) -> None:
    assert set(laid(folder(tmp_path, "strain/1.png", "contest/1.png")).values()) == {"strain", "contest"}


def test_classes_that_are_called_like_splits_stay_classes(tmp_path: Path) -> None:
    folder(tmp_path, "train/1.png", "bus/1.png", "plane/1.png")
    assert set(laid(tmp_path).values()) == {"train", "bus", "plane"}


def test_pictures_without_folders_have_no_labels(tmp_path: Path) -> None:
    assert laid(folder(tmp_path, "1.png", "2.jpg")) == {"1.png": None, "2.jpg": None}


def test_loose_pictures_beside_classes_are_left_out_and_said(tmp_path: Path) -> None:
    layout = sets.lay_out(sets.folder_entries(folder(tmp_path, "cat/1.png", "dog/1.png", "cover.png")))
    assert [entry.name for entry in layout.pictures] == ["cat/1.png", "dog/1.png"]
    assert any("'cover.png'" in notice for notice in layout.notices)


CLUTTER = [
    "__MACOSX/cat/._1.png", "cat/._1.png", "cat/.DS_Store", "Thumbs.db", "cat/ehthumbs.db", "desktop.ini",
    ".ipynb_checkpoints/1-checkpoint.png", "cat/.gitkeep", ".git/config.png", "README.md", "cat/notes.txt",
    "labels.csv", "cat/annotation.xml", "#recycle/1.png", "lost+found/1.png", "RECYCLER/S-1-5/1.png",
    "cat/@__thumb/1.png",
]  # fmt: skip


def test_what_machines_and_people_leave_beside_pictures_never_counts(tmp_path: Path) -> None:
    folder(tmp_path, "cat/1.png", "dog/1.png")
    for name in CLUTTER:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7 not a picture")
    assert laid(tmp_path) == {"cat/1.png": "cat", "dog/1.png": "dog"}


def test_a_picture_is_known_by_its_bytes_and_a_broken_one_by_its_name(tmp_path: Path) -> None:
    folder(tmp_path, "cat/no suffix", "cat/b.JPG", "cat/c.jfif", "cat/d.data", "cat/broken.png", broken_png=b"oops")
    assert len(laid(tmp_path)) == 5, "the broken one is not passed over: whoever reads it refuses it by name"


def test_a_name_of_no_known_encoding_does_no_harm(tmp_path: Path) -> None:
    folder(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(picture(7))
    names = list(laid(tmp_path))
    assert len(names) == 3
    "".join(names).encode("utf-8")


def test_a_class_has_one_name_in_whatever_form_it_is_written(tmp_path: Path) -> None:
    folder(tmp_path, "caf\u00e9/1.png", "cafe\u0301/2.png", "\u732b/1.png")
    assert set(laid(tmp_path).values()) == {"caf\u00e9", "\u732b"}


@pytest.mark.parametrize("file", ["metadata.csv", "metadata.jsonl"])
def test_metadata_beside_pictures_names_their_labels(tmp_path: Path, file: str) -> None:
    folder(tmp_path, "a.png", "sub/b.png", "c.png", "d.png")
    csv = "\ufefffile_name,text,label\na.png,x,2\nsub/b.png,y,10\nd.png,z,\n"
    lines = '{"file_name": "a.png", "label": 2}\n{"file_name": "sub/b.png", "label": 10}\n{"file_name": "d.png"}\n'
    (tmp_path / file).write_text(csv if file.endswith("csv") else lines, encoding="utf-8")
    layout = sets.lay_out(sets.folder_entries(tmp_path))
    assert laid(tmp_path) == {"a.png": "2", "sub/b.png": "10"}
    assert layout.classes == ("2", "10")
    assert dict(layout.skipped) == {"not named by metadata": 1, "without a label": 1}


def test_a_set_without_a_picture_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SetError, match=r"no picture in it \(1 no picture\): expected class folders"):
        sets.lay_out(sets.folder_entries(tmp_path))
    (tmp_path / "pets.zip").write_bytes(b"PK\3\4")
    with pytest.raises(SetError, match=r"1 archive\): expected class folders of pictures, or pictures, unpacked"):
        sets.lay_out(sets.folder_entries(tmp_path))


@pytest.mark.parametrize("name", ["mnist_train.csv", "mnist.npz", "train-images-idx3-ubyte", "svhn.mat", "x.h5"])
def test_numbers_in_a_file_are_no_pictures_and_it_is_said_how_they_would_be(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"label,pixel0,pixel1\n3,0,0\n")
    right = f"numbers, as in '{name}', are none: save each picture as PNG in a folder of its class$"
    with pytest.raises(SetError, match=rf"expected class folders of pictures, or pictures; {right}"):
        layout_of(tmp_path)


def seen(edge: int = 32, *, wide: int | None = None, coloured: bool = True, digest: int = 0) -> Seen:
    return Seen((wide or edge, edge), coloured, digest.to_bytes(4, "big"))


def test_the_report_counts_what_will_be_changed() -> None:
    layout = sets.Layout((), (0,) * 60 + (1,) * 40, ("cat", "dog"), None, (("no picture", 2),))
    told = [seen(digest=i) for i in range(94)]
    told += [seen(8, digest=200 + i) for i in range(3)] + [seen(32, wide=100, digest=300)] + [seen(digest=0)] * 2
    report = sets.report(layout, told, 32, 3)
    assert (report.enlarged, report.cropped, report.far, report.duplicates) == (3, 1, 4, 2)
    assert report.as_dict()["classes"] == {
        "cat": {"pictures": 60, "share": 0.6}, "dog": {"pictures": 40, "share": 0.4}
    }  # fmt: skip
    text = "\n".join(report.lines())
    assert "3 of 100 pictures are smaller than 32 pixels" in text
    assert "from 40 pictures (dog) to 60 (cat)" in text
    assert "left out: 2 no picture" in text
    assert report.as_dict()["background"] == "#ffffff"


@pytest.mark.parametrize(
    ("coloured", "total", "colour"),
    [(0, 200, False), (1, 200, False), (199, 200, True), (20, 200, True), (1, 2, True), (0, 1, False), (1, 20, False)],
)
def test_a_stray_picture_does_not_make_a_set_one_of_colour(coloured: int, total: int, colour: bool) -> None:
    assert sets.shows_colour(coloured, total) is colour


def test_the_size_follows_the_median_and_not_the_first() -> None:
    assert sets.median_edge([1] + [64] * 199) == 64


@pytest.mark.parametrize("loose", ["cover.png", "pets/cover.png"])
def test_a_loose_picture_does_not_turn_a_folder_around_the_classes_into_one(tmp_path: Path, loose: str) -> None:
    root = folder(tmp_path, "pets/cat/1.png", "pets/dog/1.png", loose)
    assert laid(root) == {"pets/cat/1.png": "cat", "pets/dog/1.png": "dog"}


@pytest.mark.parametrize(
    "around",
    [("train/", "test/"), ("train/images/", "test/images/"), ("train/train/", "test/test/"), ("a/train/", "a/val/")],
)
def test_splits_may_have_folders_around_their_classes(tmp_path: Path, around: tuple[str, str]) -> None:
    root = folder(tmp_path, *(f"{place}{name}/1.png" for place in around for name in ("cat", "dog")))
    layout = sets.lay_out(sets.folder_entries(root))
    assert layout.classes == ("cat", "dog")
    assert layout.splits is not None
    assert len(set(layout.splits)) == 2


def test_one_class_in_a_split_is_not_a_folder_around_it(tmp_path: Path) -> None:
    root = folder(tmp_path, "train/cat/1.png", "train/dog/1.png", "test/cat/old/1.png", "test/cat/new/1.png")
    assert set(laid(root).values()) == {"cat", "dog"}


def test_pictures_beside_splits_are_in_none_of_them(tmp_path: Path) -> None:
    layout = sets.lay_out(sets.folder_entries(folder(tmp_path, "train/1.png", "test/1.png", "cover.png")))
    assert [entry.name for entry in layout.pictures] == ["test/1.png", "train/1.png"]
    assert layout.splits == ("test", "train")
    assert any("'cover.png'" in notice for notice in layout.notices)


def test_a_folder_without_a_picture_beside_the_classes_is_said_and_no_class(tmp_path: Path) -> None:
    root = folder(tmp_path, "cat/1.png", "dog/1.png", "docs/README.md", "emu/.gitkeep", README_md=b"x", _gitkeep=b"")
    layout = sets.lay_out(sets.folder_entries(root))
    assert layout.classes == ("cat", "dog")
    assert [notice.split("'")[1] for notice in layout.notices] == ["docs", "emu"]


def test_raw_files_beside_their_jpegs_are_passed_over_and_counted(tmp_path: Path) -> None:
    raw = {"1_CR2": b"II*\0", "1_dng": b"II*\0"}
    root = folder(tmp_path, "cat/1.JPG", "cat/1.CR2", "dog/1.JPG", "dog/1.dng", **raw)
    layout = sets.lay_out(sets.folder_entries(root))
    assert [entry.name for entry in layout.pictures] == ["cat/1.JPG", "dog/1.JPG"]
    assert dict(layout.skipped) == {"raw file of a camera": 2}


def test_no_two_names_are_alike_in_their_order() -> None:
    names = ["b", "10", "2", "02", "a10", "a9", "A", "1" * 5000, ""]
    backwards = list(reversed(names))
    assert sorted(names, key=sets.natural) == sorted(backwards, key=sets.natural)
    assert sorted(["10", "2", "02", "1" * 5000], key=sets.natural) == ["02", "2", "10", "1" * 5000]


def test_metadata_in_splits_keeps_them_apart(tmp_path: Path) -> None:
    root = folder(tmp_path, "train/1.png", "train/2.png", "test/1.png", "test/2.png")
    for split in ("train", "test"):
        (root / split / "metadata.csv").write_text("file_name,label\n1.png,x\n2.png,y\n")
    layout = sets.lay_out(sets.folder_entries(root))
    assert layout.splits == ("test", "test", "train", "train")
    assert layout.labels == (0, 1, 0, 1)


def test_what_metadata_names_and_what_is_there_are_held_against_each_other(tmp_path: Path) -> None:
    root = folder(tmp_path, "1.png", "2.png", "3.png")
    (root / "metadata.csv").write_text("file_name,label\n1.png,x\n2.png,y\n4.png,y\n")
    layout = sets.lay_out(sets.folder_entries(root))
    assert dict(layout.skipped) == {"not named by metadata": 1, "named by metadata and not there": 1}


def test_metadata_that_names_no_picture_is_refused_with_what_it_names_and_what_is_there(tmp_path: Path) -> None:
    root = folder(tmp_path, "1.png", "2.png")
    (root / "metadata.csv").write_text("file_name,label\nimages/1.png,x\nimages/2.png,y\n")
    with pytest.raises(SetError, match=r"it names 'images/1\.png', and there is '1\.png'$"):
        layout_of(root)


def test_metadata_without_labels_leaves_the_classes_to_the_folders(tmp_path: Path) -> None:
    root = folder(tmp_path, "cat/1.png", "dog/1.png")
    for text in ("file_name,caption\ncat/1.png,one\ndog/1.png,two\n", "id,about\n1,pets\n"):
        (root / "metadata.csv").write_text(text)
        assert laid(root) == {"cat/1.png": "cat", "dog/1.png": "dog"}


def test_among_several_columns_of_metadata_one_is_asked_for(tmp_path: Path) -> None:
    root = folder(tmp_path, "1.png", "2.png", "3.png")
    (root / "metadata.csv").write_text("file_name,breed,colour\n1.png,x,red\n2.png,y,red\n3.png,x,blue\n")
    entries = sets.folder_entries(root)
    assert sets.lay_out(entries).candidates == ("breed", "colour")
    assert sets.lay_out(entries, column="colour").classes == ("blue", "red")
    with pytest.raises(SetError, match=r"no column 'size'.*breed, colour"):
        sets.lay_out(entries, column="size")


def test_a_picture_that_is_in_two_classes_contradicts_itself() -> None:
    layout = sets.Layout((), (0, 0, 1, 1), ("cat", "dog"), ("train",) * 3 + ("test",))
    report = sets.report(layout, [seen(digest=1), seen(digest=2), seen(digest=1), seen(digest=3)], 32, 3)
    assert (report.duplicates, report.contradicting) == (1, 2)
    assert report.splits == {"train": 3, "test": 1}
    text = "\n".join(report.lines())
    assert "2 of 4 pictures are in one class and in another" in text
    assert "cat: 2 (50.0%)" in text
    assert not report.notices


def test_pictures_that_are_in_two_splits_are_said() -> None:
    layout = sets.Layout((), (0, 0, 1, 1), ("cat", "dog"), ("train", "test", "train", "train"))
    report = sets.report(layout, [seen(digest=1), seen(digest=1), seen(digest=2), seen(digest=2)], 32, 3)
    assert report.notices == ("2 pictures are in one split and in another: what is measured on them says little",)


def test_what_may_hold_pictures_and_is_passed_over_is_said(tmp_path: Path) -> None:
    names = ("cat/1.png", "dog/1.png", "dog/2.tga", "dog/3.psd", "more.zip", "metadata.csv")
    other = {name.rpartition("/")[2].replace(".", "_"): b"..." for name in names[2:]}
    layout = layout_of(folder(tmp_path, *names, **other))
    assert dict(layout.skipped) == {
        "picture of a kind that is not read": 2,
        "archive": 1,
        "metadata without a column file_name, or without a row": 1,
    }
    assert any("2 picture of a kind that is not read, such as 'dog/2.tga': save them as" in n for n in layout.notices)
    assert any("1 archive, such as 'more.zip': unpack" in told for told in layout.notices)
    assert any("metadata.csv has no column file_name" in told for told in layout.notices)


def test_classes_that_look_alike_are_kept_apart_and_said(tmp_path: Path) -> None:
    layout = layout_of(folder(tmp_path, "Cat/1.png", "cat/1.png", " cat/1.png", "dog/1.png"))
    assert len(layout.classes) == 4
    assert any(told.endswith("kept apart: ' cat', 'Cat', 'cat'") for told in layout.notices)


@pytest.mark.parametrize("names", [("1", "01", "1.0"), ("ab", "a\u200bb"), ("\ufb01sh", "fish")])
def test_classes_of_one_number_or_one_look_are_kept_apart_and_said(tmp_path: Path, names: tuple[str, ...]) -> None:
    layout = layout_of(folder(tmp_path, *(f"{name}/1.png" for name in names), "2/1.png"))
    assert set(layout.classes) == {*names, "2"}
    assert any("kept apart" in told and all(repr(name) in told for name in names) for told in layout.notices)


@pytest.mark.parametrize(("file", "text"), [("metadata.csv", "file_name,label\n"), ("metadata.jsonl", "\n")])
def test_metadata_without_a_row_leaves_the_classes_to_the_folders_and_is_said(
    tmp_path: Path, file: str, text: str
) -> None:
    root = folder(tmp_path, "cat/1.png", "dog/1.png")
    (root / file).write_text(text)
    layout = layout_of(root)
    assert layout.classes == ("cat", "dog")
    assert layout.notices == (f"{file} has no column file_name, or no row, and names no picture",)


def test_labels_of_a_table_are_trimmed_and_whole_where_a_program_added_a_point(tmp_path: Path) -> None:
    root = folder(tmp_path, "1.png", "2.png", "3.png", "4.png")
    (root / "metadata.csv").write_text("file_name,label\n1.png,cat \n2.png,cat\n3.png, dog\n4.png,dog\n")
    assert layout_of(root).classes == ("cat", "dog")
    (root / "metadata.csv").write_text("file_name,label\n1.png,1.0\n2.png,\n3.png,0.0\n4.png,1.0\n")
    assert laid(root) == {"1.png": "1", "3.png": "0", "4.png": "1"}
    (root / "metadata.csv").write_text("file_name,label\n1.png,1.0\n2.png,1.5\n3.png,2.0\n4.png,1.5\n")
    assert layout_of(root).classes == ("1.0", "1.5", "2.0")


def test_a_label_that_a_program_wrote_as_missing_is_none_and_counted(tmp_path: Path) -> None:
    root = folder(tmp_path, "1.png", "2.png", "3.png", "4.png", "5.png")
    (root / "metadata.csv").write_text("file_name,label\n1.png,cat\n2.png,NaN\n3.png,dog\n4.png,None\n5.png,null\n")
    layout = layout_of(root)
    assert layout.classes == ("cat", "dog")
    assert dict(layout.skipped) == {"without a label": 3}


def test_columns_of_ones_beside_pictures_are_classes_as_roboflow_writes_them(tmp_path: Path) -> None:
    root = folder(tmp_path, *(f"{split}/{number}.jpg" for split in ("train", "valid") for number in range(4)))
    table = "filename, cat, big dog, Unlabeled\n0.jpg, 1, 0, 0\n1.jpg, 0, 1, 0\n2.jpg, 1, 1, 0\n3.jpg, 0, 0, 1\n"
    for split in ("train", "valid"):
        (root / split / "_classes.csv").write_text(table)
    layout = layout_of(root)
    assert laid(root) == {f"{s}/{n}.jpg": c for s in ("train", "valid") for n, c in enumerate(("cat", "big dog"))}
    assert layout.splits == ("train", "train", "validation", "validation")
    assert dict(layout.skipped) == {"without a label": 4}
    (root / "train" / "_classes.csv").write_text(table.replace(" 1, 0", " 1, 1"))
    with pytest.raises(SetError, match=r"train/_classes.csv names several classes for most pictures"):
        layout_of(root)


@pytest.mark.parametrize("around", ["", "faces/"])
def test_numbers_that_stylegan_keeps_beside_its_folders_are_the_labels(tmp_path: Path, around: str) -> None:
    root = folder(tmp_path, *(f"{around}{n // 2:05}/img{n:08}.png" for n in range(6)))
    told = [[f"{n // 2:05}/img{n:08}.png", n % 3 * 5] for n in range(6)]
    (root / around / "dataset.json").write_text(json.dumps({"labels": told}))
    assert layout_of(root).classes == ("0", "5", "10")
    assert laid(root) == {f"{around}{name}": str(label) for name, label in told}
    (root / around / "dataset.json").write_text('{"labels": null}')
    layout = layout_of(root)
    assert (len(layout.pictures), layout.labels) == (6, None)
    assert any("dataset.json says that the pictures have no labels" in told for told in layout.notices)
    (root / around / "dataset.json").write_text(json.dumps({"labels": [[name, [0.5]] for name, _ in told]}))
    with pytest.raises(SetError, match=r"dataset.json holds lists as labels: expected the whole number"):
        layout_of(root)
    (root / around / "dataset.json").write_text(json.dumps({"labels": told}).replace("]]", "],]"))
    with pytest.raises(SetError, match=r"dataset.json is not JSON: "):
        layout_of(root)


@pytest.mark.parametrize("text", ["[1]", '{"labels": 3}', "{", '{"labels": [3]}', '{"pictures": 2}'])
def test_another_dataset_json_names_nothing(tmp_path: Path, text: str) -> None:
    root = folder(tmp_path, "cat/1.png", "dog/1.png")
    (root / "dataset.json").write_text(text)
    assert laid(root) == {"cat/1.png": "cat", "dog/1.png": "dog"}
    assert not layout_of(root).notices


def test_a_table_of_another_name_beside_pictures_without_labels_is_said(tmp_path: Path) -> None:
    root = folder(tmp_path, "train/1.png", "train/2.png", "train_labels.csv", train_labels_csv=b"id,label\n1,x\n2,y\n")
    (notice,) = layout_of(root).notices
    assert notice.startswith("if 'train_labels.csv' holds labels, they are not read: labels are read from class fo")


def test_what_lies_deeper_than_its_class_is_said(tmp_path: Path) -> None:
    layout = layout_of(folder(tmp_path, "pet/cat/1.png", "pet/dog/1.png", "car/1.png"))
    assert layout.classes == ("car", "pet")
    told = "2 pictures lie deeper than their class folder, such as 'pet/cat/1.png', which is of class 'pet'"
    assert layout.notices == (told,)


def test_a_column_of_splits_parts_the_pictures_and_labels_none(tmp_path: Path) -> None:
    rows = "file_name,kind,split\n1.png,cat,train\n2.png,dog,train\n3.png,cat,test\n4.png,dog,\n"
    layout = layout_of(folder(tmp_path, "1.png", "2.png", "3.png", "4.png", "metadata.csv", metadata_csv=rows.encode()))
    assert layout.classes == ("cat", "dog")
    assert layout.splits == ("train", "train", "test", "train")


def test_rows_that_disagree_on_a_picture_leave_it_without_a_label(tmp_path: Path) -> None:
    rows = "file_name,label\n1.png,cat\n2.png,dog\n1.png,dog\n2.png,dog\n"
    layout = layout_of(folder(tmp_path, "1.png", "2.png", "metadata.csv", metadata_csv=rows.encode()))
    assert [entry.name for entry in layout.pictures] == ["2.png"]
    assert dict(layout.skipped) == {"without a label": 1}


@pytest.mark.parametrize("names", [("train1", "train2"), ("train", "extra"), ("test_a", "test_b"), ("to-train", "x")])
def test_folders_that_may_be_splits_and_hold_folders_of_the_same_names_are_refused(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    folder(tmp_path, *(f"{split}/{c}/1.png" for split in names for c in ("cat", "dog")))
    with pytest.raises(SetError, match="may be splits: call them train and test"):
        layout_of(tmp_path)


def test_metadata_that_contradicts_the_folders_counts_and_is_said(tmp_path: Path) -> None:
    folder(tmp_path, "cat/1.png", "cat/2.png", "dog/3.png")
    rows = "file_name,label\ncat/1.png,dog\ncat/2.png,cat\ndog/3.png,dog\n"
    (tmp_path / "metadata.csv").write_text(rows)
    assert laid(tmp_path) == {"cat/1.png": "dog", "cat/2.png": "cat", "dog/3.png": "dog"}
    told = "1 pictures are of another class than their folder by the metadata, such as 'cat/1.png'"
    assert layout_of(tmp_path).notices == (told,)
    (tmp_path / "metadata.csv").write_text(rows.replace("dog\n", "hound\n").replace("cat\n", "lion\n"))
    assert layout_of(tmp_path).notices == (), "folders that are called otherwise than any class tell none"


def test_two_files_of_metadata_that_disagree_leave_a_picture_without_a_label(tmp_path: Path) -> None:
    folder(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "metadata.csv").write_text("file_name,label\n1.png,a\n2.png,b\n")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "2.png", "label": "a"}\n{"file_name": "3.png", "label": "b"}\n'
    )
    assert laid(tmp_path) == {"1.png": "a", "3.png": "b"}
    assert layout_of(tmp_path).notices == ("1 pictures without a label are left out",)


def test_a_folder_that_is_named_and_empty_is_said(tmp_path: Path) -> None:
    entries = sets.folder_entries(folder(tmp_path, "cat/1.png", "dog/1.png"))
    layout = sets.lay_out(entries, folders=["cat", "ape", "dog/old"])
    assert layout.notices == ("folder 'ape' holds no picture and is no class",)
