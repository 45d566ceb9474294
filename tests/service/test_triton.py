"""The folder of shipped models, as Triton reads it: config.pbtxt, the graph and the live pointer say one thing."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2

from ganserve.repository import Repository
from ganserve.signature import config_pbtxt

MODELS = Path(__file__).parents[2] / "models"
SHIPPED = Repository(MODELS)
NAMES = SHIPPED.names()
# What Triton's onnxruntime backend takes for each type of a graph.
TYPES = {
    TensorProto.FLOAT: model_config_pb2.TYPE_FP32,
    TensorProto.INT64: model_config_pb2.TYPE_INT64,
    TensorProto.UINT8: model_config_pb2.TYPE_UINT8,
}


def tensors(values: Any) -> dict[str, tuple[int, list[int]]]:
    """Type and shape by name, without the batch, which must be the first and only free dimension."""
    found = {}
    for value in values:
        first, *rest = value.type.tensor_type.shape.dim
        assert first.dim_param
        assert all(dim.HasField("dim_value") for dim in rest)
        found[value.name] = (TYPES[value.type.tensor_type.elem_type], [dim.dim_value for dim in rest])
    return found


def test_models_are_shipped() -> None:
    assert "mnist-projgan" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_triton_reads_the_configuration_and_it_agrees_with_the_graph_and_the_pointer(name: str) -> None:
    config = text_format.Parse((MODELS / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    live = SHIPPED.live(name)
    assert live is not None
    assert (config.name, config.backend) == (name, "onnxruntime")
    assert config.max_batch_size >= 1
    assert list(config.version_policy.specific.versions) == [live]
    path = SHIPPED.model_path(name, live)
    # Triton looks for this name in the folder of a version, and nothing beside it is part of the network.
    assert path == MODELS / name / str(live) / "model.onnx"
    graph = onnx.load(path, load_external_data=False).graph
    assert not any(weight.data_location == TensorProto.EXTERNAL for weight in graph.initializer)
    for told, given in ((config.input, graph.input), (config.output, graph.output)):
        assert {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in told} == tensors(given)


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_is_what_the_live_card_gives(name: str) -> None:
    live = SHIPPED.live(name)
    assert live is not None
    card = SHIPPED.verify(name, live)
    assert (MODELS / name / "config.pbtxt").read_text() == config_pbtxt(card, live)
