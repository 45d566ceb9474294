"""The Open Inference Protocol's wire format, both ends: bytes to tensors, and back. No web framework.

A request and an answer are a JSON part, and binary tensors behind it whose sizes it tells; how long it is stands in a
header. Without that header a body is JSON alone, with the numbers in it::

    read      a request's body   -> Inference       the server reads what it is asked
    answer    images             -> body, length    the server answers
    request   latents and labels -> body, length    the client asks
    images    an answer's body   -> images          the client reads the answer

"""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydantic_core
from numpy.typing import NDArray

from ganserve import signature
from ganserve.card import ModelCard
from ganserve.signature import TensorSpec
from service.http.body import text
from service.http.errors import BadRequest, BodyTooLarge, UnsupportedMedia

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"

_LENGTH = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Inference:
    """A request that was read and found right.

    Attributes:
        latent: float32 [n, z], finite.
        label: int64 [n], each of a class that there is; None for models without classes.
        binary: the images go out as bytes.
        timeout: seconds; None: the server's own.
    """

    id: str | None
    latent: NDArray[np.float32]
    label: NDArray[np.int64] | None
    binary: bool
    timeout: float | None


# -- the server: reading a request


def inflate(body: bytes, encoding: str | None, limit: int) -> bytes:
    """The body as it was before compression; never more than ``limit`` bytes of it."""
    kind = (encoding or "identity").strip().lower()
    if kind == "identity":
        return body
    if kind not in ("gzip", "deflate"):
        raise UnsupportedMedia(
            f"Content-Encoding {kind[:40]} is not taken: send gzip, deflate or neither",
            headers={"Accept-Encoding": "gzip, deflate, identity"},
        )
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
    length = _head_length(body, header)
    if length == 0 and header is not None:
        return _read_raw(body, card)
    document = parse(body[:length])
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise BadRequest("id must be a string")
    asked = parameters(document, "the request")
    latent, label = _read_inputs(document.get("inputs"), body[length:], card, limit)
    binary = _binary(document.get("outputs"), _flag(asked, "binary_data_output", False), card)
    return Inference(request_id, latent, label, binary, _timeout(asked))


def _head_length(body: bytes, header: str | None) -> int:
    """Bytes of the JSON part: all, where no header says it."""
    if header is None:
        return len(body)
    if not _LENGTH.fullmatch(header):
        raise BadRequest(f"{HEADER_LENGTH} {header[:40]!r} is not a number of bytes")
    length = int(header)
    if length > len(body):
        raise BadRequest(f"{HEADER_LENGTH} is {length}, but the body has {len(body)} bytes")
    return length


def _read_raw(body: bytes, card: ModelCard) -> Inference:
    """A body that is nothing but the tensor of a model's only input, and one image's."""
    expected = signature.inputs(card)
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
    return Inference(None, *_in_range({"latent": _of_bytes(body, only, (1, card.z))}, card), True, None)


def _read_inputs(
    listed: Any, rest: bytes, card: ModelCard, limit: int
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Latents and labels of the ``inputs`` that are listed; ``rest`` is what follows the JSON part."""
    if not isinstance(listed, list):
        raise BadRequest("inputs must be a list of tensors")
    expected = signature.inputs(card)
    found: dict[str, NDArray[Any]] = {}
    tail = _Tail(rest)
    for entry in listed:
        spec = _which(entry, expected, found, card)
        found[spec.name] = _data(entry, spec, _read_shape(entry.get("shape"), spec, card, limit), tail)
    if missing := [name for name in expected if name not in found]:
        raise BadRequest(
            f"expected {len(expected)} inputs but got {len(found)} for model {card.name!r}: {', '.join(missing)} "
            "is missing"
        )
    if tail.left:
        raise BadRequest(f"{tail.left} bytes are left over after the tensors; is {HEADER_LENGTH} right?")
    if len({len(tensor) for tensor in found.values()}) > 1:
        told = ", ".join(f"{name} {len(tensor)}" for name, tensor in found.items())
        raise BadRequest(f"the inputs must have one batch size, not {told}")
    return _in_range(found, card)


def _which(
    entry: Any, expected: dict[str, TensorSpec], found: dict[str, NDArray[Any]], card: ModelCard
) -> TensorSpec:
    """The model's input that an entry gives, for the first time and in its own type."""
    if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str):
        raise BadRequest("each of inputs must be an object with a name")
    if name in found:
        raise BadRequest(f"input {name!r} is given twice")
    if name not in expected:
        raise BadRequest(
            f"unexpected inference input {name[:80]!r} for model {card.name!r}: it takes {', '.join(expected)}"
        )
    spec = expected[name]
    if entry.get("datatype") != spec.v2:
        raise BadRequest(
            f"inference input {name!r} data-type is {str(entry.get('datatype'))[:40]!r}, but model {card.name!r} "
            f"expects {spec.v2!r}"
        )
    return spec


