"""``/v2``: the Open Inference Protocol, as Triton speaks it over HTTP, with its binary tensors.

The tensors are those of the graph: ``latent`` and, for models with classes, ``label`` in; ``image`` out. Rows wait in
the same queues as those of ``/generate``, under the same limits. Errors are ``{"error": ...}``, see
service.http.errors.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pydantic_core
from fastapi import APIRouter, Depends, Path, Request, Response
from numpy.typing import NDArray

from ganserve.card import ModelCard, ModelCorrupt, ModelNotFound, RepositoryError
from ganserve.settings import Settings
from service.api import Phase, check_ready
from service.http.auth import require_admin, require_user
from service.http.errors import BadRequest, BodyTooLarge, UnsupportedMedia
from service.inference.batcher import Batcher
from service.inference.catalogue import Catalogue
from service.inference.rows import Rows

router = APIRouter(prefix="/v2", tags=["v2"])

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
# Larger bodies are read on a thread: the event loop has other requests to see to.
INLINE_BYTES = 1 << 16
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
MODEL, VERSIONED = "/models/{name}", "/models/{name}/versions/{version}"

Version = Annotated[int, Path(ge=1, le=2**31)]
_LENGTH = re.compile(r"[0-9]{1,18}")
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


# -- the server


def _catalogue(request: Request) -> Catalogue:
    catalogue: Catalogue = request.app.state.catalogue
    return catalogue


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
    if request.app.state.phase is not Phase.READY:
        raise BadRequest(f"the service is {request.app.state.phase.value}")
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


@router.get(MODEL + "/ready", summary="A model can be served", dependencies=_user)
async def model_ready(request: Request, name: str) -> dict[str, Any]:
    """200 if the live version is loaded, or could be just now; else 400, or 404 for an unknown one."""
    return await _model_ready(request, name, None)


@router.get(VERSIONED + "/ready", summary="A version can be served", dependencies=_user)
async def version_ready(request: Request, name: str, version: Version) -> dict[str, Any]:
    """The same for one version."""
    return await _model_ready(request, name, version)


async def _model_ready(request: Request, name: str, version: int | None) -> dict[str, Any]:
    if request.app.state.phase is not Phase.READY:
        raise BadRequest(f"the service is {request.app.state.phase.value}")
    try:
        await _catalogue(request).engine(name, version)
    except ModelCorrupt as error:
        raise BadRequest(str(error)) from None
    return {"name": name, "ready": True}


@router.get(MODEL + "/config", summary="A model's configuration", dependencies=_user)
async def model_config(request: Request, name: str) -> dict[str, Any]:
    """What ``config.pbtxt`` says, as JSON, with this server's batch size."""
    return await _config(request, name, None)


@router.get(VERSIONED + "/config", summary="A version's configuration", dependencies=_user)
async def version_config(request: Request, name: str, version: Version) -> dict[str, Any]:
    """The same for one version."""
    return await _config(request, name, version)


async def _config(request: Request, name: str, version: int | None) -> dict[str, Any]:
    card = await _catalogue(request).card(name, version)
    settings: Settings = request.app.state.settings
    return {
        "name": card.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "version_policy": {"specific": {"versions": [card.version]}},
        "max_batch_size": settings.image_limit,
        "input": [
            {"name": i.name, "data_type": i.config_type, "dims": list(i.row)} for i in _inputs(card).values()
        ],
        "output": [{"name": "image", "data_type": "TYPE_UINT8", "dims": _shape(card)}],
        "dynamic_batching": {},
    }


@router.get(MODEL + "/stats", summary="Statistics of a model", dependencies=_user)
async def model_statistics(request: Request, name: str) -> dict[str, Any]:
    """One entry for each version that has one."""
    catalogue = _catalogue(request)
    await catalogue.card(name)
    return _statistics(
        request, [(name, version) for version in await asyncio.to_thread(catalogue.repository.versions, name)]
    )


