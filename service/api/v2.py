"""``/v2``: the Open Inference Protocol, as Triton speaks it over HTTP, with its binary tensors.

The tensors are those of the graph: ``latent`` and, for models with classes, ``label`` in; ``image`` out. Rows wait in
the same queues as those of ``/generate``, under the same limits. Errors are ``{"error": ...}``, see
service.http.errors.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Path, Request, Response

from ganserve import signature
from ganserve.card import ModelCorrupt, ModelNotFound, RepositoryError
from ganserve.signature import TensorSpec
from service import protocol
from service.api import v2_calls
from service.http.answers import NO_STORE, disconnected
from service.http.errors import BadRequest
from service.http.openapi import carry
from service.inference.catalogue import Catalogue
from service.inference.rows import Rows
from service.protocol import BINARY, HEADER_LENGTH
from service.state import Guarded, Phase, check_ready, of, require_admin, require_user

router = APIRouter(prefix="/v2", tags=["v2"], route_class=Guarded)

# Larger bodies are read on a thread: the event loop has other requests to see to.
INLINE_BYTES = 1 << 16
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"
MODEL, VERSIONED = "/models/{name}", "/models/{name}/versions/{version}"

Version = Annotated[int, Path(ge=1, le=2**31)]
_user, _admin = [Depends(require_user)], [Depends(require_admin)]
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}
_INFER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "required": ["inputs"]},
            },
            BINARY: {"schema": {"type": "string", "format": "binary"}},
        },
    },
    "parameters": [
        {
            "name": HEADER_LENGTH,
            "in": "header",
            "required": False,
            "schema": {"type": "integer", "minimum": 0},
            "description": "bytes of the JSON part where tensors follow it; 0: the body is the only input's tensor",
        }
    ],
}
_INFERRED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The images; with `binary_data` as bytes behind the JSON part",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            BINARY: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


class Told(NamedTuple):
    """What the documentation says of a route."""

    name: str
    summary: str
    description: str


Handler = Callable[[Request, str, int | None], Awaitable[Any]]


def _addressed(method: str, call: str, live: Told, versioned: Told, **options: Any) -> Callable[[Handler], Handler]:
    """Register a handler at a model's address, where its version is None, and at a version's."""

    def register(handler: Handler) -> Handler:
        async def of_live(request: Request, name: str) -> Any:
            return await handler(request, name, None)

        async def of_version(request: Request, name: str, version: Version) -> Any:
            return await handler(request, name, version)

        for place, told, endpoint in ((MODEL, live, of_live), (VERSIONED, versioned, of_version)):
            router.add_api_route(
                place + call,
                endpoint,
                methods=[method],
                **told._asdict(),
                **{"response_model": dict[str, Any], "dependencies": _user, **options},
            )
        return handler

    return register


def _catalogue(request: Request) -> Catalogue:
    return of(request).catalogue


# -- the server


@router.get("", summary="What this server is", dependencies=_user)
async def server(request: Request) -> dict[str, Any]:
    """Name, version, extensions."""
    return {"name": "ganserve", "version": request.app.version, "extensions": EXTENSIONS}


@router.get("/health/live", summary="The process answers")
async def live() -> dict[str, bool]:
    """200 as long as the event loop turns."""
    return {"live": True}


@router.get("/health/ready", summary="Some model can be served")
async def ready(request: Request) -> dict[str, bool]:
    """200, or the 400 that Triton answers."""
    catalogue = _catalogue(request)
    if of(request).phase is not Phase.READY:
        raise BadRequest(f"the service is {of(request).phase.value}")
    if not catalogue.servable:
        raise BadRequest("no model can be served")
    if (reason := await catalogue.unreachable()) is not None:
        raise BadRequest(reason)
    return {"ready": True}


# -- models; the statistics of all come first, or "stats" would be a model's name


@router.get("/models/stats", summary="Statistics of all models", dependencies=_user)
async def all_statistics(request: Request) -> dict[str, Any]:
    """One entry for each version that can be served."""
    catalogue = _catalogue(request)
    found = await asyncio.to_thread(_versions, catalogue)
    return _statistics(request, [key for key in found if catalogue.unservable(*key) is None])


@_addressed(
    "GET",
    "/ready",
    Told(
        "model_ready",
        "A model can be served",
        "200 if the live version is loaded, or could be just now; else 400, or 404 for an unknown one.",
    ),
    Told("version_ready", "A version can be served", "The same for one version."),
)
async def model_ready(request: Request, name: str, version: int | None) -> dict[str, Any]:
    """200 if the version is loaded, or could be just now; else 400, or 404 for an unknown one."""
    if of(request).phase is not Phase.READY:
        raise BadRequest(f"the service is {of(request).phase.value}")
    try:
        await _catalogue(request).engine(name, version)
    except ModelCorrupt as error:
        raise BadRequest(str(error)) from None
    return {"name": name, "ready": True}


@_addressed(
    "GET",
    "/config",
    Told(
        "model_config",
        "A model's configuration",
        "What ``config.pbtxt`` says, as JSON, with this server's batch size.",
    ),
    Told("version_config", "A version's configuration", "The same for one version."),
)
async def model_config(request: Request, name: str, version: int | None) -> dict[str, Any]:
    """What ``config.pbtxt`` says, as JSON, with this server's batch size."""
    card = await _catalogue(request).card(name, version)
    settings = of(request).settings
    return {
        "name": card.name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": {"specific": {"versions": [card.version]}},
        "max_batch_size": settings.image_limit,
        "input": [_configured(spec) for spec in signature.inputs(card).values()],
        "output": [_configured(signature.output(card))],
        "dynamic_batching": {},
    }