def _read_shape(shape: Any, spec: TensorSpec, card: ModelCard, limit: int) -> tuple[int, ...]:
    expected = f"[-1,{','.join(map(str, spec.row))}]"
    whole = isinstance(shape, list) and all(type(size) is int for size in shape)
    if not whole or tuple(shape[1:]) != spec.row or len(shape) != 1 + len(spec.row):
        raise BadRequest(
            f"unexpected shape for input {spec.name!r} for model {card.name!r}: expected {expected}, got "
            f"{str(shape)[:80]}"
        )
    if not 1 <= shape[0] <= limit:
        raise BadRequest(
            f"inference request batch-size must be from 1 to {limit} for {card.name!r}, not {str(shape[0])[:40]}"
        )
    return tuple(shape)


class _Tail:
    """The bytes behind the JSON part: each binary tensor takes its own, in the order of ``inputs``."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    @property
    def left(self) -> int:
        """Bytes that nobody has taken."""
        return len(self._content) - self._at

    def take(self, size: int, spec: TensorSpec) -> bytes:
        """The next ``size`` bytes."""
        if size > self.left:
            raise BadRequest(
                f"input {spec.name!r}: {size} bytes are announced, and {self.left} are left after the JSON part; "
                f"is {HEADER_LENGTH} right?"
            )
        self._at += size
        return self._content[self._at - size : self._at]


def _data(entry: dict[str, Any], spec: TensorSpec, shape: tuple[int, ...], tail: _Tail) -> NDArray[Any]:
    """An input's numbers: in the JSON part, or behind it."""
    told = parameters(entry, f"input {spec.name!r}")
    if "shared_memory_region" in told:
        raise BadRequest(f"input {spec.name!r}: shared memory is not supported; send the data")
    size = told.get("binary_data_size")
    if size is None:
        if "data" not in entry:
            raise BadRequest(f"input {spec.name!r} has neither data nor binary_data_size")
        return _of_json(entry["data"], spec, shape)
    if "data" in entry:
        raise BadRequest(f"input {spec.name!r} has data and binary_data_size: give one of them")
    needed = math.prod(shape) * np.dtype(spec.numpy).itemsize
    if type(size) is not int or size != needed:
        raise BadRequest(f"input {spec.name!r}: binary_data_size is {str(size)[:40]}, but its shape needs {needed}")
    return _of_bytes(tail.take(size, spec), spec, shape)


def _of_bytes(content: bytes, spec: TensorSpec, shape: tuple[int, ...]) -> NDArray[Any]:
    # Copied into native order, aligned: it follows a JSON part of any length.
    return np.frombuffer(content, spec.numpy).reshape(shape).astype(np.dtype(spec.numpy).newbyteorder("="))


def _of_json(data: Any, spec: TensorSpec, shape: tuple[int, ...]) -> NDArray[Any]:
    count = math.prod(shape)
    if not isinstance(data, list):
        raise BadRequest(f"input {spec.name!r}: data must be a list")
    flat = data
    if data and isinstance(data[0], list):
        if len(data) != shape[0] or not all(isinstance(row, list) and len(row) == shape[1] for row in data):
            raise BadRequest(f"input {spec.name!r}: nested data must have the shape that is told, {list(shape)}")
        flat = [value for row in data for value in row]
    if len(flat) != count:
        raise BadRequest(f"input {spec.name!r}: {len(flat)} values are given, but shape {list(shape)} needs {count}")
    whole = spec.v2 == "INT64"
    if not set(map(type, flat)) <= ({int} if whole else {int, float}):
        raise BadRequest(f"input {spec.name!r}: data must be {'whole numbers' if whole else 'numbers'}")
    try:
        # What is too large for float32 becomes infinite, and is refused as that.
        with np.errstate(over="ignore"):
            wide = np.array(flat, np.int64 if whole else np.float64)
            return wide.reshape(shape).astype(np.dtype(spec.numpy).newbyteorder("="))
    except OverflowError:
        raise BadRequest(f"input {spec.name!r}: a value does not fit {spec.v2}") from None


