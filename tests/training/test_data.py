from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from ganserve import archives, reading
from training import data
from training.data import DataError, Dataset, load, split_held_out


def test_digits_come_without_a_network_as_uint8_in_memory() -> None:
    digits = load("digits")
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.images.dtype == torch.uint8
    assert int(digits.images.max()) == 255
    assert digits.classes == tuple("0123456789")


def test_class_folders_give_labels_by_sorted_name(class_folders: Path) -> None:
    pets = load(str(class_folders), size=8)
    assert pets.classes == ("cat", "dog")
    assert pets.labels is not None
    assert pets.labels.tolist() == [0] * 6 + [1] * 6
    assert pets.images.shape == (12, 1, 8, 8)


def test_channels_turn_grey_into_colour_and_back(class_folders: Path) -> None:
    colour = load(str(class_folders), size=8, channels=3).images
    assert colour.shape == (12, 3, 8, 8)
    assert torch.equal(colour[:, 0], colour[:, 2])


def test_a_folder_of_images_is_unlabelled(class_folders: Path) -> None:
    cats = load(str(class_folders / "cat"), labelled=False)
    assert cats.labels is None
    assert cats.images.shape == (6, 1, 10, 10)


def test_oblong_images_are_cropped_at_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, 4:12] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert int(load(str(tmp_path), labelled=False, size=8).images.min()) == 200


def test_a_local_copy_of_a_hub_data_set_reads_like_the_hub(tmp_path: Path) -> None:
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["plane", "car"])})
    images = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 20, 30)]
    table = datasets.Dataset.from_dict({"img": images, "label": [1, 0, 1]}, features=features)
    table.to_parquet(str(tmp_path / "train-00000-of-00001.parquet"))
    loaded = load(str(tmp_path))
    assert loaded.classes == ("plane", "car")
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [1, 0, 1]
    assert loaded.images[:, 0, 0, 0].tolist() == [10, 20, 30]


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no picture in it"):
        load(str(tmp_path))


def test_an_empty_class_folder_is_named(class_folders: Path) -> None:
    (class_folders / "emu").mkdir()
    with pytest.raises(DataError, match=r"'emu'.*holds no image"):
        load(str(class_folders))


def test_an_unreadable_image_is_named(class_folders: Path) -> None:
    (class_folders / "cat" / "broken.png").write_bytes(b"\x89PNG not really")
    with pytest.raises(DataError, match=r"broken\.png"):
        load(str(class_folders))


def test_one_class_is_refused_for_a_conditional_recipe(class_folders: Path) -> None:
    for path in (class_folders / "dog").iterdir():
        path.unlink()
    (class_folders / "dog").rmdir()
    with pytest.raises(DataError, match="one class only"):
        load(str(class_folders))


def test_unlabelled_images_are_refused_for_a_conditional_recipe(class_folders: Path) -> None:
    with pytest.raises(DataError, match="no labels"):
        load(str(class_folders / "cat"))


def test_a_name_that_is_nothing_says_what_would_be_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="Expected 'digits'"):
        load(str(tmp_path / "absent"))


def test_the_held_out_part_is_the_same_for_ever_and_apart_from_the_rest(digits: object) -> None:
    whole = load("digits")
    rest, held = split_held_out(whole)
    again = split_held_out(whole)[1]
    assert torch.equal(held.images, again.images)
    assert len(rest) + len(held) == len(whole)
    assert len(held) == 149


def photo(rng: np.random.Generator, colour: tuple[int, int, int], edge: int = 32) -> Image.Image:
    return Image.fromarray(rng.normal(colour, 15, (edge, edge, 3)).clip(0, 255).astype(np.uint8))


def two_classes(root: Path, odd: Image.Image, count: int = 40) -> Path:
    """Red and blue pictures, the first of which is another."""
    rng = np.random.default_rng(0)
    for name, colour in (("a", (200, 30, 30)), ("b", (30, 30, 200))):
        (root / name).mkdir()
        for index in range(count):
            image = odd if name == "a" and not index else photo(rng, colour, 64)
            image.save(root / name / f"{index:03}.png")
    return root


