"""A third implementation of exact graphs, written from ``docs/addresses.md`` alone: Python's and numpy's whole numbers.

It is slow and shares no code with the package; that it gives the known answers is what shows that the page suffices.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Values = NDArray[Any]
WORD = 2**32


def words(seed: int, n: int) -> list[int]:
    """The first ``n`` words of Philox4x32-10 of a seed."""
    found: list[int] = []
    for block in range(-(-n // 4)):
        c, k = [block, 0, 0, 0], [seed % WORD, seed // WORD]
        for _ in range(10):
            a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [b // WORD ^ c[1] ^ k[0], b % WORD, a // WORD ^ c[3] ^ k[1], a % WORD]
            k = [(k[0] + 0x9E3779B9) % WORD, (k[1] + 0xBB67AE85) % WORD]
        found += c
    return found[:n]


def levels(recipe: str, seed: int, z: int) -> list[float]:
    """A latent on the grid."""
    drawn = words(seed, z)
    if recipe == "philox-uniform-grid/v1":
        return [((word >> 24) - 128) / 128 for word in drawn]
    assert recipe == "philox-grid/v1"
    thresholds = [round(2**31 * math.erfc(-(k + 0.5) / 32 / math.sqrt(2))) for k in range(-127, 127)]
    return [(sum(t <= word for t in thresholds) - 127) / 32 for word in drawn]


def quantize(x: Values, step: Values, zero: Values) -> Values:
    return np.clip(np.rint(x / step).astype(np.int64) + int(zero), 0, 255)


def matmul(a: Values, b: Values, zero: Values | int = 0) -> Values:
    # float64 adds whole numbers of this size exactly, and fast.
    return ((a - int(zero)).astype(np.float64) @ b.astype(np.float64)).astype(np.int64)


def multiply(a: Values, b: Values) -> Values:
    """Of float32 by float32, one rounding; of levels by a mask, none."""
    return a * b if a.dtype == np.float32 else a * b.astype(np.int64)


def reshape(x: Values, shape: Values) -> Values:
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape.tolist())])


def cast(x: Values, to: int) -> Values:
    assert np.array_equal(x, np.rint(x)), "only whole numbers change their type"
    return x.astype(np.float32 if to == onnx.TensorProto.FLOAT else np.int64)


def pad(x: Values, sizes: Values, value: Values) -> Values:
    pairs = sizes.reshape(2, -1).T.tolist()
    return np.pad(x, pairs, constant_values=int(value))


def cut(x: Values, first: Values, last: Values, axes: Values) -> Values:
    where = [slice(None)] * x.ndim
    for axis, a, b in zip(axes, first, last, strict=True):
        where[axis] = slice(a, b)
    return x[tuple(where)]


OPERATORS: dict[str, Callable[..., Values]] = {
    "Add": lambda a, b: a + b,
    "Cast": cast,
    "Clip": np.clip,
    "Gather": lambda x, index, axis=0: np.take(x, index, axis),
    "GatherElements": lambda x, index, axis=0: x[index],
    "LeakyRelu": lambda x, alpha: np.where(x < 0, np.float32(alpha) * x, x),
    "MatMulInteger": matmul,
    "Mul": multiply,
    "Pad": pad,
    "QuantizeLinear": quantize,
    "Reshape": reshape,
    "Round": np.rint,
    "Slice": cut,
    "Squeeze": lambda x, axes: x.squeeze(tuple(axes.tolist())),
    "Transpose": lambda x, perm: x.transpose(perm),
}


def images(path: Path, addresses: list[tuple[int, int]]) -> Values:
    """Pixels [n, height, width, channels] of labels and seeds."""
    model = onnx.load(path)
    told = {entry.key: entry.value for entry in model.metadata_props}
    z = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    known: dict[str, Values] = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    known["latent"] = np.array([levels(told["latent_recipe"], seed, z) for _, seed in addresses], np.float32)
    known["label"] = np.array([[label] for label, _ in addresses])
    for node in model.graph.node:
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        known[node.output[0]] = OPERATORS[node.op_type](*(known[name] for name in node.input), **attributes)
    return known["image"].astype(np.uint8)


def digest(path: Path, classes: int) -> str:
    """Of the 256 addresses that a card promises."""
    addresses = [(seed % classes if classes else 0, seed) for seed in range(256)]
    return hashlib.sha256(images(path, addresses).tobytes()).hexdigest()
