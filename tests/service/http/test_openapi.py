"""The OpenAPI document tells the truth: what it says of each call is run, out of the document.

python -m tests.service.http.test_openapi    records the answers that the document shows
"""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from pydantic import SecretStr

from ganserve.settings import Settings
from service.app import create_app
from service.http import openapi
from service.state import Phase
from tests.service.conftest import state_of

ADMIN, USER = "admin-secret", "user-secret"
SHIPPED = Path(__file__).parents[3] / "models"
MODELS = ("mnist-projgan", "mnist-dcgan-gap", "cifar10-projgan")
# What a request alone cannot bring about; there are tests of each of them elsewhere.
BY_STATE = {"410", "429", "501", "503", "504", "507"}
# What has other conditions than a request: a damaged file, a job that has ended, a data set that a job needs, a model
# that nothing else of the document names.
NOT_SHOWN = {
    ("PUT", "/models/{name}/live", "409"),
    ("DELETE", "/models/{name}/{version}", "204"),
    ("DELETE", "/models/{name}/{version}", "409"),
    ("DELETE", "/datasets/{name}", "409"),
    ("GET", "/jobs/{job_id}/samples.png", "200"),
    ("GET", "/datasets/{name}/samples.png", "200"),
    ("GET", "/v2/health/ready", "400"),
    ("GET", "/v2/models/{name}/ready", "400"),
}
# Longer lists of numbers are cut where they are recorded.
MOST_NUMBERS = 8


class Curl(NamedTuple):
    """A curl line, read."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None
    file: str | None

    @classmethod
    def read(cls, line: str, files: dict[str, bytes]) -> Curl:
        words = iter(shlex.split(line.replace("$GANSERVE_ADMIN_TOKEN", ADMIN)))
        assert next(words) == "curl"
        method = url = file = body = None
        headers = {}
        for word in words:
            if word == "-X":
                method = next(words)
            elif word == "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            elif word in ("-d", "--data-binary"):
                given = next(words)
                body = files[given[1:]] if given.startswith("@") else given.encode()
            elif word == "-o":
                file = next(words)
            elif word == "-OJ":
                file = ""
            elif word == "-I":
                method = "HEAD"
            elif word != "-N":
                assert word.startswith("http://127.0.0.1:8000/"), word
                assert url is None
                url = word.removeprefix("http://127.0.0.1:8000")
        assert url is not None
        return cls(method or ("GET" if body is None else "POST"), url, headers, body, file)

    def send(self, client: TestClient, files: dict[str, bytes]) -> Response:
        answer: Any = client.request(self.method, self.url, headers=self.headers, content=self.body)
        if self.file:
            files[self.file] = answer.content
        return answer  # type: ignore[no-any-return]


@contextmanager
def service(folder: Path, **changes: Any) -> Iterator[TestClient]:
    """The application over some of the shipped models, as the samples expect it."""
    for name in MODELS:
        shutil.copytree(SHIPPED / name, folder / "models" / name)
    settings = Settings(
        models=folder / "models", data=folder / "var", device="cpu", admin_token=SecretStr(ADMIN), **changes
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


class Answered(NamedTuple):
    """A sample of the document, and what came."""

    method: str
    path: str
    what: str
    promised: int
    curl: Curl
    answer: Response


def run_all(client: TestClient) -> list[Answered]:
    """Every sample, in the document's order."""
    files: dict[str, bytes] = {}
    made = []
    for method, path, operation in openapi.operations(client.get("/openapi.json").json()):
        for sample in operation["x-codeSamples"]:
            status, _, what = sample["label"].partition(": ")
            curl = Curl.read(sample["source"], files)
            made.append(Answered(method, path, what, int(status), curl, curl.send(client, files)))
    return made


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        document: dict[str, Any] = create_app(Settings(models=SHIPPED, data=Path(folder))).app.openapi()
    return document


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Answered]]:
    with service(tmp_path_factory.mktemp("reference")) as client:
        yield run_all(client)


def test_every_call_of_the_document_gets_the_status_that_stands_beside_it(answered: list[Answered]) -> None:
    for method, path, what, promised, curl, answer in answered:
        assert answer.status_code == promised, (method, path, what, answer.text[:300])
        assert curl.method == method


def test_what_comes_is_of_a_type_that_the_document_names(document: dict[str, Any], answered: list[Answered]) -> None:
    for method, path, _, promised, _, answer in answered:
        told = document["paths"][path][method.lower()]["responses"][str(promised)].get("content", {})
        kind = answer.headers.get("content-type", "").partition(";")[0]
        assert kind in {media.partition(";")[0] for media in told} or not answer.content, (method, path, kind, told)


