"""Tiny real models, and what is needed to publish them."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ganserve.card import ImageShape, ModelCard
from ganserve.repository import Repository

Z, SIDE = 8, 8
CLASSES = ["zero", "one", "two"]


def network(*, conditional: bool = True, seed: int = 0, channels: int = 1, z: int = Z) -> bytes:
    """A generator of the signature that the repository asks for: a matrix product, a convolution, tanh, rounding."""
    random = np.random.default_rng(seed)
    features, width = 4, (z + len(CLASSES) if conditional else z)
    weights: dict[str, np.ndarray[Any, Any]] = {
        "dense": random.standard_normal((width, features * SIDE * SIDE)).astype(np.float32),
        "planes": np.array([-1, features, SIDE, SIDE], np.int64),
        "kernel": (random.standard_normal((channels, features, 3, 3)) * 0.2).astype(np.float32),
        "half": np.array(127.5, np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(255, np.float32),
    }
    inputs = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", z])]
    nodes = []
    source = "latent"
    if conditional:
        weights["table"] = np.eye(len(CLASSES), dtype=np.float32)
        weights["one"] = np.array([1], np.int64)
        inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["batch", 1]))
        nodes += [
            helper.make_node("Squeeze", ["label", "one"], ["index"]),
            helper.make_node("Gather", ["table", "index"], ["class"]),
            helper.make_node("Concat", ["latent", "class"], ["both"], axis=1),
        ]
        source = "both"
    nodes += [
        helper.make_node("MatMul", [source, "dense"], ["flat"]),
        helper.make_node("Reshape", ["flat", "planes"], ["maps"]),
        helper.make_node("Conv", ["maps", "kernel"], ["sum"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["sum"], ["signed"]),
        helper.make_node("Mul", ["signed", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "half"], ["shifted"]),
        helper.make_node("Round", ["shifted"], ["whole"]),
        helper.make_node("Clip", ["whole", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["bytes"], ["image"], perm=[0, 2, 3, 1]),
    ]
    output = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, channels])
    graph = helper.make_graph(
        nodes, "generator", inputs, [output], [numpy_helper.from_array(v, k) for k, v in weights.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def card(name: str, *, conditional: bool = True, channels: int = 1, **changes: Any) -> ModelCard:
    """A card for :func:`network`."""
    fields: dict[str, Any] = {
        "name": name,
        "version": 1,
        "recipe": "tiny",
        "source": "none",
        "dataset": "none",
        "created_at": datetime(2024, 1, 1, tzinfo=UTC),
        "conditional": conditional,
        "classes": CLASSES if conditional else [],
        "z": Z,
        "latent_recipe": "philox-normal/v1",
        "image": ImageShape(height=SIDE, width=SIDE, channels=channels),
        "opset": 20,
        "sha256": "0" * 64,
        "file_bytes": 0,
        "parameters": 1,
    }
    return ModelCard(**{**fields, **changes})


def publish(
    repository: Repository,
    name: str,
    *,
    seed: int = 0,
    live: bool = True,
    conditional: bool = True,
    channels: int = 1,
) -> int:
    """The next version of a tiny model."""
    content = network(conditional=conditional, seed=seed, channels=channels)
    samples = b"\x89PNG\r\n\x1a\nsamples"
    version = repository.publish(card(name, conditional=conditional, channels=channels), content, samples)
    if live:
        repository.promote(name, version)
    return version


def endless() -> bytes:
    """A generator of the same signature, for three classes, whose run does not end."""
    constants = {
        "most": np.array(np.iinfo(np.int64).max, np.int64),
        "yes": np.array(True),
        "shape": np.array([-1, SIDE, SIDE, 1], np.int64),
        "planes": np.zeros((1, SIDE * SIDE), np.float32),
    }
    scalar = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes"]), helper.make_node("Add", ["before", "before"], ["after"])],
        "turn",
        [
            scalar("turns", TensorProto.INT64, []),
            scalar("going", TensorProto.BOOL, []),
            scalar("before", TensorProto.FLOAT, None),
        ],
        [scalar("goes", TensorProto.BOOL, []), scalar("after", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Loop", ["most", "yes", "latent"], ["ended"], body=body),
        helper.make_node("ReduceSum", ["ended"], ["sum"]),
        helper.make_node("Cast", ["label"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["number", "sum"], ["both"]),
        helper.make_node("Add", ["both", "planes"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["pixels"]),
        helper.make_node("Cast", ["pixels"], ["image"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "endless",
        [
            helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", Z]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch", 1]),
        ],
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 1])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def overwrite(repository: Repository, name: str, version: int, content: bytes, **changes: Any) -> None:
    """Put another network, and other words in the card, in the place of a version's, without a check."""
    folder = repository.root / name / str(version)
    (folder / "model.onnx").write_bytes(content)
    told = json.loads((folder / "card.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    (folder / "card.json").write_text(json.dumps({**told, "sha256": digest, **changes}))