def _configured(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": spec.triton, "dims": list(spec.row)}


@_addressed(
    "GET",
    "/stats",
    Told("model_statistics", "Statistics of a model", "One entry for each version that has one."),
    Told(
        "version_statistics",
        "Statistics of a version",
        "Since the service started, of all requests and not only those to ``/v2``.",
    ),
)
async def model_statistics(request: Request, name: str, version: int | None) -> dict[str, Any]:
    """One entry for the version, or for each that has one; of all requests and not only those to ``/v2``."""
    catalogue = _catalogue(request)
    await catalogue.card(name, version)
    versions = [version] if version else await asyncio.to_thread(catalogue.repository.versions, name)
    return _statistics(request, [(name, found) for found in versions])


def _statistics(request: Request, keys: Iterable[tuple[str, int]]) -> dict[str, Any]:
    batcher = of(request).batcher
    return {"model_stats": batcher.statistics.documents(keys)}


@_addressed(
    "GET",
    "",
    Told("model_metadata", "A model's tensors", "Names, types and shapes; -1 is the number of images."),
    Told("version_metadata", "A version's tensors", "The same for one version."),
)
async def model_metadata(request: Request, name: str, version: int | None) -> dict[str, Any]:
    """Names, types and shapes; -1 is the number of images."""
    catalogue = _catalogue(request)
    card = await catalogue.card(name, version)
    versions = await asyncio.to_thread(catalogue.repository.versions, name)
    return {
        "name": card.name,
        "versions": [str(found) for found in versions] if version is None else [str(version)],
        "platform": PLATFORM,
        "inputs": [_described(spec) for spec in signature.inputs(card).values()],
        "outputs": [_described(signature.output(card))],
    }


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.v2, "shape": [-1, *spec.row]}


# -- the repository


@router.post("/repository/index", summary="What there is", dependencies=_user, openapi_extra=_BODY)
async def index(request: Request) -> list[dict[str, str]]:
    """Every version, with the reason where one cannot be served; ``{"ready": true}``: only those that can."""
    asked = await _document(request)
    only = asked.get("ready", False)
    if not isinstance(only, bool):
        raise BadRequest("ready must be true or false")
    catalogue = _catalogue(request)
    entries = []
    for name, version in await asyncio.to_thread(_versions, catalogue):
        reason = catalogue.unservable(name, version)
        if reason is None or not only:
            state = "READY" if reason is None else "UNAVAILABLE"
            entries.append({"name": name, "version": str(version), "state": state, "reason": reason or ""})
    return entries


