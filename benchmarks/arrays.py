"""The float32 twins of exact graphs by array libraries: numpy, PyTorch and CuPy, on whatever device these have.

Each is an engine of its own, with its own matrix product. It needs numpy, onnx and the library, and no runtime of ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# Sizes, ends and axes are read by the host.
ON_HOST = {"Reshape": (1,), "Pad": (1, 2), "Slice": (1, 2, 3), "Squeeze": (1,), "Clip": (1, 2)}
Operators = Mapping[str, Callable[..., Any]]


def reshape(x: Any, shape: NDArray[np.int64]) -> Any:
    """ONNX's: 0 keeps a size."""
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape.tolist())])


def cut(x: Any, first: NDArray[Any], last: NDArray[Any], axes: NDArray[Any]) -> Any:
    """ONNX's Slice of these graphs: step 1."""
    where = [slice(None)] * len(x.shape)
    for axis, a, b in zip(axes.tolist(), first.tolist(), last.tolist(), strict=True):
        where[axis] = slice(a, b)
    return x[tuple(where)]


def numpy_like(xp: Any) -> Operators:
    """Of numpy, and of what calls things as it does."""
    return {
        "Add": xp.add,
        "Cast": lambda x, to: x.astype(xp.float32 if to == TensorProto.FLOAT else xp.int32),
        "Clip": lambda x, low, high: xp.clip(x, float(low), float(high)),
        "Gather": lambda x, index, axis=0: xp.take(x, index, axis),
        "GatherElements": lambda x, index, axis=0: x[index],
        "LeakyRelu": lambda x, alpha: xp.where(x < 0, xp.float32(alpha) * x, x),
        "MatMul": xp.matmul,
        "Mul": xp.multiply,
        "Pad": lambda x, sizes, value: xp.pad(x, sizes.reshape(2, -1).T.tolist(), constant_values=float(value)),
        "Reshape": reshape,
        "Round": xp.rint,
        "Slice": cut,
        "Squeeze": lambda x, axes: x.reshape(x.shape[:1]),
        "Transpose": lambda x, perm: xp.transpose(x, perm),
    }


def torch_like(torch: Any) -> Operators:
    """PyTorch's."""

    def pad(x: Any, sizes: NDArray[Any], value: NDArray[Any]) -> Any:
        before, after = sizes.reshape(2, -1).tolist()
        flat = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
        return torch.nn.functional.pad(x, flat, value=float(value))

    def gather(x: Any, index: Any, axis: int = 0) -> Any:
        return x[index] if axis == 0 else torch.index_select(x, axis, index)

    return {
        "Add": torch.add,
        "Cast": lambda x, to: x.to(torch.float32 if to == TensorProto.FLOAT else torch.int32),
        "Clip": lambda x, low, high: torch.clamp(x, float(low), float(high)),
        "Gather": gather,
        "GatherElements": lambda x, index, axis=0: x[index.long()],
        "LeakyRelu": lambda x, alpha: torch.where(x < 0, np.float32(alpha).item() * x, x),
        "MatMul": torch.matmul,
        "Mul": torch.mul,
        "Pad": pad,
        "Reshape": reshape,
        "Round": torch.round,
        "Slice": cut,
        "Squeeze": lambda x, axes: x.reshape(x.shape[:1]),
        "Transpose": lambda x, perm: x.permute(perm),
    }


class Interpreter:
    """A twin, carried out operator by operator; ``put`` and ``get`` bring arrays to the library and back."""

    def __init__(
        self, content: bytes, operators: Operators, put: Callable[[Any], Any], get: Callable[[Any], Any]
    ) -> None:
        self.graph = onnx.load_from_string(content).graph
        self.operators, self.put, self.get = operators, put, get
        self.host = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer}
        self.constants = {name: put(value) for name, value in self.host.items()}

    def __call__(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """uint8 [batch, h, w, c] of latents float32 [batch, z] and labels int64 [batch, 1]."""
        known = {**self.constants, "latent": self.put(latent)}
        if label is not None:
            known["label"] = self.put(label)
        for node in self.graph.node:
            host = ON_HOST.get(node.op_type, ())
            inputs = [self.host[name] if i in host else known[name] for i, name in enumerate(node.input)]
            attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            known[node.output[0]] = self.operators[node.op_type](*inputs, **attributes)
        return np.asarray(self.get(known["image"]), np.uint8)


def by_numpy(twin: bytes) -> Interpreter:
    """On this processor, by numpy's linear algebra."""
    return Interpreter(twin, numpy_like(np), np.asarray, np.asarray)


def by_torch(twin: bytes, device: str) -> Interpreter:
    """By PyTorch on ``cpu`` or ``cuda``."""
    import torch

    def put(value: Any) -> Any:
        return torch.from_numpy(np.array(value, order="C")).to(device)

    return Interpreter(twin, torch_like(torch), put, lambda value: value.cpu().numpy())


def by_cupy(twin: bytes) -> Interpreter:
    """By CuPy on CUDA."""
    import cupy  # type: ignore[import-not-found]

    return Interpreter(twin, numpy_like(cupy), cupy.asarray, cupy.asnumpy)
