"""The smallest model that the repository takes, whose bytes depend on given weights."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ganserve.card import ImageShape, ModelCard
from ganserve.place import place
from ganserve.repository import Repository

Z, SIDE = 4, 2


def tiny_onnx(weights: str) -> bytes:
    """latent float32 [batch, 4] to image uint8 [batch, 2, 2, 1], by a matrix from the weights' digest."""
    digest = hashlib.sha256(weights.encode()).digest()
    matrix = np.frombuffer(digest[:16], np.uint8).astype(np.float32).reshape(Z, SIDE * SIDE)
    nodes = [
        helper.make_node("MatMul", ["latent", "matrix"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["grid"]),
        helper.make_node("Clip", ["grid", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["image"], to=TensorProto.UINT8),
    ]
    constants = {
        "matrix": matrix,
        "shape": np.array([-1, SIDE, SIDE, 1], np.int64),
        "low": np.float32(0),
        "high": np.float32(255),
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", Z])],
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def publish_tiny(root: str | Path, name: str, weights: str, job_id: str | None = None) -> int:
    """Publish it; returns the version."""
    content = tiny_onnx(weights)
    card = ModelCard(
        name=name,
        version=1,
        recipe="stub",
        source="none",
        dataset="digits",
        created_at=datetime.now(UTC),
        conditional=False,
        classes=[],
        z=Z,
        latent_recipe="philox-normal/v1",
        image=ImageShape(height=SIDE, width=SIDE, channels=1),
        opset=20,
        sha256=hashlib.sha256(content).hexdigest(),
        file_bytes=len(content),
        parameters=16,
        macs=16,
        training={"weights": weights},
        metrics={},
        notes=[],
        job_id=job_id,
    )
    return Repository(place(root)).publish(card, content, b"\x89PNG", job_id=job_id)
