"""What the models that come with the repository answer to the first calls of somebody who just started it."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from ganserve.settings import Settings
from service.app import create_app

SHIPPED = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(models=SHIPPED, data=tmp_path_factory.mktemp("data"), device="cpu", lanes=1)
    with TestClient(create_app(settings)) as client:
        yield client


def picture(client: TestClient, **asked: object) -> Image.Image:
    answer = client.post("/generate", json=asked)
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def test_a_label_and_a_number_give_a_grid_of_the_default_models_digits(client: TestClient) -> None:
    grid = picture(client, label=3, n=16)
    assert (grid.mode, grid.size) == ("L", (4 * 30 + 2, 4 * 30 + 2))


def test_the_colour_model_is_asked_for_a_class_by_name(client: TestClient) -> None:
    horses = picture(client, model="cifar10-projgan", label="horse", n=16, seed=1)
    assert (horses.mode, horses.size) == ("RGB", (4 * 34 + 2, 4 * 34 + 2))
    assert horses.tobytes() == picture(client, model="cifar10-projgan", label=7, n=16, seed=1).tobytes()
    assert horses.tobytes() != picture(client, model="cifar10-projgan", label="frog", n=16, seed=1).tobytes()
    refused = client.post("/generate", json={"model": "cifar10-projgan", "label": "unicorn"})
    assert refused.status_code == 422
    assert "horse" in refused.json()["detail"]