@pytest.mark.parametrize("odd", [Image.new("L", (64, 64), 90), Image.new("RGB", (1, 1), (200, 30, 30))])
def test_the_whole_set_decides_and_not_its_first_picture(tmp_path: Path, odd: Image.Image) -> None:
    found = load(str(two_classes(tmp_path, odd)))
    assert (found.size, found.channels) == (64, 3)
    assert found.report is not None
    assert found.report.as_dict()["size"] == 64


def test_a_palette_of_greys_is_grey(class_folders: Path) -> None:
    for path in class_folders.rglob("*.png"):
        Image.open(path).quantize(16).convert("P").save(path)
    assert load(str(class_folders)).channels == 1


def test_the_pixels_do_not_depend_on_the_threads(tmp_path: Path) -> None:
    two_classes(tmp_path, Image.new("L", (64, 64), 90))
    one, many = (load(str(tmp_path), size=16, workers=workers) for workers in (1, 5))
    assert torch.equal(one.images, many.images)


def test_a_set_is_not_read_again_until_a_file_of_it_changes(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANSERVE_DATA", str(tmp_path / "var"))
    monkeypatch.setattr(reading, "KEPT_SECONDS", -1.0)
    first = load(str(class_folders), size=8)
    read = reading.read
    reads: list[int] = []

    def counted(*arguments: Any, **named: Any) -> Any:
        reads.append(1)
        return read(*arguments, **named)

    monkeypatch.setattr(reading, "read", counted)
    again = load(str(class_folders), size=8)
    assert torch.equal(first.images, again.images)
    assert again.report == first.report
    assert reads == []
    changed = next(class_folders.rglob("*.png"))
    Image.new("L", (9, 9), 255).save(changed)
    assert not torch.equal(load(str(class_folders), size=8).images, first.images)
    assert reads == [1]
    assert len(list((tmp_path / "var" / "pictures").iterdir())) == 1, "one reading a place is kept"


def test_sets_of_one_class_and_of_few_pictures_are_measured_by_what_there_is(tmp_path: Path) -> None:
    """What can be trained on can be measured: a job never fails after its training for want of pictures."""
    for name, classes, count in (("one", ("a",), 24), ("few", ("a", "b"), 3), ("some", ("a", "b"), 4)):
        for label in classes:
            (tmp_path / name / label).mkdir(parents=True)
            for index in range(count):
                Image.new("L", (8, 8), 20 * index % 256).save(tmp_path / name / label / f"{index}.png")
    parts = {name: data.splits(str(tmp_path / name), 8, 1) for name in ("one", "few", "some")}
    told = {name: (len(train), len(test), split) for name, (train, test, split) in parts.items()}
    assert told == {"one": (22, 2, "held-out"), "few": (6, 6, "train"), "some": (6, 2, "held-out")}


@pytest.mark.parametrize("part", ["train", "test"])
def test_splits_above_the_class_folders_are_read_apart(tmp_path: Path, part: str) -> None:
    for value, name in enumerate(("train", "test")):
        for label in ("cat", "dog"):
            (tmp_path / name / label).mkdir(parents=True)
            Image.new("L", (8, 8), 10 + 100 * value).save(tmp_path / name / label / "1.png")
    found = load(str(tmp_path), split=part)
    assert (len(found), int(found.images[0, 0, 0, 0])) == (2, 10 if part == "train" else 110)
    train, test, kind = data.splits(str(tmp_path), 8, 1)
    assert (len(train), len(test), kind) == (2, 2, "test")


def column(values: list[object], kind: object, name: str = "label", **more: object) -> datasets.Dataset:
    images = [Image.fromarray(np.full((8, 8), 10 * row % 256, np.uint8)) for row in range(len(values))]
    features = datasets.Features({"image": datasets.Image(), name: kind, **{k: datasets.Value("int64") for k in more}})
    return datasets.Dataset.from_dict({"image": images, name: values, **more}, features=features)


@pytest.mark.parametrize("name", ["label", "labels", "fine_label", "category", "class", "species"])
@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        ([1, 0, 1], datasets.ClassLabel(names=["cat", "dog"]), ("cat", "dog")),
        ([10, 2, 10], datasets.Value("int64"), ("2", "10")),
        (["dog", "cat", "dog"], datasets.Value("string"), ("cat", "dog")),
        ([True, False, True], datasets.Value("bool"), ("False", "True")),
    ],
)
def test_labels_are_read_from_every_kind_of_column(
    tmp_path: Path, name: str, values: list[object], kind: object, classes: tuple[str, ...]
) -> None:
    column(values, kind, name).to_parquet(str(tmp_path / "train.parquet"))
    found = load(str(tmp_path))
    assert found.classes == classes
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0, 1]


