"""Folders are splits, classes, or neither: what they hold decides, and what can be both is refused."""

from __future__ import annotations

import pytest

from ganserve.entries import SetError
from ganserve.places import places, split_of


def lying(*folders: str) -> dict[str, tuple[str | None, str | None]]:
    """(split, class) of a picture in each folder."""
    found = places([(*folder.split("/"), "1.png") for folder in folders])
    return {folder: (place.split, place.label) for folder, place in zip(folders, found, strict=True)}


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("TRAIN", "val"), ("training_set", "test_set"), ("seg_train", "seg_test"), ("Train-2", "Dev")],
)
@pytest.mark.parametrize("around", ["", "set/"])
def test_a_word_of_its_name_makes_a_folder_a_split(train: str, test: str, around: str) -> None:
    folders = [f"{around}{split}/{name}" for split in (train, test) for name in ("cat", "dog")]
    told = "test" if "test" in test else "validation"
    assert list(lying(*folders).values()) == [("train", "cat"), ("train", "dog"), (told, "cat"), (told, "dog")]


def test_what_stands_beside_two_splits_is_in_none() -> None:
    found = lying("seg_train/cat", "seg_train/dog", "seg_test/cat", "seg_test/dog", "seg_pred")
    assert found["seg_pred"] == (None, None)
    assert found["seg_test/dog"] == ("test", "dog")


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "bus", "car"),
        ("train", "test"),
        ("test_tube", "flask"),
    ],
)
def test_folders_that_hold_pictures_only_are_classes_unless_all_are_splits(folders: tuple[str, ...]) -> None:
    labels = [label for _, label in lying(*folders).values()]
    assert labels == ([None, None] if folders == ("train", "test") else list(folders))


@pytest.mark.parametrize(
    "folders",
    [("train_cats", "train_dogs", "test_cats", "test_dogs"), ("trainA", "trainB", "testA", "testB")],
)
def test_folders_that_are_a_split_of_a_class_each_are_refused(folders: tuple[str, ...]) -> None:
    with pytest.raises(SetError, match=r"may be splits or classes: make them train/CLASS and test/CLASS"):
        lying(*folders)


def test_splits_of_which_none_is_to_be_trained_on_are_refused() -> None:
    with pytest.raises(SetError, match="it has the splits test, val and none to train on: call one of them train"):
        lying("test/cat", "test/dog", "val/cat", "val/dog")


def test_a_folder_that_may_be_a_split_or_a_class_is_refused() -> None:
    with pytest.raises(SetError, match=r"'train' holds folders of pictures and may be a split, but 'samples'"):
        lying("train/cat", "train/dog", "samples")


@pytest.mark.parametrize(
    ("name", "split"),
    [("Test", "test"), ("training data", "train"), ("val2017", "validation"), ("trains", None), ("train-test", None)],
)
def test_the_words_of_a_name_tell_its_split(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("entrenamiento", "prueba"),
        ("Treino", "Teste"),
        ("apprentissage", "test"),
        ("1 entrai\u0302nement", "2 test"),
        ("Trainingsdaten", "Testdaten"),
        ("обучение", "тест"),
        ("训练集", "测试集"),
        ("学習", "テスト"),
    ],
)
def test_splits_are_known_in_other_languages(train: str, test: str) -> None:
    folders = [f"{split}/{name}" for split in (train, test) for name in ("cat", "dog")]
    assert list(lying(*folders).values()) == [(s, c) for s in ("train", "test") for c in ("cat", "dog")]


@pytest.mark.parametrize("outer", [("raw", "processed"), ("fold1", "fold2"), ("A", "B", "C"), ("s/A", "s/B")])
def test_folders_of_which_all_hold_folders_of_the_same_names_are_refused(outer: tuple[str, ...]) -> None:
    with pytest.raises(SetError, match=r"folders of the same names \('cat', 'dog'\), and either may be the classes"):
        lying(*(f"{name}/{inner}" for name in outer for inner in ("cat", "dog")))
    assert lying("cat/old", "cat/new", "dog/old")["cat/old"] == (None, "cat")


def test_classes_that_are_parted_each_are_parted() -> None:
    folders = [f"{name}/{split}" for name in ("cat", "dog") for split in ("train", "Test")]
    assert list(lying(*folders).values()) == [(s, c) for c in ("cat", "dog") for s in ("train", "test")]
    assert lying("cat/train", "dog/other")["cat/train"] == (None, "cat")


@pytest.mark.parametrize(
    "names",
    [
        ("images", "masks"),
        ("img", "labels", "annotations"),
        ("images", "train masks"),
        ("JPEGImages", "SegmentationClass"),
    ],
)
def test_pictures_and_what_was_drawn_on_them_are_no_classes(names: tuple[str, ...]) -> None:
    with pytest.raises(SetError, match="hold pictures and what was drawn on them, which are no classes: name '"):
        lying(*names)
    assert lying("masks", "hats")["masks"] == (None, "masks")


@pytest.mark.parametrize("folder", ["val/images", "test/test", "test"])
def test_pictures_of_a_split_that_lie_in_no_class_are_in_none(folder: str) -> None:
    found = lying("train/n01/images", "train/n02/images", folder)
    assert found["train/n01/images"] == ("train", "n01")
    assert found[folder][1] is None


def test_pictures_of_a_split_that_lie_in_no_class_but_in_a_folder_of_its_name_are_in_none() -> None:
    found = lying("a_train/a_train/cat", "a_train/a_train/dog", "a_test/a_test")
    assert found["a_train/a_train/cat"] == ("train", "cat")
    assert found["a_test/a_test"] == ("test", None)