@router.get(VERSIONED + "/stats", summary="Statistics of a version", dependencies=_user)
async def version_statistics(request: Request, name: str, version: Version) -> dict[str, Any]:
    """Since the service started, of all requests and not only those to ``/v2``."""
    await _catalogue(request).card(name, version)
    return _statistics(request, [(name, version)])


def _statistics(request: Request, keys: Iterable[tuple[str, int]]) -> dict[str, Any]:
    batcher: Batcher = request.app.state.batcher
    return {"model_stats": batcher.statistics.documents(keys)}


@router.get(MODEL, summary="A model's tensors", dependencies=_user)
async def model_metadata(request: Request, name: str) -> dict[str, Any]:
    """Names, types and shapes; -1 is the number of images."""
    return await _metadata(request, name, None)


@router.get(VERSIONED, summary="A version's tensors", dependencies=_user)
async def version_metadata(request: Request, name: str, version: Version) -> dict[str, Any]:
    """The same for one version."""
    return await _metadata(request, name, version)


async def _metadata(request: Request, name: str, version: int | None) -> dict[str, Any]:
    catalogue = _catalogue(request)
    card = await catalogue.card(name, version)
    versions = await asyncio.to_thread(catalogue.repository.versions, name)
    return {
        "name": card.name,
        "versions": [str(found) for found in versions] if version is None else [str(version)],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": i.name, "datatype": i.datatype, "shape": [-1, *i.row]} for i in _inputs(card).values()
        ],
        "outputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, *_shape(card)]}],
    }


# -- the repository


@router.post("/repository/index", summary="What there is", dependencies=_user, openapi_extra=_BODY)
async def index(request: Request) -> list[dict[str, str]]:
    """Every version, with the reason where one cannot be served; ``{"ready": true}``: only those that can."""
    asked = _object(await request.body() or b"{}")
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
    "/repository/models/{name}/load", summary="Load a model", dependencies=_admin, openapi_extra=_BODY
)
async def load(request: Request, name: str) -> Response:
    """Read its live version anew; 200 once it is warm, 400 with the reason if it cannot be served."""
    check_ready(request)
    parameters = _parameters(_object(await request.body() or b"{}"), "the request")
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
    "/repository/models/{name}/unload", summary="Unload a model", dependencies=_admin, openapi_extra=_BODY
)
async def unload(request: Request, name: str) -> Response:
    """Free its memory and serve it no more, on any address, until it is loaded again; requests under way finish."""
    check_ready(request)
    _parameters(_object(await request.body() or b"{}"), "the request")
    catalogue = _catalogue(request)
    await asyncio.to_thread(catalogue.repository.versions, name)
    catalogue.withdraw(name)
    return Response(status_code=200)


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


@dataclass(frozen=True)
class _Input:
    """An input of the graph: ``row`` is its shape without the batch."""

    name: str
    datatype: str
    config_type: str
    dtype: str
    row: tuple[int, ...]


def _inputs(card: ModelCard) -> dict[str, _Input]:
    found = {"latent": _Input("latent", "FP32", "TYPE_FP32", "<f4", (card.z,))}
    if card.conditional:
        found["label"] = _Input("label", "INT64", "TYPE_INT64", "<i8", (1,))
    return found


def _shape(card: ModelCard) -> list[int]:
    return [card.image.height, card.image.width, card.image.channels]


@dataclass(frozen=True)
class Inference:
    """A request that was read and found right."""

    id: str | None
    rows: Rows
    binary: bool
    timeout: float | None

    def answer(self, card: ModelCard, images: NDArray[np.uint8]) -> tuple[bytes, int | None]:
        """The body, and the length of its JSON part where a tensor follows it."""
        output: dict[str, Any] = {"name": "image", "datatype": "UINT8", "shape": list(images.shape)}
        document: dict[str, Any] = {"model_name": card.name, "model_version": str(card.version)}
        if self.id:
            document["id"] = self.id
        if self.binary:
            output["parameters"] = {"binary_data_size": images.nbytes}
        else:
            output["data"] = images.reshape(-1).tolist()
        head = json.dumps(document | {"outputs": [output]}, separators=(",", ":")).encode()
        return (head + images.tobytes(), len(head)) if self.binary else (head, None)