def test_a_data_set_that_was_saved_to_disk_is_read(tmp_path: Path) -> None:
    table = column(["b", "a"], datasets.Value("string"))
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path / "parts"))
    table.save_to_disk(str(tmp_path / "whole"))
    for name in ("parts", "whole"):
        assert load(str(tmp_path / name)).classes == ("a", "b")


def test_of_several_columns_the_message_lists_them_and_one_can_be_named(tmp_path: Path) -> None:
    column([0, 1], datasets.Value("int64"), "digit", writer=[5, 6]).to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(DataError, match=r"\['digit', 'writer'\].*--label-column"):
        load(str(tmp_path))
    assert load(str(tmp_path), column="writer").classes == ("5", "6")
    with pytest.raises(DataError, match="no column 'letter'"):
        load(str(tmp_path), column="letter")


def test_rows_without_a_label_are_left_out_and_counted_or_refused(tmp_path: Path) -> None:
    column([0, -1, 1, 0], datasets.ClassLabel(names=["a", "b"])).to_parquet(str(tmp_path / "train.parquet"))
    found = load(str(tmp_path))
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 0]
    assert found.images[:, 0, 0, 0].tolist() == [0, 20, 30]
    assert found.report is not None
    assert found.report.skipped == {"without a label": 1}
    with pytest.raises(DataError, match="1 rows without a label"):
        load(str(tmp_path), strict=True)


def test_a_set_without_a_labelled_test_split_is_parted(tmp_path: Path) -> None:
    column([0, 1] * 20, datasets.ClassLabel(names=["a", "b"])).to_parquet(str(tmp_path / "train.parquet"))
    train, held, kind = data.splits(str(tmp_path), 8, 1)
    assert (len(train) + len(held), kind) == (40, "held-out")
    column([-1, -1], datasets.ClassLabel(names=["a", "b"])).to_parquet(str(tmp_path / "test.parquet"))
    assert data.splits(str(tmp_path), 8, 1)[2] == "held-out"


@pytest.mark.parametrize("counts", [(300, 1, 1), (90, 1, 59), (3, 3), (200, 20, 4), (1, 1)])
def test_every_class_keeps_a_training_picture_and_is_measured_if_it_can_be(counts: tuple[int, ...]) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
    whole = Dataset("rare", images, labels, tuple("abc"[: len(counts)]))
    rest, held = split_held_out(whole)
    assert rest.missing == ()
    assert len(rest) + len(held) == len(whole)
    if len(held):
        few = {name for name, count in zip(whole.classes, counts, strict=True) if count < data.MEASURED}
        assert set(held.missing) <= few, "only classes of hardly a picture are not measured"


def test_what_is_wrong_with_a_picture_is_said_with_its_name(class_folders: Path) -> None:
    (class_folders / "cat" / "scan.tif").write_bytes(b"II*\0 cut short")
    with pytest.raises(DataError, match=r"scan\.tif"):
        load(str(class_folders))


def test_a_class_folder_may_be_called_anything(tmp_path: Path) -> None:
    for name in (b"cafe\xcc\x81", b"caf\xe9", b"2", b"10"):
        path = tmp_path / os.fsdecode(name)
        path.mkdir()
        Image.new("L", (8, 8)).save(path / "1.png")
    assert load(str(tmp_path)).classes == ("2", "10", "caf\\xe9", "caf\u00e9")


def test_a_class_whose_name_nobody_could_ask_for_is_refused(class_folders: Path) -> None:
    (next(path for path in class_folders.iterdir() if path.is_dir())).rename(class_folders / ("x" * 201))
    with pytest.raises(DataError, match=r"a class name of 201 characters, 'xxxx.*at most 200 can be asked for"):
        load(str(class_folders))


