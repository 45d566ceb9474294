"""Truncation scales latents, is part of the address wherever one is told, and changes nothing where it is 1."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from ganserve.card import ModelCard
from ganserve.grid import grid_latents
from ganserve.latents import RECIPES, latents
from ganserve.repository import Repository
from ganserve.settings import Settings
from service.app import create_app
from service.inference.rows import Rows
from service.morph import walk
from tests.engines import DummyEngine
from tests.tiny import card

SHIPPED = Path(__file__).parents[3] / "models"
EXACT, FLOAT = "model=mnist-projgan&version=5", "model=mnist-projgan&version=1"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The application on the shipped models, of which one is exact."""
    settings = Settings(models=SHIPPED, data=tmp_path_factory.mktemp("var"), device="cpu", lanes=2)
    with TestClient(create_app(settings)) as client:
        yield client


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def of_graph(card: ModelCard, content: bytes, latent: np.ndarray, label: int) -> np.ndarray:
    """What the network makes of latents, without the service."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    label_of_each = np.full((len(latent), 1), label, np.int64)
    made: np.ndarray = session.run(None, {"latent": latent, "label": label_of_each})[0]
    return made


@pytest.mark.parametrize("recipe", RECIPES)
def test_latents_are_scaled_and_those_of_a_grid_stay_on_it(recipe: str) -> None:
    whole, scaled = latents(recipe, [7, 8], 100), latents(recipe, [7, 8], 100, 70)
    if "grid" in recipe:
        step = 32 if recipe == "philox-grid/v1" else 128
        k = np.rint(whole * step).astype(int)
        # Halves away from zero, in whole numbers.
        expected = [int(np.sign(one)) * ((abs(int(one)) * 70 * 2 + 100) // 200) for one in k.ravel()]
        assert np.rint(scaled * step).astype(int).ravel().tolist() == expected
        assert np.array_equal(scaled * step, np.rint(scaled * step))
    else:
        assert np.array_equal(scaled, whole * np.float32(0.7))
    assert np.array_equal(latents(recipe, [7, 8], 100, 100), whole)
    for wrong in (0, 101):
        with pytest.raises(ValueError, match="out of range"):
            latents(recipe, [7], 4, wrong)


@pytest.mark.parametrize("version", [1, 5])
def test_an_image_is_what_the_graph_makes_of_the_scaled_latent(shipped: TestClient, version: int) -> None:
    card, content = Repository(SHIPPED).read("mnist-projgan", version)
    latent = latents(card.latent_recipe, [42, 43], card.z, 70)
    expected = of_graph(card, content, latent, 3)[..., 0]
    for index, seed in enumerate((42, 43)):
        found = pixels(shipped.get(f"/images/mnist-projgan/{version}/3/{seed}.png?truncation=0.7").content)
        assert np.array_equal(found, expected[index])
    grid = shipped.get(f"/generate?version={version}&label=3&seed=42&n=2&padding=0&truncation=0.70").content
    assert np.array_equal(pixels(grid), np.concatenate(list(expected), axis=1))


@pytest.mark.parametrize(
    "place", [f"/generate?{EXACT}&label=3&n=4&seed=42", f"/generate?{FLOAT}&n=3&seed=1&format=npz",
              "/images/mnist-projgan/5/3/42.png?", "/morph?label=3&from=1&to=2", f"/datasets/synthetic?{EXACT}&n=9"]
)  # fmt: skip
def test_a_truncation_of_one_changes_no_byte_and_no_entity_tag_and_another_changes_both(
    shipped: TestClient, place: str
) -> None:
    plain = shipped.get(place)
    for one in ("1", "1.0", "1.00"):
        told = shipped.get(f"{place}&truncation={one}")
        assert (told.content, told.headers["etag"]) == (plain.content, plain.headers["etag"])
        assert "x-truncation" not in told.headers
    other = shipped.get(f"{place}&truncation=.5")
    assert other.status_code == 200, other.text
    assert other.headers["x-truncation"] == "0.5"
    assert other.headers["etag"] != plain.headers["etag"]
    assert other.content != plain.content
    again = shipped.get(f"{place}&truncation=0.50", headers={"If-None-Match": other.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("wrong", ["0", "-0.5", "1.01", "0.123", "nan", "inf", "1e-2", "half", "", "0.0000000001"])
def test_what_is_no_truncation_is_refused_with_what_would_be_right(shipped: TestClient, wrong: str) -> None:
    image = "/images/mnist-projgan/5/3/42.png?"
    for place in ("/generate?seed=1", image, "/morph?from=1&to=2", "/datasets/synthetic?n=1"):
        answer = shipped.get(f"{place}&truncation={wrong}")
        # One hundredth, in the notation that the framework reads too.
        if wrong == "1e-2" and not place.startswith("/generate"):
            assert answer.status_code == 200
            continue
        assert answer.status_code == 422, (place, wrong)
        assert "truncation" in answer.json()["detail"]


@pytest.mark.parametrize("wrong", [0, 1.5, 0.123, "0.5", True, [0.5]])
def test_a_body_takes_numbers_of_whole_hundredths_alone(shipped: TestClient, wrong: Any) -> None:
    answer = shipped.post("/generate", json={"seed": 1, "truncation": wrong})
    assert answer.status_code == 422
    assert "truncation" in answer.json()["detail"]
    for right in (0.01, 0.29, 0.57, 1, 1.0):
        assert shipped.post("/generate", json={"seed": 1, "truncation": right}).status_code == 200


def test_every_format_tells_it(shipped: TestClient) -> None:
    query = f"{EXACT}&n=3&seed=1&truncation=0.7"
    png = Image.open(io.BytesIO(shipped.get(f"/generate?{query}").content))
    assert png.info["X-Truncation"] == "0.7"
    assert "truncation=0.7" in png.info["Address"]
    assert shipped.get(f"/generate?{query}&format=json").json()["truncation"] == 0.7
    with zipfile.ZipFile(io.BytesIO(shipped.get(f"/generate?{query}&format=zip").content)) as archive:
        assert json.loads(archive.read("manifest.json"))["truncation"] == 0.7
    with np.load(io.BytesIO(shipped.get(f"/generate?{query}&format=npz").content)) as arrays:
        assert "truncation=0.7" in arrays["address"].item()
    with tarfile.open(fileobj=io.BytesIO(shipped.get(f"/datasets/synthetic?{query}&format=tar").content)) as archive_:
        row = json.loads(archive_.extractfile("000000001.json").read())  # type: ignore[union-attr]
        tile = archive_.extractfile("000000001.png").read()  # type: ignore[union-attr]
    assert row["truncation"] == 0.7
    # The row stands at its address.
    assert np.array_equal(pixels(shipped.get(row["address"]).content), pixels(tile))


@pytest.mark.parametrize("version", [1, 5])
def test_a_truncated_picture_verifies_and_is_not_the_whole_one(shipped: TestClient, version: int) -> None:
    for place in (
        f"/images/mnist-projgan/{version}/3/42.png?truncation=0.6",
        f"/generate?version={version}&n=5&seed=1&truncation=.6&format=webp",
    ):
        content = shipped.get(place).content
        told = shipped.post("/verify", content=content).json()
        assert told["verdict"] == "match"
        assert "truncation=0.6" in told["address"]
    other = shipped.post(f"/verify?version={version}&label=3&seed=42&n=1", content=shipped.get(
        f"/images/mnist-projgan/{version}/3/42.png?truncation=0.6").content)  # fmt: skip
    assert other.json()["verdict"] == "differs"


def test_requests_of_several_truncations_share_a_run_and_each_gets_its_own() -> None:
    engine = DummyEngine(card("m", latent_recipe="philox-grid/v1"))
    seeds, labels = np.array([3, 4], np.uint64), np.array([0, 1])
    parts = [Rows(seeds, labels, None, truncation) for truncation in (None, 70, 70)]
    joined = Rows.together(parts, engine)
    assert np.array_equal(joined.latents(engine), np.concatenate([part.latents(engine) for part in parts]))
    assert Rows.together(parts[1:], engine).truncation == 70
    assert parts[1].part(0, 1).truncation == 70


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_truncated_walk_begins_and_ends_at_the_truncated_latents(recipe: str) -> None:
    path = walk(recipe, 3, 9, 100, 7, 40)
    assert np.array_equal(path[[0, -1]], latents(recipe, [3, 9], 100, 40))
    assert np.linalg.norm(path[3]) < 0.5 * np.linalg.norm(walk(recipe, 3, 9, 100, 7)[3])
    if "grid" in recipe:
        step = 32 if recipe == "philox-grid/v1" else 128
        assert np.array_equal(path * step, np.rint(path * step))
        assert np.array_equal(path[0], grid_latents(recipe, [3], 100, 40)[0])


def test_the_tag_of_a_walk_is_weak_also_where_the_version_is_exact(shipped: TestClient) -> None:
    for version in (1, 5):
        answer = shipped.get(f"/morph?version={version}&label=3&from=1&to=2&truncation=.5")
        assert answer.headers["etag"].startswith('W/"')
