"""A program of whole numbers as an ONNX graph of standard operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.exact.quantise import LATENT_ZERO, TABLE_SIZE, Program, Step

OPSET, IR_VERSION = 20, 10
LONG_ROW = 1024


def to_onnx(program: Program, metadata: Mapping[str, str]) -> bytes:
    """The self-contained graph, checked: the same program gives the same bytes."""
    graph = _Graph()
    label = graph("Squeeze", "label", np.array([1], np.int64)) if program.classes else ""
    rows = graph("QuantizeLinear", "latent", np.float32(program.latent_step), np.uint8(LATENT_ZERO))
    for number, step in enumerate(program.steps):
        patches = _patches(graph, step, rows, program.steps[number - 1])
        scaled = _scaled(graph, step, number, patches, label)
        if step is program.steps[-1]:
            _pixels(graph, program, scaled)
        else:
            rows = _levels(graph, step, scaled)
    return graph.model(program, metadata)


def _patches(graph: _Graph, step: Step, rows: str, before: Step) -> str:
    """uint8 [batch, cells, inputs], or [batch, inputs] where all rows are one patch."""
    if step.index is None:
        return rows
    cells, patch = step.index.shape
    width = len(step.weight) // patch
    rows = graph("Reshape", rows, _shape(0, -1, width))
    if step.index.max() == before.cells * before.weight.shape[1] // width:
        rows = graph("Pad", rows, np.array([0, 0, 0, 0, 1, 0], np.int64), np.uint8(step.before))
    rows = graph("Gather", rows, step.index.reshape(-1), axis=1)
    return graph("Reshape", rows, _shape(0, cells, len(step.weight)))


def _scaled(graph: _Graph, step: Step, number: int, rows: str, label: str) -> str:
    """float32 [batch, runs, cells of a run * columns]: (sums + shift) * factor, of some cells at once.

    A table that is repeated for a run of cells is added in long rows; onnxruntime handles short ones one by one.
    """
    zero = (np.uint8(step.before),) if step.before else ()
    sums = graph("MatMulInteger", rows, graph.constant(step.weight, f"weight.{number}"), *zero)
    run = _run(step)
    if step.index is not None:
        sums = graph("Reshape", sums, _shape(0, step.cells // run, run * step.weight.shape[1]))
    sums = graph("Cast", sums, to=TensorProto.FLOAT)
    for operator, table in (("Add", step.shift), ("Mul", step.factor)):
        repeated = np.tile(table, run) if step.index is None else np.tile(table, run)[:, None]
        name = graph.constant(repeated if len(table) > 1 else repeated[0], f"{operator.lower()}.{number}.table")
        sums = graph(operator, sums, graph("Gather", name, label, axis=0) if len(table) > 1 else name)
    return sums


def _run(step: Step) -> int:
    """How many cells make a row of at most LONG_ROW values."""
    runs = [n for n in range(1, step.cells + 1) if step.cells % n == 0 and n * step.weight.shape[1] <= LONG_ROW]
    return max(runs, default=1)


def _levels(graph: _Graph, step: Step, scaled: str) -> str:
    if step.slope:
        scaled = graph("LeakyRelu", scaled, alpha=step.slope)
    rows = graph("QuantizeLinear", scaled, np.float32(1), np.uint8(step.zero))
    if step.inside is not None:
        run = _run(step)
        rows = graph("Mul", rows, step.inside.astype(np.uint8).reshape(step.cells // run, -1))
    return rows


def _pixels(graph: _Graph, program: Program, scaled: str) -> None:
    frame = program.frame
    index = graph("Clip", graph("Round", scaled), np.float32(0), np.float32(TABLE_SIZE - 1))
    index = graph("Reshape", graph("Cast", index, to=TensorProto.INT32), _shape(-1))
    # One by one from a table of one dimension: onnxruntime's Gather takes three times as long.
    pixels = graph("GatherElements", program.table, index, axis=0)
    height, width = frame.down * frame.block, frame.across * frame.block
    if frame.block > 1:
        cells = _shape(-1, frame.down, frame.across, frame.block, frame.block, program.channels)
        pixels = graph("Reshape", pixels, cells)
        pixels = graph("Transpose", pixels, perm=[0, 1, 3, 2, 4, 5])
    pixels = graph("Reshape", pixels, _shape(-1, height, width, program.channels), output="" if frame.crop else "image")
    if frame.crop:
        ends = height - frame.crop, width - frame.crop
        graph("Slice", pixels, _shape(frame.crop, frame.crop), _shape(*ends), _shape(1, 2), output="image")


def _shape(*sizes: int) -> NDArray[np.int64]:
    return np.array(sizes, np.int64)


class _Graph:
    """Nodes and constants as they are added; calling it adds a node and gives its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def __call__(self, operator: str, *inputs: Any, output: str = "", **attributes: Any) -> str:
        output = output or f"{operator.lower()}.{len(self.nodes)}"
        names = [self._name(x, f"{output}.{number}") for number, x in enumerate(inputs)]
        self.nodes.append(helper.make_node(operator, names, [output], name=output, **attributes))
        return output

    def _name(self, given: Any, name: str) -> str:
        return given if isinstance(given, str) else self.constant(np.asarray(given), name)

    def constant(self, value: NDArray[Any], name: str) -> str:
        self.constants[name] = value
        return name

    def model(self, program: Program, metadata: Mapping[str, str]) -> bytes:
        height, width = program.frame.place().shape
        inputs = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", program.z])]
        if program.classes:
            inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["batch", 1]))
        shape = ["batch", height, width, program.channels]
        output = helper.make_tensor_value_info("image", TensorProto.UINT8, shape)
        tensors = [numpy_helper.from_array(np.asarray(v, order="C"), name) for name, v in self.constants.items()]
        graph = helper.make_graph(self.nodes, "generator", inputs, [output], tensors)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="ganserve"
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content
