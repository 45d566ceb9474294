"""Class names of every kind, at every call that takes one: the name wins, and the answer says whose pictures it has."""

import io
import json
import zipfile
from urllib.parse import quote, unquote

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from ganserve import Generator
from ganserve.repository import Repository
from tests.service.conftest import Serve
from tests.tiny import card, network

# The tiny network knows three classes.
NUMBERS = ["1", "2", "3"]
NAMES = ["a, b", "\u732b", "cafe\u0301/au lait"]


@pytest.fixture
def named(serve: Serve, repository: Repository) -> TestClient:
    """Also serves ``numbers`` and ``names``; their networks are those of ``digits``."""
    for name, classes in (("numbers", NUMBERS), ("names", NAMES), ("words", ["one", "two", "three"])):
        repository.publish(card(name, classes=classes), network(), b"\x89PNG\r\n\x1a\nsamples")
        repository.promote(name, 1)
    return serve()


def pixels(content: bytes) -> list[object]:
    return list(np.asarray(Image.open(io.BytesIO(content))).tolist())


def by_index(client: TestClient, index: int) -> list[object]:
    """The picture of a class of the network, by a model whose names are words."""
    return pixels(client.get(f"/images/words/1/{index}/5.png").content)


@pytest.mark.parametrize(("name", "place"), [("1", 0), ("2", 1), ("3", 2)])
def test_numbers_are_names_by_every_call(named: TestClient, name: str, place: int) -> None:
    expected = by_index(named, place)
    asked: dict[str, str | int] = {"model": "numbers", "seed": 5, "padding": 0}
    for label in (name, int(name)):
        assert pixels(named.post("/generate", json=asked | {"label": label}).content) == expected
    assert pixels(named.get("/generate", params=asked | {"label": name}).content) == expected
    shown = Image.open(io.BytesIO(named.get(f"/images/numbers/1/{name}/5.png").content))
    assert shown.text["X-Label"] == name  # type: ignore[attr-defined]
    assert np.asarray(shown).tolist() == expected
    walk = named.get("/morph", params={"model": "numbers", "label": name, "from": 5, "to": 6})
    assert walk.headers["x-label"] == name
    frame = Image.open(io.BytesIO(walk.content)).convert("L")
    assert np.asarray(frame).tolist() == expected


@pytest.mark.parametrize("label", ["0", "4"])
def test_another_number_is_refused_with_the_names(named: TestClient, label: str) -> None:
    answers = [
        named.get(f"/generate?model=numbers&label={label}"),
        named.post("/generate", json={"model": "numbers", "label": int(label)}),
        named.get(f"/images/numbers/1/{label}/5.png"),
        named.get(f"/morph?model=numbers&label={label}&from=1&to=2"),
    ]
    for answer in answers:
        assert answer.status_code == 422
        assert "expected one of 1, 2, 3" in answer.json()["detail"]


@pytest.mark.parametrize(("name", "place"), [*zip(NAMES, range(3), strict=True), ("caf\u00e9/au lait", 2)])
def test_any_name_can_be_asked_for_and_is_told(named: TestClient, name: str, place: int) -> None:
    expected = by_index(named, place)
    asked: dict[str, str | int] = {"model": "names", "seed": 5, "padding": 0}
    answers = [
        named.get("/generate", params=asked | {"label": name}),
        named.post("/generate", json=asked | {"label": name}),
        named.get(f"/images/names/1/{quote(name, safe='')}/5.png"),
    ]
    for answer in answers:
        assert pixels(answer.content) == expected
        assert unquote(answer.headers["x-label"]) == NAMES[place]
    walk = named.get("/morph", params={"model": "names", "label": name, "from": 5, "to": 6})
    assert (walk.status_code, unquote(walk.headers["x-label"])) == (200, NAMES[place])


def test_where_a_name_has_a_comma_a_list_is_the_parameter_once_a_label(named: TestClient) -> None:
    listed = named.get("/generate", params={"model": "names", "label": ["a, b", "\u732b"], "format": "json"}).json()
    assert [image["label"] for image in listed["images"]] == [0, 1]
    refused = named.get("/generate?model=names&label=0,1")
    assert refused.status_code == 422
    assert "the parameter once a label" in refused.json()["detail"]


def test_labels_are_indices_with_the_names_beside(named: TestClient) -> None:
    asked = {"model": "numbers", "label": 3, "seed": 5}
    told = named.post("/generate", json=asked | {"format": "json"}).json()
    assert (told["images"][0]["label"], told["images"][0]["class"], told["class_names"]) == (2, "3", NUMBERS)
    arrays = np.load(io.BytesIO(named.post("/generate", json=asked | {"format": "npz"}).content))
    assert arrays["class_names"][arrays["labels"]].tolist() == ["3"]
    archive = zipfile.ZipFile(io.BytesIO(named.post("/generate", json=asked | {"format": "zip"}).content))
    assert json.loads(archive.read("manifest.json"))["class_names"] == NUMBERS


def test_addresses_that_are_told_lead_to_the_same_pictures(named: TestClient, repository: Repository) -> None:
    made = Generator(repository.root / "numbers").generate(["3", 1], seed=5)
    assert made.labels.tolist() == [2, 0]
    assert [pixels(named.get(address).content) for address in made.addresses] == made.images[..., 0].tolist()


def test_equal_addresses_are_equal_bytes_however_the_class_was_named(named: TestClient) -> None:
    by_name, by_number = (named.get(f"/images/words/1/{label}/5.png") for label in ("two", "1"))
    assert by_name.content == by_number.content
    assert by_name.headers["etag"] == by_number.headers["etag"]