@router.post(
    MODEL + "/infer",
    summary="Images of latent vectors",
    dependencies=_user,
    response_class=Response,
    responses=_INFERRED,
    openapi_extra=_INFER,
)
async def infer(request: Request, name: str) -> Response:
    """By the live version."""
    return await _infer(request, name, None)


@router.post(
    VERSIONED + "/infer",
    summary="Images of latent vectors, by one version",
    dependencies=_user,
    response_class=Response,
    responses=_INFERRED,
    openapi_extra=_INFER,
)
async def version_infer(request: Request, name: str, version: Version) -> Response:
    """By the version named."""
    return await _infer(request, name, version)


async def _infer(request: Request, name: str, version: int | None) -> Response:
    check_ready(request)
    state = request.app.state
    settings: Settings = state.settings
    batcher: Batcher = state.batcher
    card = await _catalogue(request).card(name, version)
    body = await request.body()
    header, encoding = request.headers.get(HEADER_LENGTH), request.headers.get("content-encoding")

    def parse() -> Inference:
        return read(inflate(body, encoding, settings.max_body_bytes), header, card, settings.image_limit)

    asked = parse() if len(body) <= INLINE_BYTES and encoding is None else await batcher.work(parse)
    engine = await _catalogue(request).engine(card.name, card.version)

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    content, length = await batcher.generate(
        engine,
        asked.rows,
        lambda images: asked.answer(card, images),
        timeout=min(settings.request_timeout, asked.timeout or math.inf),
        disconnected=disconnected,
    )
    headers = {"Cache-Control": "no-store"}
    if length is None:
        return Response(content, headers=headers, media_type="application/json")
    return Response(content, headers=headers | {HEADER_LENGTH: str(length)}, media_type=BINARY)


def inflate(body: bytes, encoding: str | None, limit: int) -> bytes:
    """The body as it was before compression; never more than ``limit`` bytes of it."""
    kind = (encoding or "identity").strip().lower()
    if kind == "identity":
        return body
    if kind not in ("gzip", "deflate"):
        raise UnsupportedMedia(f"Content-Encoding {kind} is not taken: send gzip, deflate or neither")
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16 if kind == "gzip" else zlib.MAX_WBITS)
    try:
        content = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is not {kind}: {error}") from None
    if len(content) > limit:
        raise BodyTooLarge(f"the body is too large: at most {limit} bytes, unpacked")
    if not stream.eof or stream.unused_data:
        raise BadRequest(f"the body is not one whole {kind} stream")
    return content


def read(body: bytes, header: str | None, card: ModelCard, limit: int) -> Inference:
    """A request's tensors, checked against the card: names, types, shapes, sizes and the range of labels.

    Args:
        header: ``Inference-Header-Content-Length`` as it was sent.
        limit: images that a request may ask for.

    Raises:
        BadRequest: what is wrong, and what would be right.
    """
    if header is None:
        head, rest = body, b""
    else:
        if not _LENGTH.fullmatch(header):
            raise BadRequest(f"{HEADER_LENGTH} {header[:40]!r} is not a number of bytes")
        length = int(header)
        if length > len(body):
            raise BadRequest(f"{HEADER_LENGTH} is {length}, but the body has {len(body)} bytes")
        if length == 0:
            return _read_raw(body, card)
        head, rest = body[:length], body[length:]
    document = _object(head)
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise BadRequest("id must be a string")
    parameters = _parameters(document, "the request")
    tensors = _read_inputs(document.get("inputs"), rest, card, limit)
    return Inference(
        request_id,
        _rows(tensors, card),
        _binary(document.get("outputs"), _flag(parameters, "binary_data_output", False), card),
        _timeout(parameters),
    )


