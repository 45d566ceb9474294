from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ganserve.grid import grid_latents
from ganserve.proof import exact_digest
from ganserve.twin import TwinError, float32_twin
from tests.training.exact.generators import RANGES, SHAPES, generator
from training.exact import Exact, ExactError, check_equal, export, reference
from training.networks import projection

FAMILIES = sorted(SHAPES)
LEVELS = ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"]
_made: dict[str, Exact] = {}


def exact(name: str) -> Exact:
    if name not in _made:
        recipe = "philox-uniform/v1" if name in RANGES else "philox-normal/v1"
        _made[name] = export(
            generator(name),
            latent_recipe=recipe,
            image_range=RANGES.get(name, (-1.0, 1.0)),
            metadata={"name": "tiny", "classes": "[]"},
            calibration=128,
        )
    return _made[name]


def session(content: bytes, level: str = "ORT_ENABLE_ALL", threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def feeds(made: Exact, batch: int, first: int = 0) -> dict[str, Any]:
    seeds = np.arange(first, first + batch)
    given: dict[str, Any] = {"latent": grid_latents(made.latent_recipe, seeds, made.program.z)}
    if made.program.classes:
        given["label"] = (np.arange(batch, dtype=np.int64) % made.program.classes)[:, None]
    return given


def expected(made: Exact, given: dict[str, Any]) -> np.ndarray:
    return reference(made.program, given["latent"], given.get("label"))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_graph_equals_its_reference_in_every_byte(name: str) -> None:
    made = exact(name)
    run = session(made.content)
    for batch in (1, 2, 7, 64, max(made.program.classes, 1)):
        given = feeds(made, batch, first=batch)
        assert np.array_equal(run.run(None, given)[0], expected(made, given))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_graph_makes_the_float_generators_images(name: str) -> None:
    """Layers read in a wrong order would make noise; whole numbers move a pixel by a few levels."""
    made = exact(name)
    given = feeds(made, 32)
    label = torch.from_numpy(given["label"])[:, 0] if "label" in given else None
    low, high = RANGES.get(name, (-1.0, 1.0))
    plain = generator(name)(torch.from_numpy(given["latent"]), label).permute(0, 2, 3, 1)
    wanted = ((plain - low) * (255 / (high - low))).round().clamp(0, 255).numpy()
    apart = np.abs(expected(made, given) - wanted)
    assert wanted.std() > 5
    assert apart.mean() < 0.15 * wanted.std()


@pytest.mark.parametrize("name", ["mlp-bn", "cdcgan", "dcgan colour", "projection"])
@pytest.mark.parametrize("threads", [1, 2])
def test_optimisation_levels_and_threads_change_no_byte(name: str, threads: int) -> None:
    made = exact(name)
    given = feeds(made, 33)
    for level in LEVELS:
        assert np.array_equal(session(made.content, level, threads).run(None, given)[0], expected(made, given)), level


@pytest.mark.parametrize("name", FAMILIES)
def test_the_float32_twin_gives_the_same_bytes_without_operators_of_whole_numbers(name: str) -> None:
    made = exact(name)
    twin = float32_twin(made.content)
    assert twin == float32_twin(made.content)
    model = onnx.load_from_string(twin)
    onnx.checker.check_model(model, full_check=True)
    assert not {node.op_type for node in model.graph.node} & {"MatMulInteger", "QuantizeLinear"}
    assert model.metadata_props == onnx.load_from_string(made.content).metadata_props
    given = feeds(made, 33)
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        assert np.array_equal(session(twin, level).run(None, given)[0], expected(made, given))


@pytest.mark.parametrize("name", ["mlp", "cdcgan", "projection"])
def test_a_latent_that_is_on_no_grid_is_quantised_and_clipped(name: str) -> None:
    made = exact(name)
    given = feeds(made, 7)
    wild = given | {"latent": (np.random.default_rng(0).standard_normal((7, made.program.z)) * 9).astype(np.float32)}
    assert np.array_equal(session(made.content).run(None, wild)[0], expected(made, wild))
    step = np.float32(made.program.latent_step)
    clipped = wild | {"latent": np.clip(np.rint(wild["latent"] / step), -128, 127) * step}
    assert np.array_equal(expected(made, wild), expected(made, clipped))


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_and_sums_are_within_the_bounds_that_make_them_exact(name: str) -> None:
    for step in exact(name).program.steps:
        assert np.abs(step.weight.astype(int)).max() <= 63
        extremes = [np.where(step.weight > 0, high, low) for low, high in ((0, 255), (255, 0))]
        for levels in extremes:
            sums = ((levels - step.before) * step.weight.astype(int)).sum(0)
            assert np.abs(sums + step.shift.astype(int)).max() < 2**24


def test_the_file_says_what_it_is_and_is_the_same_each_time() -> None:
    made = exact("projection")
    model = onnx.load_from_string(made.content)
    assert {p.key: p.value for p in model.metadata_props} == {
        "name": "tiny",
        "classes": "[]",
        "latent_recipe": "philox-grid/v1",
    }
    assert {node.domain for node in model.graph.node} == {""}
    again = export(
        generator("projection"), latent_recipe="philox-grid/v1", image_range=(-1.0, 1.0),
        metadata={"name": "tiny", "classes": "[]"}, calibration=128,
    )  # fmt: skip
    assert again.content == made.content
    assert again.digest == made.digest


def test_the_digest_is_that_of_256_addresses() -> None:
    made = exact("projection")
    run = session(made.content)
    told = exact_digest(
        lambda z, y: run.run(None, {"latent": z, "label": y})[0], made.latent_recipe, made.program.z, 10
    )
    assert told == made.digest


def test_a_graph_that_differs_from_its_reference_is_refused() -> None:
    made = exact("mlp")
    model = onnx.load_from_string(made.content)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight.1")
    weight.raw_data = bytes([weight.raw_data[0] ^ 3]) + weight.raw_data[1:]
    with pytest.raises(ExactError, match="differ in"):
        check_equal(model.SerializeToString(), made.program, made.latent_recipe)


def test_a_generator_of_another_shape_is_refused() -> None:
    with pytest.raises(ExactError, match="no exact form"):
        export(torch.nn.Linear(3, 4), latent_recipe="philox-grid/v1", image_range=(-1.0, 1.0), metadata={})


def test_a_layer_that_is_not_known_is_refused() -> None:
    other = generator("projection")
    assert isinstance(other, projection.Generator)
    other.ups[0] = torch.nn.ConvTranspose2d(32, 16, 2, 2, bias=False)
    with pytest.raises(ExactError, match="no exact form"):
        export(other, latent_recipe="philox-grid/v1", image_range=(-1.0, 1.0), metadata={}, calibration=64)


def test_a_file_that_breaks_off_has_no_twin() -> None:
    content = exact("mlp").content
    for length in range(0, len(content), 97):
        with pytest.raises(TwinError):
            float32_twin(content[:length])


def test_what_is_no_exact_graph_has_no_twin() -> None:
    for content in (b"", b"\xff", b"no graph at all", onnx.ModelProto(graph=onnx.GraphProto()).SerializeToString()):
        with pytest.raises(TwinError):
            float32_twin(content)