def test_a_zip_is_read_as_the_folder_that_it_was(class_folders: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", class_folders.parent, class_folders.name))
    folder, zipped = load(str(class_folders)), load(str(archive))
    assert torch.equal(zipped.images, folder.images)
    assert zipped.classes == folder.classes
    with pytest.raises(DataError, match="is a picture: expected a ZIP"):
        load(str(next(class_folders.rglob("*.png"))))


def test_what_was_kept_at_the_median_is_not_taken_for_what_fits(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANSERVE_DATA", str(tmp_path / "var"))
    monkeypatch.setattr(reading, "KEPT_SECONDS", -1.0)
    assert load(str(class_folders)).size == 10
    assert load(str(class_folders), fit=lambda edge: edge - 2).size == 8
    assert load(str(class_folders)).size == 10


def test_test_pictures_of_a_class_that_cannot_be_learned_are_left_out(tmp_path: Path) -> None:
    for split, label in (("train", "b"), ("train", "c"), ("test", "a"), ("test", "c")):
        (tmp_path / split / label).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / split / label / "1.png")
    found = load(str(tmp_path), split="test", labelled=False)
    assert found.classes == load(str(tmp_path)).classes == ("b", "c")
    assert found.labels is not None
    assert found.labels.tolist() == [1]
    assert found.report is not None
    assert found.report.skipped == {"of a class that the training split lacks": 1}


def test_columns_of_metadata_are_listed_with_the_option_that_names_one(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "3.png", "4.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    rows = ("1.png,x,red", "2.png,y,red", "3.png,x,blue", "4.png,,blue")
    (tmp_path / "metadata.csv").write_text("\n".join(("file_name,breed,colour", *rows)))
    with pytest.raises(DataError, match=r"\['breed', 'colour'\].*--label-column"):
        load(str(tmp_path))
    assert load(str(tmp_path), column="colour").classes == ("blue", "red")
    with pytest.raises(DataError, match="1 without a label"):
        load(str(tmp_path), column="breed", strict=True)


def test_a_zip_is_no_more_believed_than_an_upload(class_folders: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", class_folders))
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"cat/0.png", b"../../0.p"))
    with pytest.raises(DataError, match="leaves its folder"):
        load(str(archive))
    start = content.index(b"cat/0.png") + 60
    archive.write_bytes(content[:start] + bytes(8) + content[start + 8 :])
    with pytest.raises(DataError, match=r"'cat/0\.png'.*cannot be unpacked"):
        load(str(archive))


@pytest.mark.parametrize("rare", [1, 2, 3])
def test_a_class_whose_every_picture_would_be_held_out_keeps_one_for_training(rare: int) -> None:
    n = 150
    drawn = np.random.default_rng(20201).permutation(n)[: n // 12]
    labels = torch.zeros(n, dtype=torch.int64)
    labels[torch.from_numpy(drawn[:rare])] = 1
    whole = Dataset("rare", torch.zeros(n, 1, 8, 8, dtype=torch.uint8), labels, ("many", "few"))
    rest, held = split_held_out(whole)
    assert rest.missing == ()
    assert rest.labels is not None
    assert int((rest.labels == 1).sum()) == 1, "the others stay where they are measured"
    assert len(rest) + len(held) == n


def test_class_folders_beside_a_table_are_refused_since_either_may_be_meant(class_folders: Path) -> None:
    (class_folders / "notes.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"holds class folders \(.*\) and tables .*: move one of them away"):
        load(str(class_folders))


@pytest.mark.parametrize(
    ("name", "words"), [("", "no data set is named"), ("x" * 5000, "cannot be read: File name too long")]
)
def test_what_can_be_no_name_is_refused_as_any_other(name: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(name)


def test_one_thread_at_a_time_reads_from_an_archive(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", class_folders))
    inside, most, read = [0], [0], archives.Archive.read

    def counted(self: archives.Archive, member: archives.Member) -> bytes:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)  # in which another would come in
        try:
            return read(self, member)
        finally:
            inside[0] -= 1

    monkeypatch.setattr(archives.Archive, "read", counted)
    assert len(load(str(archive), workers=4)) == 12
    assert most == [1]