def _read_raw(body: bytes, card: ModelCard) -> Inference:
    """A body that is nothing but the tensor of a model's only input, and one image's."""
    expected = _inputs(card)
    if len(expected) > 1:
        raise BadRequest(
            f"{HEADER_LENGTH} is 0, so the body is a raw tensor, which only a model of one input can take; "
            f"{card.name!r} has {len(expected)}: {', '.join(expected)}"
        )
    only = expected["latent"]
    if len(body) != 4 * card.z:
        raise BadRequest(
            f"a raw body is one image's {only.name}: {4 * card.z} bytes for {card.name!r}, not {len(body)}"
        )
    return Inference(None, _rows({"latent": _of_bytes(body, only, (1, card.z))}, card), True, None)


def _read_inputs(listed: Any, rest: bytes, card: ModelCard, limit: int) -> dict[str, NDArray[Any]]:
    if not isinstance(listed, list):
        raise BadRequest("inputs must be a list of tensors")
    expected = _inputs(card)
    found: dict[str, NDArray[Any]] = {}
    offset = 0
    for entry in listed:
        if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str):
            raise BadRequest("each of inputs must be an object with a name")
        if name in found:
            raise BadRequest(f"input {name!r} is given twice")
        if name not in expected:
            raise BadRequest(
                f"unexpected inference input {name[:80]!r} for model {card.name!r}: it takes {', '.join(expected)}"
            )
        tensor = expected[name]
        if entry.get("datatype") != tensor.datatype:
            raise BadRequest(
                f"inference input {name!r} data-type is {str(entry.get('datatype'))[:40]!r}, but model {card.name!r} "
                f"expects {tensor.datatype!r}"
            )
        shape = _read_shape(entry.get("shape"), tensor, card, limit)
        parameters = _parameters(entry, f"input {name!r}")
        if "shared_memory_region" in parameters:
            raise BadRequest(f"input {name!r}: shared memory is not supported; send the data")
        size = parameters.get("binary_data_size")
        if size is None:
            if "data" not in entry:
                raise BadRequest(f"input {name!r} has neither data nor binary_data_size")
            found[name] = _of_json(entry["data"], tensor, shape)
            continue
        if "data" in entry:
            raise BadRequest(f"input {name!r} has data and binary_data_size: give one of them")
        needed = math.prod(shape) * np.dtype(tensor.dtype).itemsize
        if type(size) is not int or size != needed:
            raise BadRequest(f"input {name!r}: binary_data_size is {str(size)[:40]}, but its shape needs {needed}")
        if offset + size > len(rest):
            raise BadRequest(
                f"input {name!r}: {size} bytes are announced, and {len(rest) - offset} are left after the JSON part; "
                f"is {HEADER_LENGTH} right?"
            )
        found[name] = _of_bytes(rest[offset : offset + size], tensor, shape)
        offset += size
    if missing := [name for name in expected if name not in found]:
        raise BadRequest(
            f"expected {len(expected)} inputs but got {len(found)} for model {card.name!r}: {', '.join(missing)} "
            "is missing"
        )
    if offset != len(rest):
        raise BadRequest(
            f"{len(rest) - offset} bytes are left over after the tensors; is {HEADER_LENGTH} right?"
        )
    if len({len(tensor) for tensor in found.values()}) > 1:
        told = ", ".join(f"{name} {len(tensor)}" for name, tensor in found.items())
        raise BadRequest(f"the inputs must have one batch size, not {told}")
    return found


def _read_shape(shape: Any, tensor: _Input, card: ModelCard, limit: int) -> tuple[int, ...]:
    expected = f"[-1,{','.join(map(str, tensor.row))}]"
    whole = isinstance(shape, list) and all(type(size) is int for size in shape)
    if not whole or tuple(shape[1:]) != tensor.row or len(shape) != 1 + len(tensor.row):
        raise BadRequest(
            f"unexpected shape for input {tensor.name!r} for model {card.name!r}: expected {expected}, got "
            f"{str(shape)[:80]}"
        )
    if not 1 <= shape[0] <= limit:
        raise BadRequest(
            f"inference request batch-size must be from 1 to {limit} for {card.name!r}, not {str(shape[0])[:40]}"
        )
    return tuple(shape)


