"""The float32 twin of an exact graph, for engines without the operators of whole numbers.

It holds the same whole numbers in float32, which is exact in any order, with or without fused multiply-add, and in
TF32 too: weights and activations have at most 8 bits, and no sum reaches 2**24. Three things change: quantising is
rounding and clipping, activations stand for themselves rather than beside a zero point, and weights are float32. The
file is read and written as protocol buffers' wire format, since the service has no package that knows ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Field numbers of onnx.proto.
_GRAPH = 7
_NODE, _INITIALIZER = 1, 5
_INPUT, _OUTPUT, _NAME, _OP_TYPE = 1, 2, 3, 4
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW_DATA = 1, 2, 8, 9
_FLOAT, _UINT8, _INT8 = 1, 2, 3
_TYPES = {_FLOAT: "<f4", _UINT8: "u1", _INT8: "i1"}

_VARINT, _BYTES = 0, 2
LEVELS = 255

Value = int | bytes


class TwinError(ValueError):
    """Not an exact graph of this package."""


def float32_twin(content: bytes) -> bytes:
    """The twin of an exact graph: an ONNX file of the same inputs and output that gives the same bytes.

    A pure function of ``content``. Raises TwinError if it holds no exact graph.
    """
    parts = list(_fields(content))
    graphs = [value for number, value in parts if number == _GRAPH]
    if len(graphs) != 1 or not isinstance(graphs[0], bytes):
        raise TwinError("this is no ONNX file")
    try:
        twin = _graph(graphs[0])
    except (LookupError, ValueError) as error:
        raise TwinError(f"this is no ONNX file of an exact graph: {error}") from error
    return b"".join(_field(number, twin if number == _GRAPH else value) for number, value in parts)


def _graph(graph: bytes) -> bytes:
    nodes: list[_Node] = []
    tensors: dict[str, bytes] = {}
    rest: list[tuple[int, Value]] = []
    for number, value in _fields(graph):
        if number == _NODE and isinstance(value, bytes):
            nodes.append(_Node.read(value))
        elif number == _INITIALIZER and isinstance(value, bytes):
            tensors[_text(value, _TENSOR_NAME)] = value
        else:
            rest.append((number, value))
    if not any(node.operator == "MatMulInteger" for node in nodes):
        raise TwinError("this graph multiplies no whole numbers: it has no twin")
    changed = [twin for node in nodes for twin in _twins(node, tensors)]
    used = {name for node in changed for name in node.inputs}
    kept = [value for name, value in tensors.items() if name in used]
    return b"".join(
        [
            *(_field(_NODE, node.write()) for node in changed),
            *(_field(_INITIALIZER, value) for value in kept),
            *(_field(number, value) for number, value in rest),
        ]
    )


def _twins(node: _Node, tensors: dict[str, bytes]) -> list[_Node]:
    """The nodes that stand in the twin for one of the graph; puts the constants that they need into ``tensors``."""
    name, inputs = node.outputs[0], node.inputs
    if node.operator == "QuantizeLinear":
        scale, zero = float(_array(tensors[inputs[1]])), int(_array(tensors[inputs[2]]))
        for end, level in (("low", -zero), ("high", LEVELS - zero)):
            tensors[f"{name}.{end}"] = _tensor(f"{name}.{end}", np.float32(level))
        # A power of two, so that the product is the quotient.
        tensors[f"{name}.by"] = _tensor(f"{name}.by", np.float32(1 / scale))
        return [
            _Node("Mul", [inputs[0], f"{name}.by"], [f"{name}.scaled"]),
            _Node("Round", [f"{name}.scaled"], [f"{name}.rounded"]),
            _Node("Clip", [f"{name}.rounded", f"{name}.low", f"{name}.high"], [name]),
        ]
    if node.operator == "MatMulInteger":
        tensors[inputs[1]] = _tensor(inputs[1], _array(tensors[inputs[1]]))
        return [_Node("MatMul", inputs[:2], node.outputs)]
    if node.operator == "Pad":
        # What pads is zero, and stands for itself in the twin.
        tensors[inputs[2]] = _tensor(inputs[2], np.float32(0))
    elif node.operator == "Mul" and inputs[1] in tensors:
        # By a mask of whole numbers, or by factors that are float32 already.
        tensors[inputs[1]] = _tensor(inputs[1], _array(tensors[inputs[1]]))
    return [node]


@dataclass(frozen=True)
class _Node:
    operator: str
    inputs: list[str]
    outputs: list[str]
    rest: bytes = b""

    @classmethod
    def read(cls, message: bytes) -> _Node:
        fields = list(_fields(message))
        inputs = [_decoded(value) for number, value in fields if number == _INPUT]
        outputs = [_decoded(value) for number, value in fields if number == _OUTPUT]
        known = (_INPUT, _OUTPUT, _NAME, _OP_TYPE)
        rest = b"".join(_field(number, value) for number, value in fields if number not in known)
        return cls(_text(message, _OP_TYPE), inputs, outputs, rest)

    def write(self) -> bytes:
        names = [(_INPUT, name) for name in self.inputs] + [(_OUTPUT, name) for name in self.outputs]
        names += [(_NAME, self.outputs[0]), (_OP_TYPE, self.operator)]
        return b"".join(_field(number, text.encode()) for number, text in names) + self.rest


def _array(tensor: bytes) -> NDArray[np.float32]:
    """A constant's values as float32, which holds each of them exactly."""
    kind, raw = 0, b""
    for number, value in _fields(tensor):
        if number == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == _RAW_DATA and isinstance(value, bytes):
            raw = value
    if kind not in _TYPES:
        raise TwinError(f"a constant of an exact graph has the type {kind}")
    values: NDArray[np.float32] = np.frombuffer(raw, _TYPES[kind]).astype(np.float32)
    return values.reshape(_shape(tensor))


def _shape(tensor: bytes) -> tuple[int, ...]:
    return tuple(value for number, value in _fields(tensor) if number == _DIMS and isinstance(value, int))


def _tensor(name: str, values: NDArray[np.float32] | np.float32) -> bytes:
    dims = b"".join(_field(_DIMS, size) for size in values.shape)
    raw = np.asarray(values, "<f4").tobytes()
    return dims + _field(_DATA_TYPE, _FLOAT) + _field(_TENSOR_NAME, name.encode()) + _field(_RAW_DATA, raw)


def _text(message: bytes, wanted: int) -> str:
    return next((_decoded(value) for number, value in _fields(message) if number == wanted), "")


def _decoded(value: Value) -> str:
    if isinstance(value, int):
        raise TwinError("this is no ONNX file")
    return value.decode()


def _fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """The fields of a message in order. ONNX has no other kinds here than whole numbers and lengths of bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == _VARINT:
            yield key >> 3, value
        elif key & 7 == _BYTES and at + value <= len(message):
            yield key >> 3, message[at : at + value]
            at += value
        else:
            raise TwinError("this is no ONNX file of an exact graph")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise TwinError("this is no ONNX file: it ends within a number")


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _written(number << 3 | _VARINT) + _written(value)
    return _written(number << 3 | _BYTES) + _written(len(value)) + value


def _written(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
