"""What the OpenAPI document tells beyond the routes' own: every status, and calls as they are typed, with answers.

The tests run each call out of the document. The answers in ``reference.json`` were recorded by running them:

python -m tests.service.test_reference
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from service.http.errors import MEDIA_TYPE

HOST = "http://127.0.0.1:8000"
JSON = "application/json"
# An Idempotency-Key gives its job always the same id.
JOB = "669262f8b97259af96f21b7144d1ddee"


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


class Told(NamedTuple):
    """The statuses of an operation beside its success, and its samples."""

    statuses: tuple[int, ...]
    samples: tuple[Sample, ...]


STATUSES = {
    304: "The client has it already: `If-None-Match` names the entity tag",
    400: "Broken JSON",
    401: "A token is needed, or this one is not known",
    403: "This token may generate; the call needs the admin token",
    404: "No such model, version, data set, job or file",
    406: "Nothing that `Accept` takes can be made",
    409: "The state of things does not allow it",
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

_KNOWN = ("If-None-Match: *",)
_IMAGES = (304, 401, 404, 422, 429, 503, 504)
_ADMIN = (401, 403)
_LATENT = [round(0.25 * ((7 * i) % 13 - 6), 2) for i in range(64)]
_INFER = json.dumps(
    {
        "id": "one",
        "inputs": [
            {"name": "latent", "shape": [1, 64], "datatype": "FP32", "data": _LATENT},
            {"name": "label", "shape": [1, 1], "datatype": "INT64", "data": [3]},
        ],
    }
)
_ASKED = {"model": "letters", "recipe": "projgan", "dataset": "digits", "images": 20000, "overrides": {"batch": 32}}


def _infer(path: str) -> tuple[Sample, ...]:
    return (
        Sample(200, "a latent vector and a label", f"{path}/infer", _INFER),
        Sample(
            200,
            "the image as bytes behind the JSON, see the header Inference-Header-Content-Length",
            f"{path}/infer",
            _INFER[:-1] + ', "parameters": {"binary_data_output": true}}',
            file="answer.bin",
        ),
        Sample(400, "an input is missing", f"{path}/infer", '{"inputs": []}'),
        Sample(400, "broken JSON", f"{path}/infer", '{"inputs": ['),
        Sample(415, "neither gzip nor deflate", f"{path}/infer", _INFER, headers=("Content-Encoding: br",)),
    )


# In the order in which they make sense: each may rely on those before it.
CALLS: dict[str, Told] = {
    "POST /generate": Told(
        (304, 400, 401, 404, 406, 413, 415, 422, 429, 503, 504),
        (
            Sample(200, "sixteen threes as a PNG grid", "/generate", '{"label": 3, "n": 16}', file="threes.png"),
            Sample(
                200,
                "one of each of three labels from a seed on, as arrays",
                "/generate",
                '{"label": [0, 1, 2], "n": 3, "seed": 42, "format": "npz"}',
                file="three.npz",
            ),
            Sample(
                200,
                "seeds one by one, as base64 PNGs with label and seed",
                "/generate",
                '{"model": "mnist-projgan", "version": 1, "label": 7, "seeds": [5, 8], "format": "json"}',
            ),
            Sample(304, "the client has it", "/generate", '{"label": 3, "seed": 42}', headers=_KNOWN),
            Sample(400, "broken JSON", "/generate", '{"label": 3'),
            Sample(404, "no such model", "/generate", '{"model": "nothing"}'),
            Sample(406, "no such format", "/generate", '{"label": 3}', headers=("Accept: text/html",)),
            Sample(415, "not JSON", "/generate", "label=3", kind="text/plain"),
            Sample(422, "no such label", "/generate", '{"label": 99}'),
        ),
    ),
    "GET /generate": Told(
        (304, 401, 404, 406, 422, 429, 503, 504),
        (
            Sample(200, "the same sixteen threes every time", "/generate?label=3&n=16&seed=42", file="grid.png"),
            Sample(
                200,
                "WebP, four columns, magnified",
                "/generate?n=8&seed=1&columns=4&scale=4&format=webp",
                file="grid.webp",
            ),
            Sample(200, "a ZIP of PNGs with a manifest", "/generate?n=20&seed=1&format=zip", file="twenty.zip"),
            Sample(200, "arrays for numpy", "/generate?n=20&seed=1&format=npz", file="twenty.npz"),
            Sample(200, "JSON", "/generate?label=7&n=1&seed=1&format=json"),
            Sample(304, "the client has it", "/generate?label=3&n=16&seed=42", headers=_KNOWN),
            Sample(404, "no such version", "/generate?model=mnist-projgan&version=999"),
            Sample(406, "no such format", "/generate?label=3", headers=("Accept: text/html",)),
            Sample(422, "seed and seeds exclude each other", "/generate?seed=1&seeds=2,3"),
        ),
    ),
    "GET /images/{model}/{version}/{label}/{seed}.png": Told(
        _IMAGES,
        (
            Sample(200, "one image, the same for ever", "/images/mnist-projgan/1/3/42.png", file="three.png"),
            Sample(200, "of a model without classes", "/images/mnist-dcgan-gap/1/-/42.png", file="digit.png"),
            Sample(304, "the client has it", "/images/mnist-projgan/1/3/42.png", headers=_KNOWN),
            Sample(404, "no such version", "/images/mnist-projgan/999/3/42.png"),
            Sample(422, "no such label", "/images/mnist-projgan/1/x/42.png"),
        ),
    ),
    "GET /morph": Told(
        _IMAGES,
        (
            Sample(200, "lossless WebP", "/morph?label=3&from=1&to=2&scale=4&bounce=true", file="walk.webp"),
            Sample(200, "GIF", "/morph?label=3&from=1&to=2&frames=12&format=gif", file="walk.gif"),
            Sample(304, "the client has it", "/morph?label=3&from=1&to=2", headers=_KNOWN),
            Sample(404, "no such model", "/morph?model=nothing&from=1&to=2"),
            Sample(422, "whereto?", "/morph?from=1"),
        ),
    ),
    "GET /datasets/synthetic": Told(
        (*_IMAGES, 501),
        (
            Sample(200, "WebDataset", "/datasets/synthetic?version=1&n=200&format=tar", file="set.tar"),
            Sample(200, "Hugging Face", "/datasets/synthetic?version=1&n=200&format=parquet", file="set.parquet"),
            Sample(200, "numpy", "/datasets/synthetic?version=1&n=200&format=npz", file="set.npz"),
            Sample(
                200,
                "class folders; what PUT /datasets/{name} takes",
                "/datasets/synthetic?version=1&seed=0&n=200&format=zip",
                file="letters.zip",
            ),
            Sample(
                200,
                "rows 100 to 199 of the same",
                "/datasets/synthetic?version=1&seed=0&offset=100&n=100&balanced=true",
                file="rest.tar",
            ),
            Sample(304, "the client has it", "/datasets/synthetic?n=200", headers=_KNOWN),
            Sample(404, "no such model", "/datasets/synthetic?model=nothing"),
            Sample(422, "too many for one answer", "/datasets/synthetic?n=1000000000"),
        ),
    ),
    "GET /models": Told((401,), (Sample(200, "all of them", "/models"),)),
    "GET /models/{name}": Told(
        (401, 404, 503),
        (Sample(200, "one", "/models/mnist-projgan"), Sample(404, "no such model", "/models/nothing")),
    ),
    "GET /models/{name}/{version}": Told(
        (401, 404, 422, 503),
        (
            Sample(200, "one version", "/models/mnist-projgan/1"),
            Sample(404, "no such version", "/models/mnist-projgan/999"),
            Sample(422, "versions are numbers", "/models/mnist-projgan/one"),
        ),
    ),
    "GET /models/{name}/{version}/samples.png": Told(
        (304, 401, 404, 422, 503),
        (
            Sample(200, "a row a class", "/models/mnist-projgan/1/samples.png", file="samples.png"),
            Sample(304, "the client has it", "/models/mnist-projgan/1/samples.png", headers=_KNOWN),
            Sample(404, "no such version", "/models/mnist-projgan/999/samples.png"),
            Sample(422, "versions are numbers", "/models/mnist-projgan/one/samples.png"),
        ),
    ),
    "PUT /models/{name}/live": Told(
        (*_ADMIN, 404, 409, 412, 413, 422, 503),
        (
            Sample(200, "version 1 answers from now on", "/models/mnist-projgan/live", '{"version": 1}'),
            Sample(404, "no such version", "/models/mnist-projgan/live", '{"version": 999}'),
            Sample(
                412,
                "somebody was faster",
                "/models/mnist-projgan/live",
                '{"version": 1}',
                headers=('If-Match: "another"',),
            ),
            Sample(422, "versions are numbers", "/models/mnist-projgan/live", '{"version": "one"}'),
        ),
    ),
    "POST /jobs": Told(
        (*_ADMIN, 409, 413, 422, 429, 503),
        (
            Sample(
                202, "a new model from digits", "/jobs", json.dumps(_ASKED), headers=("Idempotency-Key: letters-1",)
            ),
            Sample(
                409,
                "the key belongs to another request",
                "/jobs",
                json.dumps(_ASKED | {"images": 5}),
                headers=("Idempotency-Key: letters-1",),
            ),
            Sample(422, "no such override", "/jobs", json.dumps(_ASKED | {"overrides": {"speed": 9}})),
        ),
    ),
    "GET /jobs": Told(
        (*_ADMIN, 422, 503),
        (
            Sample(200, "those that wait", "/jobs?state=queued&limit=5"),
            Sample(422, "no such state", "/jobs?state=lost"),
        ),
    ),
    "GET /jobs/{job_id}": Told(
        (*_ADMIN, 404, 503), (Sample(200, "one job", f"/jobs/{JOB}"), Sample(404, "no such job", "/jobs/nothing"))
    ),
    "DELETE /jobs/{job_id}": Told(
        (*_ADMIN, 404, 409, 503),
        (Sample(202, "cancel it", f"/jobs/{JOB}"), Sample(404, "no such job", "/jobs/nothing")),
    ),
    "GET /jobs/{job_id}/events": Told(
        (*_ADMIN, 404, 503),
        (
            Sample(200, "until it has ended", f"/jobs/{JOB}/events"),
            Sample(404, "no such job", "/jobs/nothing/events"),
        ),
    ),
    "GET /jobs/{job_id}/samples.png": Told(
        (*_ADMIN, 404, 422, 503),
        (
            Sample(404, "none are drawn before its first snapshot", f"/jobs/{JOB}/samples.png"),
            Sample(422, "fresh or same-noise", f"/jobs/{JOB}/samples.png?kind=old"),
        ),
    ),
    "PUT /datasets/{name}": Told(
        (*_ADMIN, 409, 413, 415, 422, 507),
        (
            Sample(201, "a ZIP of class folders", "/datasets/letters", "@letters.zip", kind="application/zip"),
            Sample(409, "the name is taken", "/datasets/letters", "@letters.zip", kind="application/zip"),
            Sample(415, "not a ZIP", "/datasets/letters-2", "cats", kind="text/plain"),
            Sample(422, "not a ZIP of class folders", "/datasets/letters-2", "cats", kind="application/zip"),
        ),
    ),
    "GET /datasets/{name}": Told(
        (*_ADMIN, 404),
        (Sample(200, "one", "/datasets/letters"), Sample(404, "not uploaded", "/datasets/nothing")),
    ),
    "DELETE /datasets/{name}": Told(
        (*_ADMIN, 404, 409, 503),
        (Sample(204, "away", "/datasets/letters"), Sample(404, "not uploaded", "/datasets/nothing")),
    ),
    "GET /datasets": Told(_ADMIN, (Sample(200, "all of them", "/datasets"),)),
    "GET /health/live": Told((), (Sample(200, "a probe", "/health/live"),)),
    "GET /health/ready": Told((503,), (Sample(200, "a probe", "/health/ready"),)),
    "GET /metrics": Told((), (Sample(200, "for Prometheus", "/metrics"),)),
    "GET /v2": Told((401,), (Sample(200, "this server", "/v2"),)),
    "GET /v2/health/live": Told((), (Sample(200, "a probe", "/v2/health/live"),)),
    "GET /v2/health/ready": Told((400,), (Sample(200, "a probe", "/v2/health/ready"),)),
    "GET /v2/models/stats": Told((401,), (Sample(200, "all of them", "/v2/models/stats"),)),
    "POST /v2/repository/index": Told(
        (400, 401, 413),
        (
            Sample(200, "what can be served", "/v2/repository/index", '{"ready": true}'),
            Sample(400, "ready is true or false", "/v2/repository/index", '{"ready": 1}'),
        ),
    ),
    "POST /v2/repository/models/{name}/load": Told(
        (400, *_ADMIN, 404, 413, 503),
        (
            Sample(200, "its live version, read anew", "/v2/repository/models/mnist-dcgan-gap/load"),
            Sample(
                400,
                "as published, without parameters",
                "/v2/repository/models/mnist-dcgan-gap/load",
                '{"parameters": {"config": "{}"}}',
            ),
            Sample(404, "no such model", "/v2/repository/models/nothing/load"),
        ),
    ),
    "POST /v2/repository/models/{name}/unload": Told(
        (400, *_ADMIN, 404, 413, 503),
        (
            Sample(200, "until it is loaded again", "/v2/repository/models/mnist-dcgan-gap/unload"),
            Sample(400, "broken JSON", "/v2/repository/models/mnist-dcgan-gap/unload", "{"),
            Sample(404, "no such model", "/v2/repository/models/nothing/unload"),
        ),
    ),
}


def _model_calls(what: str, statuses: tuple[int, ...], body: str = "") -> dict[str, Told]:
    """What can be asked of a model under /v2, and of one version in the same way."""
    method = "POST" if body else "GET"
    template, model = "/v2/models/{name}", "/v2/models/mnist-projgan"
    versions, version = "/versions/{version}", "/versions/1"
    live, named = (
        _infer(at) if body else (Sample(200, "of a model of this server", at + what),)
        for at in (model, model + version)
    )
    missing = Sample(404, "no such model", f"/v2/models/nothing{what}", body)
    wrong = (
        Sample(404, "no such version", f"{model}/versions/999{what}", body),
        Sample(400, "versions are numbers", f"{model}/versions/one{what}", body),
    )
    return {
        f"{method} {template}{what}": Told(statuses, (*live, missing)),
        f"{method} {template}{versions}{what}": Told(tuple(sorted({400, *statuses})), (*named, *wrong)),
    }


CALLS |= _model_calls("/ready", (400, 401, 404))
for _what in ("/config", "/stats", ""):
    CALLS |= _model_calls(_what, (401, 404, 503))
CALLS |= _model_calls("/infer", (400, 401, 404, 413, 415, 503), _INFER)


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


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """The document with every operation's statuses, roles, samples and recorded answers."""
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
        _complete(method, path, operation, CALLS[f"{method} {path}"])
    return document