def _of_bytes(content: bytes, tensor: _Input, shape: tuple[int, ...]) -> NDArray[Any]:
    # Copied into native order, aligned: it follows a JSON part of any length.
    return np.frombuffer(content, tensor.dtype).reshape(shape).astype(tensor.dtype.replace("<", "="))


def _of_json(data: Any, tensor: _Input, shape: tuple[int, ...]) -> NDArray[Any]:
    count = math.prod(shape)
    if not isinstance(data, list):
        raise BadRequest(f"input {tensor.name!r}: data must be a list")
    flat = data
    if data and isinstance(data[0], list):
        if len(data) != shape[0] or not all(isinstance(row, list) and len(row) == shape[1] for row in data):
            raise BadRequest(
                f"input {tensor.name!r}: nested data must have the shape that is told, {list(shape)}"
            )
        flat = [value for row in data for value in row]
    if len(flat) != count:
        raise BadRequest(
            f"input {tensor.name!r}: {len(flat)} values are given, but shape {list(shape)} needs {count}"
        )
    numbers = {int} if tensor.datatype == "INT64" else {int, float}
    if not set(map(type, flat)) <= numbers:
        kind = "whole numbers" if tensor.datatype == "INT64" else "numbers"
        raise BadRequest(f"input {tensor.name!r}: data must be {kind}")
    try:
        # What is too large for float32 becomes infinite, and is refused as that.
        with np.errstate(over="ignore"):
            wide = np.array(flat, np.int64 if tensor.datatype == "INT64" else np.float64)
            return wide.reshape(shape).astype(tensor.dtype.replace("<", "="))
    except OverflowError:
        raise BadRequest(f"input {tensor.name!r}: a value does not fit {tensor.datatype}") from None


def _rows(tensors: dict[str, NDArray[Any]], card: ModelCard) -> Rows:
    latent = tensors["latent"]
    if not np.isfinite(latent).all():
        raise BadRequest("input 'latent': every value must be finite in FP32")
    if not card.conditional:
        return Rows(None, None, latent)
    label = tensors["label"][:, 0]
    wrong = (label < 0) | (label >= len(card.classes))
    if wrong.any():
        raise BadRequest(
            f"input 'label': model {card.name!r} has labels from 0 to {len(card.classes) - 1}, not "
            f"{int(label[wrong.argmax()])}"
        )
    return Rows(None, np.ascontiguousarray(label), latent)


def _binary(listed: Any, default: bool, card: ModelCard) -> bool:
    """Whether the image goes out as bytes; the outputs that are named must be the model's."""
    if listed is None:
        return default
    if not isinstance(listed, list):
        raise BadRequest("outputs must be a list")
    binary = default
    for entry in listed:
        if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str):
            raise BadRequest("each of outputs must be an object with a name")
        if name != "image":
            raise BadRequest(
                f"unexpected inference output {name[:80]!r} for model {card.name!r}: it gives image"
            )
        parameters = _parameters(entry, "output 'image'")
        for unknown in ("classification", "shared_memory_region"):
            if unknown in parameters:
                raise BadRequest(f"output 'image': {unknown} is not supported")
        binary = _flag(parameters, "binary_data", default)
    return binary


def _timeout(parameters: dict[str, Any]) -> float | None:
    """Triton's ``timeout``, microseconds; nothing or 0: the server's own."""
    told = parameters.get("timeout", 0)
    if type(told) is not int or told < 0:
        raise BadRequest("timeout must be a whole number of microseconds")
    return min(told, 1 << 62) / 1e6 or None


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false")
    return value


def _parameters(holder: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadRequest(f"parameters of {where} must be an object")
    return parameters


def _object(content: bytes) -> dict[str, Any]:
    try:
        document = pydantic_core.from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"failed to parse the request JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadRequest("failed to parse the request JSON: it must be an object")
    return document
