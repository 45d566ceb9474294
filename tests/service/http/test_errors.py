import json

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict, ValidationError

from ganserve.card import ModelCorrupt, RepositoryError, VersionNotFound
from service.http import errors
from service.http.errors import Invalid, NotFound, Overloaded, Problem


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
