import errno
import json
import os
import re
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict, ValidationError

from ganserve.archives import Problem as Wrong
from ganserve.archives import Refused
from ganserve.card import ModelCorrupt, RepositoryError, VersionNotFound
from ganserve.labels import UnknownLabel
from service.http import errors
from service.http.errors import Invalid, NotFound, Overloaded, Problem
from service.jobs import (
    InvalidJob,
    JobFinished,
    JobsError,
    JobsUnavailable,
    KeyReused,
    QueueFull,
    UnknownJob,
)
from service.uploads import DiskFull, InvalidName, InvalidUpload, NameTaken, TooLarge, UnknownDataset, UploadError
from tests.service.conftest import ADMIN, Serve


def all_problems(kind: type[Problem]) -> list[type[Problem]]:
    return [kind] + [found for below in kind.__subclasses__() for found in all_problems(below)]


def test_every_problem_is_drawn_in_the_modules_tree() -> None:
    assert errors.__doc__ is not None
    own = [kind for kind in all_problems(Problem) if kind.__module__ == errors.__name__ and kind is not Problem]
    for kind in own:
        assert f"── {kind.__name__} {kind.status}" in errors.__doc__


def client_raising(error: Exception) -> TestClient:
    app = FastAPI()
    errors.install(app)

    @app.get("/")
    def fail() -> None:
        raise error

    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("no such thing: there is another"), 404),
        (Overloaded("full", 7), 429),
        (VersionNotFound("no version 2"), 404),
        (ModelCorrupt("broken"), 503),
        (RepositoryError("disk"), 500),
        (UnknownLabel("no label"), 422),
        (UnknownJob("no job"), 404),
        (KeyReused("another request"), 409),
        (JobFinished("has ended"), 409),
        (QueueFull(3, 9), 429),
        (JobsUnavailable("no queue"), 503),
        (UnknownDataset("no data set"), 404),
        (InvalidName("no name"), 422),
        (NameTaken("is kept"), 409),
        (TooLarge("too many bytes"), 413),
        (DiskFull("no room"), 507),
    ],
)
def test_an_error_becomes_a_problem_document(error: Exception, status: int) -> None:
    answer = client_raising(error).get("/")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert document["type"] == "about:blank"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"] == str(error)


def all_kinds(kind: type[Exception]) -> set[type[Exception]]:
    return {found for below in kind.__subclasses__() for found in ({below} | all_kinds(below))}


@pytest.mark.parametrize("root", [JobsError, UploadError, RepositoryError])
def test_every_refusal_of_the_parts_below_has_an_answer(root: type[Exception]) -> None:
    for kind in all_kinds(root):
        assert any(known in errors.PROBLEMS for known in kind.__mro__), kind


def test_what_is_wrong_with_a_job_or_an_upload_is_listed() -> None:
    job = client_raising(InvalidJob(["images: too many", "recipe: unknown"])).get("/")
    assert [entry["field"] for entry in job.json()["errors"]] == ["images", "recipe"]
    upload = client_raising(InvalidUpload(Refused([Wrong("a.png", "is no image")]))).get("/")
    assert upload.status_code == 422
    assert upload.json()["errors"] == [{"file": "a.png", "reason": "is no image"}]


def test_those_who_are_to_come_again_are_told_when() -> None:
    for error, seconds in ((ModelCorrupt("x"), 60), (QueueFull(1, 9), 9), (JobsUnavailable("x"), 5)):
        assert client_raising(error).get("/").headers["retry-after"] == str(seconds)


def test_what_is_not_possible_names_all_that_is_at_that_path() -> None:
    app = FastAPI()
    errors.install(app)
    one, two = APIRouter(prefix="/things"), APIRouter()
    one.add_api_route("/{name}", lambda name: name, methods=["GET"])
    two.add_api_route("/things/{name}", lambda name: name, methods=["PUT"])
    app.include_router(one)
    app.include_router(two)
    answer = TestClient(app).delete("/things/a")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, PUT")


def test_headers_and_members_of_a_problem_are_told() -> None:
    limited = client_raising(Overloaded("full", 7)).get("/")
    assert limited.headers["retry-after"] == "7"
    wrong = client_raising(Invalid("bad", errors=[{"field": "n", "message": "no"}])).get("/")
    assert wrong.json()["errors"] == [{"field": "n", "message": "no"}]


def test_a_wrong_value_is_told_once_a_field_without_pydantics_inside() -> None:
    class Asked(BaseModel):
        model_config = ConfigDict(extra="forbid")
        label: int | list[int]
        n: int = 1

    with pytest.raises(ValidationError) as raised:
        Asked.model_validate_json(json.dumps({"label": "x", "m": 2}))
    made = errors.invalid(raised.value, fields=Asked.model_fields)
    assert [entry["field"] for entry in made.members["errors"]] == ["label", "m"]
    assert "unknown field; there are label, n" in made.detail
    assert "pydantic" not in made.detail


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        (errno.EROFS, 503, "GANSERVE_MODELS cannot be written .*: make it writable"),
        (errno.EACCES, 503, "GANSERVE_MODELS cannot be written"),
        (errno.ENOSPC, 507, "disk of GANSERVE_MODELS is full"),
        (errno.EISDIR, 503, "something else is in the place in the folder of GANSERVE_MODELS"),
        (errno.EIO, 503, "the disk of GANSERVE_MODELS does not do it"),
        (errno.EMFILE, 503, "Too many open files"),
        (errno.EFBIG, 503, "the disk of GANSERVE_MODELS does not do it"),
        (errno.ENOLCK, 503, "the disk of GANSERVE_MODELS does not do it"),
    ],
)
def test_what_a_disk_refuses_is_told_by_the_setting_of_its_folder(number: int, status: int, words: str) -> None:
    answer = client_raising(OSError(number, os.strerror(number))).get("/")
    assert answer.status_code == status
    assert re.search(words, answer.text)


def test_a_service_whose_folders_cannot_be_written_serves_and_says_so(tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "var").write_text("a file in the folder's place")
    client = serve()
    assert client.get("/generate?seed=1").status_code == 200
    ready = client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["unwritable"] == {"GANSERVE_DATA": "a file stands in its place"}
    refused = client.get("/jobs", headers=ADMIN)
    assert refused.status_code == 503
    assert "GANSERVE_DATA" in refused.json()["detail"]
    assert "GANSERVE_JOBS_DB" in refused.json()["detail"]
    assert str(tmp_path) not in refused.text
