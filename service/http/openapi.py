"""The OpenAPI document: what the routes carry, with every status, and calls as they are typed, with answers.

A route carries its statuses and samples as ``openapi_extra=told(...)``; here they are only written out. The tests run
each call out of the document. The answers in ``reference.json`` were recorded by running them:

python -m tests.service.http.test_openapi
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from service.http.errors import MEDIA_TYPE

HOST = "http://127.0.0.1:8000"
JSON = "application/json"
# Statuses that many calls have in common.
ADMIN = (401, 403)
IMAGES = (304, 401, 404, 410, 422, 429, 503, 504)
# The header of a client that has the answer already.
KNOWN = ("If-None-Match: *",)
_STATUSES, _SAMPLES = "x-statuses", "x-samples"


class Sample(NamedTuple):
    """A call as it is typed, and the status it gets."""

    status: int
    what: str
    target: str
    body: str = ""
    kind: str = JSON
    headers: tuple[str, ...] = ()
    file: str = ""

    def curl(self, method: str, *, admin: bool) -> str:
        """For a shell; a body that begins with @ is a file's content."""
        words = ["curl"] + ([f"-X {method}"] if method != "GET" else [])
        words.append(f"'{HOST}{self.target}'" if "?" in self.target else HOST + self.target)
        if admin:
            words.append('-H "Authorization: Bearer $GANSERVE_ADMIN_TOKEN"')
        words += [f"-H '{header}'" for header in self.headers]
        if self.body:
            words += [f"-H 'Content-Type: {self.kind}'", f"--data-binary '{self.body}'"]
        if self.file:
            words.append(f"-o {self.file}")
        return " ".join(words)


def told(statuses: tuple[int, ...], *samples: Sample, **extra: Any) -> dict[str, Any]:
    """What a route carries as its ``openapi_extra``.

    Args:
        statuses: those beside its success; with 403 it is an admin's call, with 401 alone a user's.
        samples: calls as they are typed; each may rely on those before it, in the order of the document.
        extra: further members of the operation.
    """
    return {**extra, _STATUSES: list(statuses), _SAMPLES: [list(sample) for sample in samples]}


def carry(router: APIRouter, calls: Mapping[str, dict[str, Any]]) -> None:
    """Give each route of ``router`` what ``calls`` has for it under its method and path, made by :func:`told`."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            for method in route.methods or ():
                route.openapi_extra = {**(route.openapi_extra or {}), **calls[f"{method} {route.path}"]}


STATUSES = {
    304: "The client has it already: `If-None-Match` names the entity tag",
    400: "Broken JSON",
    401: "A token is needed, or this one is not known",
    403: "This token may generate; the call needs the admin token",
    404: "No such model, version, data set, job or file",
    406: "Nothing that `Accept` takes can be made",
    409: "The state of things does not allow it",
    410: "The version was removed for good",
    412: "It has changed since: `If-Match` names another entity tag",
    413: "The body is too large",
    415: "The body is of a type that is not taken",
    422: "A wrong field, parameter or value; `errors` names each",
    429: "Too much waits already; `Retry-After` tells when to ask again",
    501: "`parquet` needs the extra `ganserve[parquet]` on the server",
    503: "Starting, stopping, or something that the answer needs cannot be reached or read",
    504: "The deadline passed",
    507: "The disk is full",
}
V2_STATUSES = {
    400: "Not readable, wrong values or shapes, or a model that cannot be served",
    503: "Starting, stopping, too much waits already (`Retry-After`), or the deadline passed",
}
HEADERS = {
    "Retry-After": "seconds after which to ask again",
    "WWW-Authenticate": "Bearer, with the reason",
    "Location": "where it is now",
    "ETag": "the entity tag, for If-None-Match",
    "X-Model": "the model's name",
    "X-Model-Version": "its version",
    "X-Seed": "the seed of the first image, or all that are no row",
    "X-Label": "the class names, percent-encoded: one for all, or in turn with commas",
    "X-Truncation": "by how much latents are scaled, where they are",
    "X-Latent-Recipe": "how seeds become latent vectors",
}
HEADERS_OF = {
    201: ("Location",),
    202: ("Location",),
    304: ("ETag",),
    401: ("WWW-Authenticate",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}

_TEXT = {"type": "string"}
ERRORS: dict[str, Any] = {
    "Problem": {
        "description": "RFC 9457: what was wrong, and what would be right",
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": _TEXT,
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "errors": {"type": "array", "items": {"type": "object"}},
        },
    },
    "InferenceError": {"type": "object", "required": ["error"], "properties": {"error": _TEXT}},
}


@cache
def recorded() -> dict[str, Any]:
    """Answers by operation, status and what was asked."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("reference.json").read_text(encoding="utf-8"))
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and operation, in the document's order."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def document(app: FastAPI, *, prefix: str = "") -> dict[str, Any]:
    """The document of an application, made once; each operation with its statuses, roles, samples and answers.

    A ``prefix`` under which a proxy offers the service is its first server, beside the service itself.
    """
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            routes=app.routes,
            tags=app.openapi_tags,
            servers=[{"url": prefix.rstrip("/")}, {"url": "/"}] if prefix else None,
        )
        app.openapi_schema = _complete(made)
    return app.openapi_schema


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas.update(ERRORS)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    components["headers"] = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()
    }
    for method, path, operation in operations(document):
        _finish(method, path, operation)
    return document


