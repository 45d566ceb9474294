"""The front door: short ways answer as the long way does, and a proxy's prefix is no part of a question."""

import re
from collections.abc import Mapping

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError

from ganserve.settings import Settings
from service.api import generate
from service.front import Front
from tests.service.conftest import Serve, front_of

FAULTS = [
    ("GET", "/generate?label=nine&seed=1", None),
    ("GET", "/generate?model=nothing", None),
    ("GET", "/generate?seed=1&seeds=2", None),
    ("POST", "/generate", b"{"),
    ("POST", "/generate", b'{"n": 0}'),
]
GOOD = [("GET", "/generate?label=1&n=3&seed=4", None), ("POST", "/generate", b'{"label": 2, "seed": 4}')]


def without(answer_headers: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in answer_headers.items() if key != "x-request-id"}


@pytest.fixture
def long_way(client: TestClient) -> TestClient:
    """The same application, without a hot call."""
    front = front_of(client)
    made = TestClient(Front(front.app, front.state, {}), raise_server_exceptions=False)
    # On the event loop of the application's start.
    made.portal = client.portal
    return made


@pytest.mark.parametrize(("method", "path", "body"), GOOD + FAULTS)
def test_a_hot_call_is_answered_as_the_framework_would(
    client: TestClient, long_way: TestClient, method: str, path: str, body: bytes | None
) -> None:
    hot, usual = (each.request(method, path, content=body) for each in (client, long_way))
    assert (hot.status_code, hot.content) == (usual.status_code, usual.content)
    assert without(hot.headers) == without(usual.headers)


def test_the_hot_calls_do_not_enter_the_framework(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []
    usual = FastAPI.__call__

    async def watched(self: FastAPI, scope: dict[str, str], receive: object, send: object) -> None:
        entered.append(scope["path"])
        await usual(self, scope, receive, send)  # type: ignore[arg-type]

    monkeypatch.setattr(FastAPI, "__call__", watched)
    assert client.get("/generate?seed=1").status_code == 200
    assert client.post("/generate", json={"seed": 1}).status_code == 200
    assert client.head("/generate?seed=1").status_code == 200
    assert entered == []
    assert client.get("/health/live").status_code == 200
    assert entered == ["/health/live"]


def test_every_hot_call_is_documented(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for method, path in generate.HOT:
        assert method.lower() in paths[path]


def test_what_nobody_foresaw_is_500_with_the_request_id_on_the_long_way_too(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = front_of(client)
    monkeypatch.setattr(type(front.state.catalogue), "default", property(lambda self: 1 / 0))
    for path in ("/health/ready", "/generate", "/models"):
        answer = client.get(path, headers={"X-Request-Id": "mine-1"})
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
        assert "mine-1" in answer.json()["detail"]
        assert "division" not in answer.text


@pytest.fixture
def behind(serve: Serve) -> TestClient:
    """The application behind a proxy that offers it under /gan."""
    return serve(root_path="/gan/")


@pytest.mark.parametrize(
    "path", ["/generate?seed=1&label=1", "/images/digits/1/0/1.png", "/health/live", "/v2/models/nothing", "/", "/no"]
)
def test_a_path_is_answered_with_the_prefix_and_without(behind: TestClient, path: str) -> None:
    plain, prefixed = behind.get(path), behind.get("/gan" + path)
    assert (plain.status_code, plain.content) == (prefixed.status_code, prefixed.content)
    assert without(plain.headers) == without(prefixed.headers)


def test_the_prefix_alone_is_the_page_and_a_longer_name_is_another(behind: TestClient) -> None:
    assert behind.get("/gan").headers["content-type"] == "text/html; charset=utf-8"
    assert behind.get("/gander/generate").status_code == 404


def test_the_document_and_its_page_name_the_prefix(behind: TestClient, client: TestClient) -> None:
    assert behind.get("/openapi.json").json()["servers"][0] == {"url": "/gan"}
    # Whatever it loads is beside it, under whichever path it was asked for.
    assert re.findall(r'(?:src|href)="([^"]*)"', behind.get("/gan/docs").text)
    assert not re.findall(r'(?:src|href)="(?:/|\w+:)', behind.get("/gan/docs").text)
    assert "servers" not in client.get("/openapi.json").json()


@pytest.mark.parametrize("wrong", ["gan", "/gan//", "//host", "/a b", "/"])
def test_a_prefix_is_a_path(wrong: str) -> None:
    with pytest.raises(ValidationError):
        Settings(root_path=wrong)


def test_memory_knows_a_question_under_both_paths(behind: TestClient) -> None:
    tag = behind.get("/generate?seed=3").headers["etag"]
    front = front_of(behind)
    assert behind.get("/generate?seed=3", headers={"If-None-Match": tag}).status_code == 304
    before = len(front.state.remembered._entries)
    assert behind.get("/gan/generate?seed=3", headers={"If-None-Match": tag}).status_code == 304
    assert len(front.state.remembered._entries) == before
