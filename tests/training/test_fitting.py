"""Which recipe fits a set of pictures where none is asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from training import fitting, precision, recipes, train
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


def test_a_short_run_of_a_large_set_has_smaller_batches_and_a_short_run_of_a_small_one_is_as_it_is() -> None:
    digits, photographs, few = a_set(60_000, 1, 28), a_set(50_000, 3, 32), a_set(1_000, 3, 32)
    sooner = fitting.soon(fitting.choose(digits), digits, 100_000)
    assert (sooner.recipe, sooner.overrides) == ("projgan-heads", fitting.FASTER)
    assert fitting.soon(fitting.choose(photographs), photographs, 100_000).overrides["batch"] == fitting.SMALL["batch"]
    for dataset, images in ((digits, 600_000), (few, 10_000), (a_set(60_000, 1, 8), 10_000)):
        choice = fitting.choose(dataset)
        assert fitting.soon(choice, dataset, images) == choice


def test_a_length_that_is_too_short_is_told_with_the_one_that_serves() -> None:
    recipe = recipes.get("projgan")
    told = fitting.too_short(recipe, 100_000)
    assert told is not None
    assert f"{recipe.images:,}" in told
    [serves] = re.findall(r"--images (\d+) is the least that serves", told)
    assert fitting.too_short(recipe, int(serves)) is None
    assert fitting.too_short(recipe, int(serves) - 1) is not None
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


def in_minutes(minutes: float, dataset: Dataset, seconds: float, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Any:
    """A choice on a machine where each image takes so long."""
    monkeypatch.setattr(precision, "pace", lambda recipe, shape, kind: seconds)
    return fitting.within(minutes, dataset, {}, **{"kind": "no", "threads": 1, **more})


def test_minutes_come_to_as_many_images_as_the_machine_shows_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    few = a_set(1_000, 3, 32)
    one = in_minutes(1, few, 0.01, monkeypatch)
    assert one.recipe == "projgan-colour"
    assert one.images == int(60 / 0.01 / fitting.BESIDE["projgan-colour"])
    assert in_minutes(2, few, 0.01, monkeypatch).images == pytest.approx(2 * one.images, abs=1)
    assert in_minutes(1, few, 0.01, monkeypatch, threads=2).images == pytest.approx(2 * one.images, abs=1)
    assert f"{one.images:,} images in 1 minutes" in one.reason


def test_more_time_than_a_recipe_takes_is_not_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    few = in_minutes(600, a_set(1_000, 3, 32), 0.001, monkeypatch)
    assert few.images == fitting.SMALL_IMAGES
    assert "are enough" in few.reason
    asked = in_minutes(600, a_set(1_000, 3, 32), 0.0001, monkeypatch, recipe="cgan")
    assert (asked.recipe, asked.images) == ("cgan", recipes.get("cgan").images)


@pytest.mark.parametrize(("channels", "faster"), [(1, fitting.FASTER), (3, {**fitting.SMALL, "mirror": 1})])
def test_in_a_short_time_there_are_more_steps_and_in_a_longer_one_the_recipes_own(
    channels: int, faster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    many = a_set(60_000, channels, 32)
    short, long = (in_minutes(minutes, many, 0.0005, monkeypatch) for minutes in (5, 60))
    assert long.recipe == fitting.choose(many).recipe
    assert short.recipe == ("projgan-heads" if channels == 1 else long.recipe)
    assert short.overrides == faster
    assert long.overrides == fitting.choose(many).overrides
    assert "smaller batches" in short.reason


@pytest.mark.usefixtures("signals")
def test_a_training_of_so_many_minutes_is_resumed_with_the_length_that_they_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    asked = ["--dataset", "digits", "--minutes", "0.01", "--run", str(run), "--threads", "1"]
    monkeypatch.setattr(precision, "pace", lambda recipe, shape, kind: 0.001)
    assert train.main(asked) == 0
    images = int(0.6 / 0.001 / fitting.OTHERS)
    assert f"--recipe cgan --images {images}" in capsys.readouterr().err
    monkeypatch.setattr(precision, "pace", lambda recipe, shape, kind: 0.002)
    assert train.main([*asked, "--resume"]) == 0
    assert json.loads((run / "config.json").read_text())["images"] == images


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--images", "10"], "expected one of them"),
        (["--resume"], "expected --run as well"),
    ],
)
def test_minutes_that_cannot_be_meant_are_refused_with_what_is_right(
    more: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--dataset", "digits", "--minutes", "1", *more]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_a_time_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        train.main(["--dataset", "digits", "--minutes", text])
    assert "expected minutes" in capsys.readouterr().err


def test_pictures_without_labels_are_refused_with_what_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pictures").mkdir()
    for index in range(4):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / "pictures" / f"{index}.png")
    assert train.main(["--dataset", str(tmp_path / "pictures"), "--run", str(tmp_path / "run")]) == 2
    assert "unconditional recipe" in capsys.readouterr().err
