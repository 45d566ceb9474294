"""A set is looked through whole: what it is, what is left out, and why it is refused."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganserve import inspection
from ganserve.archives import Limits, Refused
from tests.ganserve.zips import archive, picture

CUT = picture(9, 64, "JPEG")[:-900]


def look(folder: Path, members: dict[str, bytes], *, skip_invalid: bool = False) -> inspection.Inspected:
    path = folder / "a.zip"
    path.write_bytes(archive(members))
    return inspection.archive(path, skip_invalid=skip_invalid)


def many(count: int, name: str = "cat") -> dict[str, bytes]:
    return {f"{name}/{index}.png": picture(index) for index in range(count)}


def test_the_report_counts_classes_sizes_duplicates_and_what_was_skipped(tmp_path: Path) -> None:
    members = {
        **{f"{name}/{i}.png": picture(i, 8 + 2 * i) for name in ("10", "9") for i in range(3)},
        "README.md": b"x",
        "Thumbs.db": b"x",
        "9/._1.png": b"x",
        "loose.png": picture(5),
    }
    found = look(tmp_path, members)
    report = found.report.as_dict()
    assert list(report["classes"]) == ["9", "10"], "natural order"
    assert report["classes"]["9"] == {"pictures": 3, "share": 0.5}
    assert (report["pictures"], report["duplicates"], report["channels"], report["size"]) == (6, 3, 3, 10)
    assert report["edges"] == {"least": 8, "median": 10, "largest": 12}
    skipped = {"no picture": 1, "picture in no class folder": 1, "hidden, or left by a machine": 2}
    assert report["skipped"] == skipped
    assert any("'loose.png'" in notice for notice in report["notices"])


def test_a_folder_and_its_archive_are_told_the_same(tmp_path: Path) -> None:
    members = {f"{name}/{i}.png": picture(i) for name in ("a", "b") for i in range(2)}
    for name, content in members.items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert inspection.folder(tmp_path / "set").report == look(tmp_path, members).report


def test_only_what_cannot_be_decoded_is_left_out_and_it_is_told(tmp_path: Path) -> None:
    members = {**many(18), "dog/1.png": picture(1), "dog/cut.jpg": CUT}
    with pytest.raises(Refused, match=r"dog/cut\.jpg: cannot be decoded"):
        look(tmp_path, members)
    found = look(tmp_path, members, skip_invalid=True)
    assert dict(found.report.classes) == {"cat": 18, "dog": 1}
    assert [one.file for one in found.left_out] == ["dog/cut.jpg"]
    assert found.report.skipped["cannot be decoded"] == 1


def test_a_tenth_at_most_is_left_out_and_no_class_whole(tmp_path: Path) -> None:
    cut = {f"cat/cut{index}.jpg": CUT for index in range(3)}
    with pytest.raises(Refused, match="3 of 21 pictures cannot be decoded"):
        look(tmp_path, {**many(18), **cut}, skip_invalid=True)
    with pytest.raises(Refused, match="dog: is a class of which no picture can be decoded"):
        look(tmp_path, {**many(18), "dog/cut.jpg": CUT}, skip_invalid=True)


def test_too_many_pixels_are_refused_whatever_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(archive({**many(18), "cat/big.png": picture(0, 20)}))
    with pytest.raises(Refused, match=r"cat/big\.png: has 20 x 20 pixels"):
        inspection.archive(path, Limits(pixels=399), skip_invalid=True)


def test_at_most_a_hundred_problems_are_listed(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        look(tmp_path, {f"cat/{index}.png": b"x" for index in range(150)})
    assert len(caught.value.problems) == 100


def test_class_names_are_one_where_they_are_equal_to_people(tmp_path: Path) -> None:
    names = ("caf\u00e9", "cafe\u0301", " dog ", "dog")
    members = {f"{name}/1.png": picture(index) for index, name in enumerate(names)}
    assert dict(look(tmp_path, members).report.classes) == {"café": 2, "dog": 2}
    found = look(tmp_path, {"Cat/1.png": picture(1), "cat/1.png": picture(2)})
    assert dict(found.report.classes) == {"Cat": 1, "cat": 1}, "letters are such classes"
    assert "classes that look alike" in found.report.notices[0]


@pytest.mark.parametrize("name", ["👨‍👩‍👧", "می‌خواهم", "salt, pepper", "a%2Fb", "q?", "猫" * 64, "🏴󠁧󠁢󠁳󠁣󠁴󠁿"])
def test_names_in_any_script_are_class_names(tmp_path: Path, name: str) -> None:
    found = look(tmp_path, {f"{name}/1.png": picture(1), "dog/1.png": picture(2)})
    assert set(found.report.classes) == {name, "dog"}


def test_metadata_names_the_classes_and_an_empty_one_does_not(tmp_path: Path) -> None:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerows([("file_name", "label"), ("img/1.png", "cat"), ("img/2.png", "dog")])
    pictures = {"img/1.png": picture(1), "img/2.png": picture(2)}
    found = look(tmp_path, {**pictures, "metadata.csv": text.getvalue().encode()})
    assert dict(found.report.classes) == {"cat": 1, "dog": 1}
    found = look(tmp_path, {"a/1.png": picture(1), "b/1.png": picture(2), "metadata.csv": b"file_name,label\n"})
    assert dict(found.report.classes) == {"a": 1, "b": 1}


def test_pictures_without_any_class_folder_are_refused_in_an_archive_only(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"1\.png: is not in a class folder"):
        look(tmp_path, {"1.png": picture(1), "2.png": picture(2)})
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "1.png").write_bytes(picture(1))
    assert inspection.folder(tmp_path / "set").report.pictures == 1


def test_heic_is_refused_with_how_to_convert_it(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"is a HEIC picture.*convert it"):
        look(tmp_path, {"a/1.heic": b"\0\0\0\x18ftypheic" + bytes(20), "b/1.png": picture()})


def test_the_sheet_has_one_picture_a_class_ten_a_row() -> None:
    samples = [np.full((inspection.EDGE, inspection.EDGE, 3), index, np.uint8) for index in range(12)]
    with Image.open(io.BytesIO(inspection.sheet(samples))) as whole:
        assert whole.size == (10 * inspection.EDGE, 2 * inspection.EDGE)
        assert whole.getpixel((inspection.EDGE + 1, inspection.EDGE + 1)) == (11, 11, 11)


def test_an_empty_class_folder_is_refused_as_training_does_and_said_of_an_archive(tmp_path: Path) -> None:
    members = {f"{name}/{i}.png": picture(i) for name in ("a", "b") for i in range(2)}
    assert look(tmp_path, {**members, "c/": b""}).report.notices == ("folder 'c' holds no picture and is no class",)
    for name, content in members.items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "set" / "c").mkdir()
    with pytest.raises(Refused, match="c: is a class folder and holds no image: remove it, or add images"):
        inspection.folder(tmp_path / "set")


def test_a_link_to_nothing_is_said_by_its_name_and_in_words(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").symlink_to("nowhere.png")
    with pytest.raises(Refused, match=r"^cat/1\.png: No such file or directory$"):
        inspection.folder(tmp_path)


def test_columns_among_which_labels_cannot_be_told_are_listed(tmp_path: Path) -> None:
    table = b"file_name,breed,colour\n1.png,x,red\n2.png,y,red\n3.png,x,blue\n"
    members = {f"{index}.png": picture(index) for index in (1, 2, 3)}
    with pytest.raises(Refused, match="which column holds labels, of 'breed', 'colour': call it label"):
        look(tmp_path, {**members, "metadata.csv": table})


def test_a_hidden_folder_of_pictures_beside_the_classes_is_said_and_those_of_tools_are_not(tmp_path: Path) -> None:
    members = {f"{name}/1.png": picture(len(name)) for name in ("c++", "java", ".net", ".ipynb_checkpoints")}
    members |= {".git/config": b"x", ".thumbs/1.png": picture(), "java/._1.png": picture()}
    for name, content in members.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(content)
    around = {f"train/{name}": content for name, content in members.items()}
    for report in (inspection.folder(tmp_path / "set").report, *(look(tmp_path, m).report for m in (members, around))):
        assert list(report.classes) == ["c++", "java"]
        assert report.notices == ("folder '.net' is hidden and left out: rename it if it is a class",)
