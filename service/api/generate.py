"""``/generate``: labels and seeds to a PNG grid, WebP, ZIP, NPZ or JSON."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service import state
from service.http import body
from service.http.errors import UnsupportedMedia
from service.http.openapi import KNOWN, Sample, told
from service.plan import plan
from service.render import render
from service.schema import MEDIA, GenerateRequest, negotiate, parameters, parse_json, parse_query

router = APIRouter(tags=["images"])

_IMAGE = {
    "type": "object",
    "required": ["seed", "png"],
    "properties": {
        "seed": {"type": "integer"},
        "label": {"type": "integer"},
        "class": {"type": "string"},
        "png": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"},
    },
}
_DOCUMENT = {
    "type": "object",
    "required": ["images"],
    "properties": {
        "images": {"type": "array", "items": _IMAGE},
        "class_names": {"type": "array", "items": {"type": "string"}},
    },
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The images",
        "content": {
            media: {"schema": _DOCUMENT if form == "json" else {"type": "string", "format": "binary"}}
            for form, media in MEDIA.items()
        },
    },
}
_FORM = "application/x-www-form-urlencoded"
_BODY = {"required": True, "content": {"application/json": {"schema": GenerateRequest.model_json_schema()}}}


@router.post(
    "/generate",
    summary="Generate images",
    response_class=Response,
    responses=_ANSWERS,
    openapi_extra=told(
        (304, 400, 401, 404, 406, 410, 413, 415, 422, 429, 503, 504),
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
        Sample(304, "the client has it", "/generate", '{"label": 3, "seed": 42}', headers=KNOWN),
        Sample(400, "broken JSON", "/generate", '{"label": 3'),
        Sample(404, "no such model", "/generate", '{"model": "nothing"}'),
        Sample(406, "no such format", "/generate", '{"label": 3}', headers=("Accept: text/html",)),
        Sample(415, "not JSON", "/generate", "label=3", kind="text/plain"),
        Sample(422, "no such label", "/generate", '{"label": 99}'),
        requestBody=_BODY,
    ),
)
async def post(request: Request) -> Response:
    """A PNG grid by default; tile ``i`` has seed ``seed + i``."""
    state.admit(request)
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind not in ("application/json", _FORM, ""):
        raise UnsupportedMedia(
            f"{kind} is not taken: send application/json", headers={"Accept": "application/json"}
        )
    content = body.text(await body.whole(request.receive))
    # What curl -d sends when nothing else is said may be JSON, or a form.
    form = kind == _FORM and content.strip()[:1] not in (b"", b"{", b"[", b'"')
    return await _answer(request, parse_query(content) if form else parse_json(content))


@router.get(
    "/generate",
    summary="Generate images (for a browser, an <img>, a cache)",
    response_class=Response,
    responses=_ANSWERS,
    openapi_extra=told(
        (304, 401, 404, 406, 410, 422, 429, 503, 504),
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
        Sample(304, "the client has it", "/generate?label=3&n=16&seed=42", headers=KNOWN),
        Sample(404, "no such version", "/generate?model=mnist-projgan&version=999"),
        Sample(406, "no such format", "/generate?label=3", headers=("Accept: text/html",)),
        Sample(422, "seed and seeds exclude each other", "/generate?seed=1&seeds=2,3"),
        parameters=parameters(),
    ),
)
async def get(request: Request) -> Response:
    """The same as POST; lists are repeated parameters or comma-separated."""
    state.admit(request)
    asked = parse_query(request.scope["query_string"])
    made = await _answer(request, asked)
    if made.status_code == 304:
        app = state.of(request)
        card = await app.catalogue.card(asked.model, asked.version)
        app.remembered.keep(request, made, card, asked.model, asked.version)
    return made


async def _answer(request: Request, asked: GenerateRequest) -> Response:
    """Card, format, plan; then the entity tag, the images, their encoding."""
    app = state.of(request)
    card = app.catalogue.known(asked.model, asked.version) or await app.catalogue.card(asked.model, asked.version)
    form = negotiate(asked.format, request.headers.get("accept", "*/*"))
    made = plan(asked.settled(card), card, form, app.catalogue.maker(card), app.most)
    return await render(request, made, made.encode)


# What the front door calls without the framework's dispatch: calls that take the whole request and check it themselves.
HOT = {("GET", "/generate"): get, ("POST", "/generate"): post}
