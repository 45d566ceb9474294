"""What the document tells of the calls under ``/v2``: their statuses, and samples."""

from __future__ import annotations

import json
from typing import Any

from service.http.openapi import ADMIN, Sample, told

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


CALLS: dict[str, dict[str, Any]] = {
    "GET /v2": told((401,), Sample(200, "this server", "/v2")),
    "GET /v2/health/live": told((), Sample(200, "a probe", "/v2/health/live")),
    "GET /v2/health/ready": told((400,), Sample(200, "a probe", "/v2/health/ready")),
    "GET /v2/models/stats": told((401,), Sample(200, "all of them", "/v2/models/stats")),
    "POST /v2/repository/index": told(
        (400, 401, 413),
        Sample(200, "what can be served", "/v2/repository/index", '{"ready": true}'),
        Sample(400, "ready is true or false", "/v2/repository/index", '{"ready": 1}'),
    ),
    "POST /v2/repository/models/{name}/load": told(
        (400, *ADMIN, 404, 413, 503),
        Sample(200, "its live version, read anew", "/v2/repository/models/mnist-dcgan-gap/load"),
        Sample(
            400,
            "as published, without parameters",
            "/v2/repository/models/mnist-dcgan-gap/load",
            '{"parameters": {"config": "{}"}}',
        ),
        Sample(404, "no such model", "/v2/repository/models/nothing/load"),
    ),
    "POST /v2/repository/models/{name}/unload": told(
        (400, *ADMIN, 404, 413, 503),
        Sample(200, "until it is loaded again", "/v2/repository/models/mnist-dcgan-gap/unload"),
        Sample(400, "broken JSON", "/v2/repository/models/mnist-dcgan-gap/unload", "{"),
        Sample(404, "no such model", "/v2/repository/models/nothing/unload"),
    ),
}


def _model_calls(what: str, statuses: tuple[int, ...], body: str = "") -> dict[str, dict[str, Any]]:
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
        f"{method} {template}{what}": told(statuses, *live, missing),
        f"{method} {template}{versions}{what}": told(tuple(sorted({400, *statuses})), *named, *wrong),
    }


CALLS |= _model_calls("/ready", (400, 401, 404))
for _what in ("/config", "/stats", ""):
    CALLS |= _model_calls(_what, (401, 404, 503))
CALLS |= _model_calls("/infer", (400, 401, 404, 413, 415, 503), _INFER)
