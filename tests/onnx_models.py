"""Tiny generators as ONNX, for tests that need a real graph and no training."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def tiny_generator(
    z: int = 8, classes: int | None = 3, height: int = 8, width: int = 8, channels: int = 1, seed: int = 0
) -> bytes:
    """Images uint8 [batch, h, w, c] that depend on every latent value and on the label."""
    random = np.random.default_rng(seed)
    pixels = height * width * channels
    weights = {"w": random.normal(0, 40, (z, pixels)).astype(np.float32)}
    shape = np.array([-1, height, width, channels], np.int64)
    nodes = [helper.make_node("MatMul", ["latent", "w"], ["x0"])]
    inputs = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", z])]
    if classes:
        weights["table"] = random.normal(0, 40, (classes, pixels)).astype(np.float32)
        nodes += [
            helper.make_node("Squeeze", ["label", "one"], ["row"]),
            helper.make_node("Gather", ["table", "row"], ["bias"], axis=0),
            helper.make_node("Add", ["x0", "bias"], ["x1"]),
        ]
        inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["batch", 1]))
    else:
        nodes.append(helper.make_node("Identity", ["x0"], ["x1"]))
    nodes += [
        helper.make_node("Add", ["x1", "middle"], ["x2"]),
        helper.make_node("Round", ["x2"], ["x3"]),
        helper.make_node("Clip", ["x3", "low", "high"], ["x4"]),
        helper.make_node("Cast", ["x4"], ["x5"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["x5", "shape"], ["image"]),
    ]
    constants: dict[str, np.ndarray] = {
        **weights,
        "one": np.array([1], np.int64),
        "middle": np.array(128, np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(255, np.float32),
        "shape": shape,
    }
    output = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, channels])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "generator", inputs, [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
