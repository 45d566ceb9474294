"""Which recipe fits a set of pictures where none is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training import fitting, recipes, train
from training.data import Dataset


def a_set(n: int, channels: int, edge: int) -> Dataset:
    images = torch.zeros((1, channels, edge, edge), dtype=torch.uint8).expand(n, -1, -1, -1)
    return Dataset("mine", images, torch.arange(n) % 2, ("a", "b"))


@pytest.mark.parametrize(
    ("n", "channels", "edge", "recipe"),
    [
        (60_000, 1, 28, "projgan"),
        (500, 1, 28, "projgan-colour"),
        (50_000, 3, 32, "projgan-colour"),
        (1_000, 3, 64, "projgan-colour"),
        (1_797, 1, 8, "cgan"),
    ],
)
def test_size_channels_and_number_decide(n: int, channels: int, edge: int, recipe: str) -> None:
    choice = fitting.choose(a_set(n, channels, edge))
    assert choice.recipe == recipe
    assert f"{n:,}" in choice.reason
    # What is chosen is within what a recipe may be given.
    recipes.get(choice.recipe, choice.overrides)


def test_photographs_are_mirrored_and_letters_are_not() -> None:
    assert fitting.choose(a_set(1_000, 3, 32)).overrides["mirror"] == 1
    assert fitting.choose(a_set(1_000, 1, 32)).overrides["mirror"] == 0


def test_few_pictures_are_shown_as_often_as_was_measured_and_many_as_long_as_the_recipe_says() -> None:
    assert fitting.choose(a_set(1_000, 3, 32)).images == fitting.SMALL_IMAGES
    assert fitting.choose(a_set(50_000, 3, 32)).images is None


def test_a_length_that_is_too_short_is_told_with_the_one_that_serves() -> None:
    recipe = recipes.get("projgan")
    told = fitting.too_short(recipe, 100_000)
    assert told is not None
    assert f"{recipe.images:,}" in told
    assert fitting.too_short(recipe, recipe.images) is None


def test_a_folder_trains_without_a_word_on_the_recipe_and_its_owner_is_told_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(6):
            pixels = random.integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{index}.png")
    run = tmp_path / "run"
    status = train.main(["--dataset", str(tmp_path / "pets"), "--images", "64", "--run", str(run)])
    told = capsys.readouterr().err
    assert status == 0
    assert "--recipe cgan --images 64" in told
    assert "expect pictures that are not there yet" in told
    assert json.loads((run / "config.json").read_text())["recipe"] == "cgan"


def test_pictures_without_labels_are_refused_with_what_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pictures").mkdir()
    for index in range(4):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / "pictures" / f"{index}.png")
    assert train.main(["--dataset", str(tmp_path / "pictures"), "--run", str(tmp_path / "run")]) == 2
    assert "unconditional recipe" in capsys.readouterr().err
