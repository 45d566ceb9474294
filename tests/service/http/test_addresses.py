"""Addresses in answers follow from the settings, never from a client; and what every answer says."""

import pytest
from fastapi.testclient import TestClient

from ganserve.repository import Repository
from tests.service.conftest import ADMIN, Serve

EVIL = {
    "Host": "evil.example",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "host=evil",
}
PATHS = ["/", "/docs", "/generate?seed=1", "/models/digits", "/nothing", "/health/live", "/v2"]


def test_a_slash_too_many_leads_on_without_the_hosts_name(client: TestClient, serve: Serve) -> None:
    moved = client.get("/models/?a=1", headers=EVIL, follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (307, "/models?a=1")
    behind = serve(root_path="/gan")
    for path in ("/models/", "/gan/models/"):
        assert behind.get(path, follow_redirects=False).headers["location"] == "/gan/models"
    assert client.get("http://testserver//models/", follow_redirects=False).status_code == 404


def test_places_begin_with_the_prefix(serve: Serve) -> None:
    behind = serve(root_path="/gan")
    asked = {"model": "letters", "recipe": "projgan", "dataset": "digits", "images": 1000}
    for _ in range(2):
        made = behind.post("/jobs", json=asked, headers=ADMIN | EVIL)
        assert made.headers["location"] == f"/gan/jobs/{made.json()['id']}"
    page = behind.get("/gan/jobs?limit=1", headers=ADMIN | EVIL).json()
    assert page["next"] == "/gan/jobs?limit=1&offset=1"
    assert behind.get(page["next"], headers=ADMIN).status_code == 200


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/generate", "GET, HEAD, OPTIONS, POST"),
        ("/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/models/digits", "GET, HEAD, OPTIONS"),
        ("/v2/models/digits/infer", "OPTIONS, POST"),
    ],
)
def test_options_tells_what_is_possible_as_a_405_does(client: TestClient, path: str, allowed: str) -> None:
    told = client.options(path)
    assert (told.status_code, told.headers["allow"], told.content) == (204, allowed, b"")
    wrong = client.patch(path)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, allowed)
    assert client.options("/nothing").status_code == 404


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_forbids_guessing_its_kind_once(client: TestClient, path: str) -> None:
    for method in ("GET", "HEAD", "PATCH"):
        assert client.request(method, path, headers=EVIL).headers.get_list("x-content-type-options") == ["nosniff"]


def test_no_header_of_a_client_is_in_an_answer_that_is_kept(client: TestClient) -> None:
    for path in ("/", "/docs", "/openapi.json", "/generate?seed=1", "/models/digits"):
        answer = client.get(path, headers=EVIL)
        assert b"evil" not in answer.content
        assert "evil" not in str(answer.headers)


@pytest.mark.parametrize("path", ["/", "/docs", "/page/docs.js"])
def test_pages_may_load_nothing_but_what_this_service_gives(client: TestClient, path: str) -> None:
    assert client.get(path).headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")


def test_a_sheet_of_samples_may_load_nothing(client: TestClient, repository: Repository) -> None:
    (repository.root / "digits" / "1" / "samples.png").write_bytes(b"a sheet")
    answer = client.get("/models/digits/1/samples.png")
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