def _finish(method: str, path: str, operation: dict[str, Any]) -> None:
    statuses: list[int] = operation.pop(_STATUSES)
    samples = [Sample(*fields) for fields in operation.pop(_SAMPLES)]
    v2, admin = path.startswith("/v2"), 403 in statuses
    # Open calls need nothing; the images' calls a token only where one is set.
    operation["security"] = [{"token": []}] if admin else [{}, {"token": []}] if 401 in statuses else []
    responses = operation["responses"]
    responses.pop("422", None)
    for status in statuses:
        text = (V2_STATUSES.get(status) if v2 else None) or STATUSES[status]
        response = responses.setdefault(str(status), {"description": text})
        if status >= 400 and "content" not in response:
            media, schema = (JSON, "InferenceError") if v2 else (MEDIA_TYPE, "Problem")
            response["content"] = {media: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    answers = recorded().get(f"{method} {path}", {})
    for status, response in responses.items():
        names: tuple[str, ...] = HEADERS_OF.get(int(status), ())
        if status == "200" and 429 in statuses and not v2:
            names = ("ETag", "X-Model", "X-Model-Version", "X-Seed", "X-Latent-Recipe")
        if names:
            response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        if status in answers:
            for media in response.get("content", {}):
                if media.endswith("json"):
                    found = {what: {"value": value} for what, value in answers[status].items()}
                    response["content"][media]["examples"] = found
    operation["responses"] = dict(sorted(responses.items()))
    _show(method, path, operation, samples, admin=admin)


def _show(method: str, path: str, operation: dict[str, Any], samples: list[Sample], *, admin: bool) -> None:
    """The samples: for people in the description, for tools as x-codeSamples, and as the examples to try out."""
    lines = []
    shown = operation["x-codeSamples"] = []
    for sample in samples:
        source = sample.curl(method, admin=admin)
        shown.append({"lang": "Shell", "label": f"{sample.status}: {sample.what}", "source": source})
        lines.append(f"# {sample.status}: {sample.what}\n{source}")
    operation["description"] = f"{operation['description']}\n\n```sh\n" + "\n".join(lines) + "\n```"
    good = [sample for sample in samples if sample.status < 300] or samples
    bodies = operation.get("requestBody", {}).get("content", {})
    if JSON in bodies:
        bodies[JSON].pop("example", None)
        with_body = [sample for sample in good if sample.body]
        bodies[JSON]["examples"] = {one.what: {"value": json.loads(one.body)} for one in with_body}
    values = _values(path, good[0])
    for parameter in operation.get("parameters", []):
        if (key := (parameter["in"], parameter["name"])) in values:
            parameter["example"] = values[key]


def _values(path: str, sample: Sample) -> dict[tuple[str, str], str | int]:
    """What a sample gives for each parameter, by place and name."""
    parts = urlsplit(sample.target)
    given = {("query", name): value for name, value in parse_qsl(parts.query)}
    for name, value in zip(path.split("/"), parts.path.split("/"), strict=True):
        if name.startswith("{"):
            given["path", name.removesuffix(".png").strip("{}")] = value.removesuffix(".png")
    return {key: int(value) if value.isdigit() else value for key, value in given.items()}
