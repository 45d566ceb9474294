import re

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from starlette.types import Scope

from ganserve.repository import Repository
from service.http import revalidation
from service.state import Phase
from tests.service.conftest import ADMIN, USER, Dummies, Serve, front_of, state_of
from tests.service.observe.test_metrics import value
from tests.tiny import publish

QUERY = "/generate?label=1&n=2&seed=4"


@pytest.fixture
def client(serve: Serve, dummies: Dummies) -> TestClient:
    return serve(open_engine=dummies)


def remember(client: TestClient, query: str = QUERY) -> dict[str, str]:
    """Ask twice, so that the third answer comes from memory; its header."""
    told = {"If-None-Match": client.get(query).headers["etag"]}
    assert client.get(query, headers=told).status_code == 304
    return told


def remembered(client: TestClient, monkeypatch: pytest.MonkeyPatch, query: str, told: dict[str, str]) -> bool:
    """Whether the answer to a question comes from memory; it is the same as the usual way's in any case."""
    found: list[object] = []
    memory = front_of(client).remembered
    assert memory is not None
    find = memory.find

    def noted(scope: Scope) -> object:
        found.append(find(scope))
        return found[-1]

    with monkeypatch.context() as patched:
        patched.setattr(memory, "find", noted)
        ours = client.get(query, headers=told)
        patched.setattr(memory, "find", lambda scope: None)
        usual = client.get(query, headers=told)
    assert (ours.status_code, ours.content) == (usual.status_code, usual.content)
    headers = [{k: v for k, v in answer.headers.items() if k != "x-request-id"} for answer in (ours, usual)]
    assert headers[0] == headers[1]
    return found != [None]


@pytest.mark.parametrize("query", [QUERY, "/generate?version=1&seed=2", "/images/digits/1/two/7.png"])
def test_a_repeated_304_comes_from_memory_as_the_usual_way_tells_it(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    told = {"If-None-Match": client.get(query).headers["etag"]}
    assert not remembered(client, monkeypatch, query, told)
    assert remembered(client, monkeypatch, query, told)
    assert not remembered(client, monkeypatch, query, {"If-None-Match": '"another"'})


def test_another_format_is_another_question(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    told = remember(client)
    assert not remembered(client, monkeypatch, QUERY, told | {"Accept": "application/json"})


def test_what_was_remembered_ends_with_the_live_version(
    client: TestClient, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = remember(client)
    publish(repository, "digits", seed=5, live=False)
    assert client.put("/models/digits/live", json={"version": 2}, headers=ADMIN).status_code == 200
    assert not remembered(client, monkeypatch, QUERY, told)
    assert client.get(QUERY, headers=told).status_code == 200


def test_what_was_remembered_ends_when_the_model_is_withdrawn(client: TestClient) -> None:
    told = remember(client)
    assert client.post("/v2/repository/models/digits/unload", headers=ADMIN).status_code == 200
    assert client.get(QUERY, headers=told).status_code == 404


def test_a_draining_server_answers_503_to_what_it_remembers(client: TestClient) -> None:
    told = remember(client)
    state_of(client).phase = Phase.DRAINING
    assert client.get(QUERY, headers=told).status_code == 503


def test_memory_is_for_those_who_may_ask(serve: Serve, dummies: Dummies) -> None:
    client = serve(open_engine=dummies, token=SecretStr("user-secret"))
    told = {"If-None-Match": client.get(QUERY, headers=USER).headers["etag"]}
    for _ in range(2):
        assert client.get(QUERY, headers=told | USER).status_code == 304
    assert client.get(QUERY, headers=told).status_code == 401
    assert client.get(QUERY, headers=told | {"Authorization": "Bearer other"}).status_code == 401


def test_answers_from_memory_are_counted_and_carry_a_request_id(client: TestClient) -> None:
    told = remember(client)
    labels = {"route": "/generate", "method": "GET", "status": "304"}
    before = value(client, "ganserve_requests_total", **labels)
    timed = value(client, "ganserve_request_seconds_count", route="/generate")
    answers = [client.get(QUERY, headers=told | {"X-Request-Id": told_id}) for told_id in ("mine", "not valid!")]
    assert answers[0].headers["x-request-id"] == "mine"
    assert re.fullmatch("[0-9a-f]{32}", answers[1].headers["x-request-id"])
    assert value(client, "ganserve_requests_total", **labels) == before + 2
    assert value(client, "ganserve_request_seconds_count", route="/generate") == timed + 2


def test_memory_is_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revalidation, "MOST", 3)
    for seed in range(6):
        remember(client, f"/generate?seed={seed}")
    remember(client, "/generate?seed=1&label=" + ",".join(["1"] * 600) + "&n=600")
    memory = state_of(client).remembered
    assert len(memory._entries) == 3


def test_where_every_request_is_logged_nothing_is_skipped(serve: Serve, dummies: Dummies) -> None:
    assert front_of(serve(open_engine=dummies, access_log=True)).remembered is None
