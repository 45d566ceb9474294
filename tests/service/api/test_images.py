import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from ganserve.repository import Repository
from tests.service.conftest import Serve
from tests.tiny import CLASSES, SIDE, publish


def test_an_address_is_one_image_cacheable_for_ever(client: TestClient) -> None:
    answer = client.get("/images/digits/1/2/42.png")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert Image.open(io.BytesIO(answer.content)).size == (SIDE, SIDE)
    again = client.get("/images/digits/1/2/42.png", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_it_is_the_tile_that_generate_gives(client: TestClient) -> None:
    single = np.asarray(Image.open(io.BytesIO(client.get("/images/digits/1/1/7.png").content)))
    grid = client.get("/generate?label=1&seed=7&padding=0").content
    assert np.array_equal(single, np.asarray(Image.open(io.BytesIO(grid))))


def test_a_class_may_be_named(client: TestClient) -> None:
    contents = [client.get(f"/images/digits/1/{label}/7.png").content for label in (CLASSES[1], 1)]
    by_name, by_index = (np.asarray(Image.open(io.BytesIO(content))) for content in contents)
    assert np.array_equal(by_name, by_index)


def test_a_model_without_classes_has_a_dash_for_a_label(client: TestClient) -> None:
    answer = client.get("/images/plain/1/-/7.png")
    assert np.asarray(Image.open(io.BytesIO(answer.content))).shape == (SIDE, SIDE, 3)


def test_an_address_stays_when_another_version_goes_live(serve: Serve, repository: Repository) -> None:
    client = serve()
    before = client.get("/images/digits/1/1/7.png").content
    publish(repository, "digits", seed=9)
    assert client.get("/images/digits/2/1/7.png").content != before
    assert client.get("/images/digits/1/1/7.png").content == before


@pytest.mark.parametrize("seed", [0, 2**53 - 1])
def test_the_first_and_the_last_seed_have_images(client: TestClient, seed: int) -> None:
    assert client.get(f"/images/digits/1/0/{seed}.png").status_code == 200


@pytest.mark.parametrize("query", ["scale=2", "format=webp", "truncation=0.5&seed=3", "Truncation=0.5"])
def test_a_parameter_that_there_is_not_is_refused_and_not_passed_over(client: TestClient, query: str) -> None:
    answer = client.get(f"/images/digits/1/0/7.png?{query}")
    assert answer.status_code == 422
    assert "is no parameter of this call: expected truncation" in answer.json()["detail"]