@router.post(
    "/repository/models/{name}/load",
    summary="Load a model",
    dependencies=_admin,
    response_class=Response,
    openapi_extra=_BODY,
)
async def load(request: Request, name: str) -> Response:
    """Read its live version anew; 200 once it is warm, 400 with the reason if it cannot be served."""
    check_ready(request)
    parameters = protocol.parameters(await _document(request), "the request")
    if parameters:
        raise BadRequest(
            f"parameters {', '.join(sorted(parameters))[:200]} are not supported: a model is loaded as it was published"
        )
    try:
        await _catalogue(request).load(name)
    except ModelNotFound as error:
        raise ModelNotFound(f"failed to load {name!r}: {error}") from None
    except RepositoryError as error:
        raise BadRequest(f"failed to load {name!r}: {error}") from None
    return Response(status_code=200)


@router.post(
    "/repository/models/{name}/unload",
    summary="Unload a model",
    dependencies=_admin,
    response_class=Response,
    openapi_extra=_BODY,
)
async def unload(request: Request, name: str) -> Response:
    """Free its memory and serve it no more, on any address, until it is loaded again; requests under way finish."""
    check_ready(request)
    protocol.parameters(await _document(request), "the request")
    catalogue = _catalogue(request)
    await asyncio.to_thread(catalogue.repository.versions, name)
    catalogue.withdraw(name)
    return Response(status_code=200)


async def _document(request: Request) -> dict[str, Any]:
    """The JSON object of a request, compressed or not; an empty one where there is no body. Raises BadRequest."""
    limit = of(request).settings.max_body_bytes
    content = protocol.inflate(await request.body(), request.headers.get("content-encoding"), limit)
    return protocol.parse(content or b"{}")


def _versions(catalogue: Catalogue) -> list[tuple[str, int]]:
    """Every version on the disk; what vanishes meanwhile is left out."""
    found = []
    for name in catalogue.repository.names():
        try:
            found += [(name, version) for version in catalogue.repository.versions(name)]
        except RepositoryError:
            continue
    return found


# -- inference


@_addressed(
    "POST",
    "/infer",
    Told("infer", "Images of latent vectors", "By the live version."),
    Told("version_infer", "Images of latent vectors, by one version", "By the version named."),
    response_model=None,
    response_class=Response,
    responses=_INFERRED,
    openapi_extra=_INFER,
)
async def infer(request: Request, name: str, version: int | None) -> Response:
    """The images of a request's tensors; its rows wait in the same queues as everybody's."""
    check_ready(request)
    settings, batcher = of(request).settings, of(request).batcher
    card = await _catalogue(request).card(name, version)
    body = await request.body()
    header, encoding = request.headers.get(HEADER_LENGTH), request.headers.get("content-encoding")

    def read() -> protocol.Inference:
        content = protocol.inflate(body, encoding, settings.max_body_bytes)
        return protocol.read(content, header, card, settings.image_limit)

    asked = read() if len(body) <= INLINE_BYTES and encoding is None else await batcher.work(read)
    engine = await _catalogue(request).engine(card.name, card.version)
    content, length = await batcher.generate(
        engine,
        Rows(None, asked.label, asked.latent),
        lambda images: protocol.answer(asked, card, images),
        timeout=min(settings.request_timeout, asked.timeout or math.inf),
        disconnected=partial(disconnected, request),
    )
    headers = {"Cache-Control": NO_STORE}
    if length is None:
        return Response(content, headers=headers, media_type="application/json")
    return Response(content, headers=headers | {HEADER_LENGTH: str(length)}, media_type=BINARY)


carry(router, v2_calls.CALLS)