def test_each_operation_is_described_and_shows_a_call_for_each_status_that_a_request_can_bring_about(
    document: dict[str, Any],
) -> None:
    found = list(openapi.operations(document))
    assert openapi.recorded().keys() <= {f"{method} {path}" for method, path, _ in found}
    for method, path, operation in found:
        assert operation["summary"]
        assert len(operation["description"].partition("```")[0].strip()) > 10, (method, path)
        shown = {sample["label"].partition(":")[0] for sample in operation["x-codeSamples"]}
        promised = set(operation["responses"])
        assert shown <= promised
        left = promised - shown - BY_STATE - {"401", "403", "413"}
        assert {(method, path, status) for status in left} <= NOT_SHOWN
        for response in operation["responses"].values():
            assert response["description"]


def test_every_json_body_and_answer_has_an_example(document: dict[str, Any]) -> None:
    for method, path, operation in openapi.operations(document):
        request = operation.get("requestBody", {})
        if request.get("required") and "application/json" in request["content"]:
            assert request["content"]["application/json"]["examples"], (method, path)
        shown = {sample["label"].partition(":")[0] for sample in operation["x-codeSamples"]}
        for status in shown & set(operation["responses"]):
            for media, content in operation["responses"][status].get("content", {}).items():
                # An empty schema stands for what comes without a body.
                if media.endswith("json") and content["schema"]:
                    assert content["examples"], (method, path, status, media)


def test_the_answers_that_the_document_shows_are_those_that_come(answered: list[Answered]) -> None:
    """Times, ids and measurements differ from run to run; the names of what is told do not."""
    for method, path, what, promised, _, answer in answered:
        if answer.headers.get("content-type", "").endswith("json"):
            shown = openapi.recorded()[f"{method} {path}"][str(promised)][what]
            assert shape(shown) == shape(cut(answer.json())), (method, path, what)


def test_the_roles_are_those_that_the_document_tells(tmp_path: Path) -> None:
    with service(tmp_path, token=SecretStr(USER)) as client:
        for method, path, operation in openapi.operations(client.get("/openapi.json").json()):
            curl = Curl.read(operation["x-codeSamples"][0]["source"], {"letters.zip": b"", "three.png": b""})
            told = {code for code in ("401", "403") if code in operation["responses"]}
            assert operation["security"] == [[], [{}, {"token": []}], [{"token": []}]][len(told)]
            came = set()
            for headers in ({}, {"Authorization": f"Bearer {USER}"}):
                answer = client.request(method, curl.url, headers=headers, content=b"")
                came.add(str(answer.status_code))
            assert came & {"401", "403"} == told, (method, path)


def test_who_starts_stops_or_is_sent_too_much_says_so_where_the_document_does(tmp_path: Path) -> None:
    with service(tmp_path) as client:
        document = client.get("/openapi.json").json()
        admin = {"Authorization": f"Bearer {ADMIN}"}
        for method, path, operation in openapi.operations(document):
            curl = Curl.read(operation["x-codeSamples"][0]["source"], {"letters.zip": b"", "three.png": b""})
            if "413" in operation["responses"]:
                told = {**admin, "Content-Length": str(10**15), "Content-Type": curl.headers.get("Content-Type", "")}
                assert client.request(method, curl.url, headers=told, content=b"x").status_code == 413, (method, path)
        state_of(client).phase = Phase.DRAINING
        for method, path, operation in openapi.operations(document):
            curl = Curl.read(operation["x-codeSamples"][0]["source"], {"letters.zip": b"", "three.png": b""})
            answer = client.request(method, curl.url, headers=admin | curl.headers, content=curl.body)
            assert str(answer.status_code) in operation["responses"], (method, path, answer.status_code)


def cut(value: Any) -> Any:
    """The same with long lists of numbers cut short."""
    if isinstance(value, dict):
        return {name: cut(inner) for name, inner in value.items()}
    if isinstance(value, list):
        numbers = all(isinstance(inner, int | float) for inner in value)
        return [cut(inner) for inner in (value[:MOST_NUMBERS] if numbers else value)]
    return value


def shape(value: Any) -> Any:
    """The names in a document, without what stands there."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None


def record() -> None:
    """Write the answers of all samples for the document to show."""
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as client:
        for method, path, what, promised, _, answer in run_all(client):
            if answer.headers.get("content-type", "").endswith("json"):
                statuses = told.setdefault(f"{method} {path}", {})
                statuses.setdefault(str(promised), {})[what] = cut(answer.json())
    target = Path(openapi.__file__).with_name("reference.json")
    target.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