def _complete(method: str, path: str, operation: dict[str, Any], told: Told) -> None:
    v2, admin = path.startswith("/v2"), 403 in told.statuses
    # Open calls need nothing; the images' calls a token only where one is set.
    operation["security"] = [{"token": []}] if admin else [{}, {"token": []}] if 401 in told.statuses else []
    responses = operation["responses"]
    responses.pop("422", None)
    for status in told.statuses:
        text = (V2_STATUSES.get(status) if v2 else None) or STATUSES[status]
        response = responses.setdefault(str(status), {"description": text})
        if status >= 400 and "content" not in response:
            media, schema = (JSON, "InferenceError") if v2 else (MEDIA_TYPE, "Problem")
            response["content"] = {media: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    answers = recorded().get(f"{method} {path}", {})
    for status, response in responses.items():
        names: tuple[str, ...] = HEADERS_OF.get(int(status), ())
        if status == "200" and 429 in told.statuses and not v2:
            names = ("ETag", "X-Model", "X-Model-Version", "X-Seed", "X-Latent-Recipe")
        if names:
            response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        if status in answers:
            for media in response.get("content", {}):
                if media.endswith("json"):
                    found = {what: {"value": value} for what, value in answers[status].items()}
                    response["content"][media]["examples"] = found
    operation["responses"] = dict(sorted(responses.items()))
    _show(method, path, operation, told, admin=admin)


def _show(method: str, path: str, operation: dict[str, Any], told: Told, *, admin: bool) -> None:
    """The samples: for people in the description, for tools as x-codeSamples, and as the examples to try out."""
    lines = []
    samples = operation["x-codeSamples"] = []
    for sample in told.samples:
        source = sample.curl(method, admin=admin)
        samples.append({"lang": "Shell", "label": f"{sample.status}: {sample.what}", "source": source})
        lines.append(f"# {sample.status}: {sample.what}\n{source}")
    operation["description"] = f"{operation['description']}\n\n```sh\n" + "\n".join(lines) + "\n```"
    good = [sample for sample in told.samples if sample.status < 300] or list(told.samples)
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
