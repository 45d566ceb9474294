"""Issue by issue: each wrong request is a 4xx that says what would be right."""

import pytest
from fastapi.testclient import TestClient

from ganserve.latents import MAX_SEED
from tests.service.conftest import ADMIN, Serve

PROBLEM = "application/problem+json"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"label": 3}, 422, ["0 to 2", "zero, one, two"]),
        ({"label": -1}, 422, ["0 to 2"]),
        ({"label": "seven"}, 422, ["'seven'", "zero, one, two"]),
        ({"label": True}, 422, ["label"]),
        ({"label": 1.5}, 422, ["label"]),
        ({"label": []}, 422, ["label"]),
        ({"label": [0, 1, 2], "n": 2}, 422, ["3 labels", "2 images"]),
        ({"model": "plain", "label": 0}, 422, ["no classes", "leave label out"]),
        ({"n": 0}, 422, ["n", "greater than or equal to 1"]),
        ({"n": -1}, 422, ["n", "greater than or equal to 1"]),
        ({"n": 1025}, 422, ["at most 1024"]),
        ({"n": "4"}, 422, ["n", "integer"]),
        ({"n": None, "seeds": []}, 422, ["seeds"]),
        ({"seed": -1}, 422, ["seed"]),
        ({"seed": MAX_SEED}, 422, ["seed", str(MAX_SEED)]),
        ({"seed": 1.5}, 422, ["seed"]),
        ({"seeds": [1, MAX_SEED]}, 422, ["seeds.1"]),
        ({"seeds": [1, 2], "n": 3}, 422, ["n is 3", "2 seeds"]),
        ({"seeds": [1, 2], "seed": 1}, 422, ["exclude each other"]),
        ({"model": "nope"}, 404, ["'nope'", "digits, plain"]),
        ({"model": "../digits"}, 404, ["digits, plain"]),
        ({"model": "nope", "version": 1}, 404, ["digits, plain"]),
        ({"version": 9}, 404, ["no version 9", "there are 1"]),
        ({"version": 0}, 422, ["version"]),
        ({"format": "gif"}, 422, ["format", "'png'", "'npz'"]),
        ({"lable": 3}, 422, ["lable", "unknown field", "label, model"]),
        ({"columns": 0}, 422, ["columns"]),
        ({"padding": 65}, 422, ["padding"]),
        ({"scale": 0}, 422, ["scale"]),
        ({"n": 1024, "scale": 32, "columns": 32}, 422, ["pixels"]),
        ({"n": 1000, "columns": 1, "scale": 4, "format": "webp"}, 422, ["WebP"]),
        ([1, 2], 422, ["object"]),
    ],
)
def test_a_wrong_request_is_refused_with_what_would_be_right(
    client: TestClient, body: object, status: int, words: list[str]
) -> None:
    answer = client.post("/generate", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM
    document = answer.json()
    assert document["status"] == status
    for word in words:
        assert word in document["detail"]


@pytest.mark.parametrize(
    "query", ["n=x", "n=1&n=2", "seed=1.5", "n=", "seeds=1,,2", "foo=1", "n=٣", "version=1_0"]
)
def test_a_wrong_query_is_refused_alike(client: TestClient, query: str) -> None:
    answer = client.get(f"/generate?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == PROBLEM


@pytest.mark.parametrize("body", [b'{"label":', b"\xff\xfe", b"label=3", b'{"n": 1} x'])
def test_broken_json_is_400(client: TestClient, body: bytes) -> None:
    answer = client.post("/generate", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "not JSON" in answer.json()["detail"]


def test_a_wrong_content_type_is_415(client: TestClient) -> None:
    answer = client.post("/generate", content=b"<n>1</n>", headers={"Content-Type": "application/xml"})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]


def test_nothing_acceptable_is_406(client: TestClient) -> None:
    answer = client.get("/generate", headers={"Accept": "text/html"})
    assert answer.status_code == 406
    assert "image/png" in answer.json()["detail"]


@pytest.mark.parametrize("chunked", [False, True])
def test_an_oversized_body_is_413(serve: Serve, chunked: bool) -> None:
    client = serve(max_body_bytes=2048)
    content = b" " * 4096
    answer = client.post("/generate", content=iter([content]) if chunked else content)
    assert answer.status_code == 413
    assert "2048" in answer.json()["detail"]
    assert answer.headers["content-type"] == PROBLEM


def test_an_unknown_path_and_a_wrong_method_are_problems_too(client: TestClient) -> None:
    missing = client.get("/nope")
    assert (missing.status_code, missing.headers["content-type"]) == (404, PROBLEM)
    wrong = client.delete("/generate")
    assert (wrong.status_code, wrong.headers["content-type"]) == (405, PROBLEM)
    assert {"GET", "POST"} <= set(wrong.headers["allow"].replace(" ", "").split(","))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/images/digits/1/3/1.png", 422),
        ("/images/digits/1/-/1.png", 422),
        ("/images/plain/1/0/1.png", 404),
        ("/images/digits/2/0/1.png", 404),
        ("/images/nope/1/0/1.png", 404),
        ("/images/digits/live/0/1.png", 422),
        (f"/images/digits/1/0/{MAX_SEED}.png", 422),
        ("/images/digits/1/0/-1.png", 422),
        ("/images/digits/1/0/abc.png", 422),
    ],
)
def test_an_address_that_names_nothing_is_refused(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/models/{}"),
        ("GET", "/models/{}/1"),
        ("GET", "/models/{}/1/report"),
        ("PUT", "/models/{}/live"),
        ("DELETE", "/models/{}/1"),
        ("GET", "/images/{}/1/0/1.png"),
        ("GET", "/v2/models/{}"),
        ("GET", "/v2/models/{}/ready"),
        ("POST", "/v2/models/{}/infer"),
        ("POST", "/v2/repository/models/{}/load"),
        ("POST", "/v2/repository/models/{}/unload"),
    ],
)
def test_a_name_longer_than_any_is_not_found_and_not_remembered(client: TestClient, method: str, path: str) -> None:
    asked = {"version": 1} if method in ("POST", "PUT") else None
    for length in (200, 300, 5000):
        answer = client.request(method, path.format("a" * length), headers=ADMIN, json=asked)
        assert answer.status_code == 404
        assert "digits, plain" in answer.text
    assert client.get("/health/ready").json()["left_out"] == {}


@pytest.mark.parametrize("path", ["/generate?model=digits&", "/morph?from=1&to=2&", "/datasets/synthetic?"])
def test_a_version_of_any_length_is_not_found(client: TestClient, path: str) -> None:
    for version in ("9" * 19, str(2**31 + 1), *(() if "generate" in path else ("9" * 300, "9" * 4000))):
        assert client.get(f"{path}version={version}").status_code == 404
    assert client.post("/generate", content=b'{"version": %b}' % (b"9" * 300)).status_code == 404
