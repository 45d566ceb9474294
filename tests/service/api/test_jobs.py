"""``/jobs`` over HTTP: admins only, answers at once, errors in words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from ganserve.repository import Repository
from ganserve.settings import Settings
from service.api import jobs
from service.http import errors
from service.http.auth import Auth
from service.inference.catalogue import Catalogue
from service.jobs import JobStore
from service.state import Phase, State
from service.uploads import Uploads

ADMIN = {"Authorization": "Bearer admin"}
BODY = {"model": "m", "recipe": "tiny", "dataset": "digits", "images": 1000}
BOUNDS = {"tiny": {"overrides": {"batch": {"type": "int", "min": 2, "max": 64, "default": 8}}}}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    app = FastAPI()
    app.include_router(jobs.router)
    errors.install(app)
    settings = Settings(data=tmp_path, models=tmp_path / "models")
    app.state = State(  # type: ignore[assignment]
        settings=settings,
        auth=Auth.of(SecretStr("user"), SecretStr("admin")),
        catalogue=Catalogue(Repository(settings.models)),
        jobs=JobStore(settings.jobs_url, bounds=BOUNDS, queue_limit=3),
        uploads=Uploads(tmp_path / "datasets"),
    )
    yield app
    app.state.jobs.close()


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def post(client: TestClient, headers: dict[str, str] | None = None, **more: Any) -> Any:
    return client.post("/jobs", json={**BODY, **more}, headers={**ADMIN, **(headers or {})})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/jobs"),
        ("GET", "/jobs"),
        ("GET", "/jobs/x"),
        ("GET", "/jobs/x/events"),
        ("GET", "/jobs/x/samples.png"),
        ("DELETE", "/jobs/x"),
    ],
)
def test_every_call_needs_the_admin_token(client: TestClient, method: str, path: str) -> None:
    nobody = client.request(method, path)
    assert nobody.status_code == 401
    assert "Bearer" in nobody.headers["WWW-Authenticate"]
    assert client.request(method, path, headers={"Authorization": "Bearer user"}).status_code == 403


def test_a_job_is_accepted_with_its_place_and_says_that_no_worker_is_running(client: TestClient) -> None:
    answer = post(client)
    assert answer.status_code == 202
    job = answer.json()
    assert job["state"] == "queued"
    assert "make worker" in job["note"]
    read = client.get(answer.headers["Location"], headers=ADMIN)
    assert read.json() == job


def test_with_a_worker_alive_there_is_nothing_to_note(client: TestClient, app: FastAPI) -> None:
    job = post(client).json()
    import time

    engine = sa.create_engine(app.state.jobs.url)
    with engine.begin() as connection:
        row = {"now": time.time()}
        connection.execute(sa.text("INSERT INTO ganserve_workers VALUES ('w', 'host', 1, :now)"), row)
    engine.dispose()
    assert client.get(f"/jobs/{job['id']}", headers=ADMIN).json()["note"] is None
    assert client.get("/jobs", headers=ADMIN).json()["workers"] == ["w"]


def test_the_same_key_never_makes_two_jobs(client: TestClient) -> None:
    first, second = (post(client, {"Idempotency-Key": "k"}) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    other = post(client, {"Idempotency-Key": "k"}, images=5)
    assert other.status_code == 409
    assert "new key" in other.json()["detail"]


def test_a_full_queue_answers_429_with_the_time_to_come_back(client: TestClient) -> None:
    answers = [post(client) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert answers[-1].headers["content-type"].startswith("application/problem+json")


def test_overrides_outside_the_recipes_bounds_are_answered_by_field(client: TestClient) -> None:
    answer = post(client, overrides={"batch": 1, "speed": 9})
    assert answer.status_code == 422
    assert [entry["field"] for entry in answer.json()["errors"]] == ["overrides.batch", "overrides.speed"]


@pytest.mark.parametrize("wrong", [{"images": 0}, {"model": "../x"}, {"extra": 1}, {"dataset": "../../etc"}])
def test_a_malformed_request_is_answered_422(client: TestClient, wrong: dict[str, Any]) -> None:
    answer = post(client, **wrong)
    assert answer.status_code == 422
    assert next(iter(wrong)) in answer.json()["detail"]


def test_jobs_are_paged_and_filtered(client: TestClient) -> None:
    made = [post(client).json()["id"] for _ in range(3)]
    client.delete(f"/jobs/{made[0]}", headers=ADMIN)
    found, path = [], "/jobs?limit=1"
    while path:
        page = client.get(path, headers=ADMIN).json()
        found += [job["id"] for job in page["jobs"]]
        path = page["next"]
    assert sorted(found) == sorted(made)
    cancelled = client.get("/jobs?state=cancelled", headers=ADMIN).json()["jobs"]
    assert [job["id"] for job in cancelled] == [made[0]]
    assert client.get("/jobs?state=lost", headers=ADMIN).status_code == 422


def test_cancel_answers_at_once_and_may_be_repeated(client: TestClient) -> None:
    job = post(client).json()["id"]
    for _ in range(2):
        answer = client.delete(f"/jobs/{job}", headers=ADMIN)
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")


def test_a_job_that_waits_has_nothing_to_keep_and_goes_on_waiting(client: TestClient) -> None:
    job = post(client).json()["id"]
    answer = client.delete(f"/jobs/{job}?keep=true", headers=ADMIN)
    assert answer.status_code == 409
    assert "only a training" in answer.json()["detail"]
    assert client.get(f"/jobs/{job}", headers=ADMIN).json()["state"] == "queued"
    assert client.delete(f"/jobs/{job}?keep=perhaps", headers=ADMIN).status_code == 422


@pytest.mark.parametrize("path", ["/jobs/x", "/jobs/x/events", "/jobs/x/samples.png"])
def test_an_unknown_job_is_answered_404(client: TestClient, path: str) -> None:
    assert client.get(path, headers=ADMIN).status_code == 404


def test_events_tell_the_whole_job_at_each_change_and_end_with_it(client: TestClient, app: FastAPI) -> None:
    job = post(client).json()["id"]
    told = []
    with client.stream("GET", f"/jobs/{job}/events", headers=ADMIN) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line[6:]))
            if len(told) == 1 and not line:
                app.state.jobs.cancel(job)
    assert told[-1]["state"] == "cancelled"
    assert told[-1]["id"] == job


def test_a_watch_ends_when_the_server_is_told_to_stop(client: TestClient, app: FastAPI) -> None:
    job = post(client).json()["id"]
    app.state.phase = Phase.DRAINING
    told = client.get(f"/jobs/{job}/events", headers=ADMIN).text
    assert told.startswith("retry: ")
    assert told.count("event: job") == 1


def test_the_latest_sample_sheet_is_the_one_with_the_highest_step(client: TestClient, tmp_path: Path) -> None:
    job = post(client).json()["id"]
    path = f"/jobs/{job}/samples.png"
    assert client.get(path, headers=ADMIN).status_code == 404
    for attempt, step in ((1, 100), (2, 900), (10, 1000), (10, 200)):
        folder = tmp_path / "runs" / job / f"attempt-{attempt}" / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"fresh-{step:09d}.png").write_bytes(f"{attempt} {step}".encode())
    answer = client.get(path, headers=ADMIN)
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == b"10 1000"
    assert client.get(path, params={"kind": "same-noise"}, headers=ADMIN).status_code == 404


def test_without_its_database_the_queue_answers_503(client: TestClient, app: FastAPI) -> None:
    app.state.jobs.close()
    app.state.jobs = JobStore("postgresql://nobody@127.0.0.1:1/jobs", bounds=BOUNDS)
    answer = post(client)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