def _in_range(
    tensors: dict[str, NDArray[Any]], card: ModelCard
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Latents and labels, every value of which means something."""
    latent = tensors["latent"]
    if not np.isfinite(latent).all():
        raise BadRequest("input 'latent': every value must be finite in FP32")
    if not card.conditional:
        return latent, None
    label = tensors["label"][:, 0]
    wrong = (label < 0) | (label >= len(card.classes))
    if wrong.any():
        raise BadRequest(
            f"input 'label': model {card.name!r} has labels from 0 to {len(card.classes) - 1}, not "
            f"{int(label[wrong.argmax()])}"
        )
    return latent, np.ascontiguousarray(label)


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
            raise BadRequest(f"unexpected inference output {name[:80]!r} for model {card.name!r}: it gives image")
        told = parameters(entry, "output 'image'")
        for unknown in ("classification", "shared_memory_region"):
            if unknown in told:
                raise BadRequest(f"output 'image': {unknown} is not supported")
        binary = _flag(told, "binary_data", default)
    return binary


def _timeout(told: dict[str, Any]) -> float | None:
    """Triton's ``timeout``, microseconds; nothing or 0: the server's own."""
    value = told.get("timeout", 0)
    if type(value) is not int or value < 0:
        raise BadRequest("timeout must be a whole number of microseconds")
    return min(value, 1 << 62) / 1e6 or None


def _flag(told: dict[str, Any], name: str, default: bool) -> bool:
    value = told.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false")
    return value


def parameters(holder: dict[str, Any], where: str) -> dict[str, Any]:
    """The ``parameters`` of a request, an input or an output; ``where`` names it in the error."""
    found = holder.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadRequest(f"parameters of {where} must be an object")
    return found


def parse(content: bytes) -> dict[str, Any]:
    """A JSON object. Raises BadRequest."""
    try:
        document = pydantic_core.from_json(text(content), allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"failed to parse the request JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadRequest("failed to parse the request JSON: it must be an object")
    return document


# -- the server: its answer


def answer(asked: Inference, card: ModelCard, images: NDArray[np.uint8]) -> tuple[bytes, int | None]:
    """The body for images uint8 [n, h, w, c], and the length of its JSON part where a tensor follows it."""
    spec = signature.output(card)
    output: dict[str, Any] = {"name": spec.name, "datatype": spec.v2, "shape": list(images.shape)}
    document: dict[str, Any] = {"model_name": card.name, "model_version": str(card.version)}
    if asked.id:
        document["id"] = asked.id
    if asked.binary:
        output["parameters"] = {"binary_data_size": images.nbytes}
    else:
        output["data"] = images.reshape(-1).tolist()
    head = json.dumps(document | {"outputs": [output]}, separators=(",", ":")).encode()
    return (head + images.tobytes(), len(head)) if asked.binary else (head, None)


# -- the client


def request(card: ModelCard, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> tuple[bytes, int]:
    """The body that asks for images of latents float32 [n, z] and labels int64 [n], and its JSON part's length."""
    specs = signature.inputs(card)
    tensors = {
        name: tensor.astype(specs[name].numpy, copy=False)
        for name, tensor in signature.feeds(card, latent, label).items()
    }
    document = {
        "inputs": [
            {
                "name": name,
                "shape": list(tensor.shape),
                "datatype": specs[name].v2,
                "parameters": {"binary_data_size": tensor.nbytes},
            }
            for name, tensor in tensors.items()
        ],
        "outputs": [{"name": signature.output(card).name, "parameters": {"binary_data": True}}],
    }
    head = json.dumps(document).encode()
    return head + b"".join(tensor.tobytes() for tensor in tensors.values()), len(head)


def images(body: bytes, header: str, card: ModelCard, n: int) -> NDArray[np.uint8]:
    """The pixels uint8 [n, h, w, c] of an answer whose JSON part has ``header`` bytes.

    Raises:
        ValueError, KeyError, TypeError, IndexError: it is anything but what was asked for.
    """
    length = int(header)
    if not 0 < length <= len(body):
        raise ValueError(f"{HEADER_LENGTH} is {length} and the body has {len(body)} bytes")
    document: dict[str, Any] = json.loads(body[:length])
    output = document["outputs"][0]
    spec = signature.output(card)
    told = (document["model_name"], str(document["model_version"]), output["name"], output["datatype"])
    expected = (card.name, str(card.version), spec.name, spec.v2)
    if told != expected:
        raise ValueError(f"it is {told}, not {expected}")
    shape = (n, *spec.row)
    if tuple(output["shape"]) != shape or output["parameters"]["binary_data_size"] != len(body) - length:
        raise ValueError(f"its shape is {output['shape']} with {len(body) - length} bytes, not {list(shape)}")
    return np.frombuffer(body, np.uint8, offset=length).reshape(shape)
