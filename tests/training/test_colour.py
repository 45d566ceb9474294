"""Colour from end to end: a folder of images, a run, an ONNX file, a served answer."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from ganserve.events import FINISHED
from ganserve.repository import Repository
from ganserve.settings import Settings
from service.app import create_app
from training import export, train
from training.measure import pixels

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
pytestmark = pytest.mark.usefixtures("signals")


def photograph(file: Path, seed: int, width: int, height: int, hue: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(seed).integers(-40, 40, (height, width, 3))
    Image.fromarray((np.array(hue) + noise).clip(0, 255).astype(np.uint8)).save(file)


def trained(dataset: Path, run: Path, recipe: str, *more: str) -> dict[str, object]:
    """A dozen steps of a narrow network by the command itself; the run's configuration."""
    few = ["--images", "96", "--log-steps", "4", "--snapshots", "1", "--events", "--threads", "1"]
    asked = ["--recipe", recipe, "--dataset", str(dataset), "--run", str(run), "--set", "batch=8", "--set"]
    assert train.main([*asked, "width=0.25", *few, *more]) == FINISHED
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    config: dict[str, object] = json.loads((run / "config.json").read_text())
    return config


@pytest.mark.parametrize(("size", "more"), [(32, ()), (64, ("--size", "64"))])
def test_dcgan_trains_on_a_folder_of_unlabelled_colour_images_of_any_shape(
    size: int, more: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    for index in range(24):
        photograph(folder / f"{index}.jpg", index, 36 + index, 40, (200, 90, 30))
    config = trained(folder, tmp_path / "run", "dcgan", *more)
    assert (config["size"], config["channels"], config["classes"]) == (size, 3, [])
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [4, 8, 12]
    (sheet,) = (tmp_path / "run" / "samples").glob("fresh-*.png")
    with Image.open(sheet) as picture:
        assert picture.mode == "RGB"
        assert min(picture.size) >= 16 * size
    repository = Repository(tmp_path / "models")
    card = repository.verify("faces", export.export_run(tmp_path / "run", repository, name="faces"))
    assert (card.image.height, card.image.width, card.image.channels) == (size, size, 3)
    assert not card.conditional


def test_the_score_of_large_images_is_what_it_is_of_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=random)
    real[:30] //= 2
    real[:, :, :3] //= 4
    made = real.flip(3)
    before = pixels.PixelScore(real, 16)(made, None)
    assert before["score"] > 0.1
    monkeypatch.setattr(pixels, "MANY_PIXELS", 100)
    assert pixels.PixelScore(real, 16)(made, None) == pytest.approx(before)


def test_projgan_learns_labelled_colour_images_and_is_served_by_their_class_names(tmp_path: Path) -> None:
    for index, name in enumerate(CLASSES):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        hue = (25 * index, 120, 250 - 25 * index)
        for number in range(6):
            photograph(tmp_path / "pictures" / name / f"{number}.png", number, 32, 32, hue)
    config = trained(tmp_path / "pictures", tmp_path / "run", "projgan")
    assert (config["size"], config["channels"], tuple(config["classes"])) == (32, 3, CLASSES)  # type: ignore[arg-type]
    export.export_run(tmp_path / "run", Repository(tmp_path / "models"), name="cifar10-projgan")

    settings = Settings(models=tmp_path / "models", data=tmp_path / "var", device="cpu")
    with TestClient(create_app(settings)) as client:
        asked = {"model": "cifar10-projgan", "label": "horse", "n": 16, "seed": 3}
        picture = client.post("/generate", json=asked)
        assert picture.status_code == 200
        with Image.open(io.BytesIO(picture.content)) as sheet:
            assert sheet.mode == "RGB"
            assert min(sheet.size) >= 4 * 32

        def arrays(label: object) -> dict[str, np.ndarray]:
            answer = client.post("/generate", json={**asked, "label": label, "format": "npz"})
            assert answer.status_code == 200
            return dict(np.load(io.BytesIO(answer.content)))

        horses = arrays("horse")
        assert horses["images"].shape == (16, 32, 32, 3)
        assert horses["labels"].tolist() == [7] * 16
        assert np.array_equal(horses["images"], arrays(7)["images"])
        assert not np.array_equal(horses["images"], arrays("frog")["images"])
        refused = client.post("/generate", json={**asked, "label": "unicorn"})
        assert 400 <= refused.status_code < 500
        assert "horse" in refused.text
