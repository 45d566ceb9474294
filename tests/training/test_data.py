from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from training.data import DataError, load, split_held_out


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
    with pytest.raises(DataError, match="no image in"):
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
