"""A training may begin from a published graph: what is rebuilt makes its images, and norms behave as before."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import nn

from ganserve.card import ModelCard
from ganserve.repository import Repository
from tests.training.conftest import small
from training import networks, recover
from training.data import load
from training.export import FinishedRun, describe, to_onnx
from training.folding import folded
from training.graphs import Graph
from training.retrain import tasks
from training.sampling import draw_latents

SHIPPED = Repository(Path(__file__).parents[2] / "models")
VERSIONS = [(model, version) for model in SHIPPED.names() for version in SHIPPED.versions(model)]


def trained(recipe: str) -> FinishedRun:
    """A generator whose norms have seen noise and have scales and shifts of their own, as after a training."""
    config = small(recipe, load("digits"))
    torch.manual_seed(5)
    generator, _ = networks.build(config.settings.family, config.shape, config.settings.width)
    for name, parameter in generator.named_parameters():
        if parameter.dim() == 1 or "scale" in name or "shift" in name:
            parameter.data.add_(torch.rand_like(parameter) - 0.4)
    for module in generator.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    label = torch.arange(256) % config.shape.classes if config.shape.classes else None
    with torch.no_grad():
        for _ in range(8):
            generator(draw_latents(config.settings, 256, torch.device("cpu")), label)
    status = {"state": "finished", "step": 1, "steps": 1, "images": 16, "best": None}
    return FinishedRun(Path("run"), config, status, to_safetensors(generator.state_dict()))


@cache
def published(recipe: str) -> tuple[bytes, ModelCard]:
    run = trained(recipe)
    graph = Graph(folded(run.generator()), run.config.settings.image_range)
    content = to_onnx(graph, run, "m")
    return content, describe(run, "m", content, graph, None)


@pytest.mark.parametrize("recipe", ["gan-bn", "cdcgan", "projgan"])
def test_the_rebuilt_generator_makes_the_published_images_and_trains_like_the_one_it_was(
    recipe: str, tmp_path: Path
) -> None:
    run = trained(recipe)
    content, card = published(recipe)
    (tmp_path / "model.onnx").write_bytes(content)
    recover.recover(tmp_path / "model.onnx", card, tmp_path / "weights" / "live.safetensors")

    before, after = run.generator(), copy.deepcopy(run.generator())
    after.load_state_dict(load_file(tmp_path / "weights" / "live.safetensors"))
    latent = draw_latents(run.config.settings, 256, torch.device("cpu"))
    label = torch.arange(256) % run.config.shape.classes if run.config.shape.classes else None
    with torch.no_grad():
        assert float((before(latent, label) - after(latent, label)).abs().max()) < 2 / 255
        in_training, as_rebuilt = before.train()(latent, label), after.train()(latent, label)
    # Batch norm's statistics were measured over other noise: a few hundredths of their size apart.
    assert float((in_training - as_rebuilt).abs().mean()) < 0.03


@pytest.mark.parametrize(("model", "version"), VERSIONS)
def test_a_training_may_begin_from_every_version_that_was_published_so_far(
    model: str, version: int, tmp_path: Path
) -> None:
    # Raises where the rebuilt generator's images are not the published ones.
    tasks.recover(str(SHIPPED.root), model, version, str(tmp_path / "live.safetensors"))
    assert load_file(tmp_path / "live.safetensors")


def test_a_graph_of_other_weights_is_refused_by_name() -> None:
    content, _ = published("cdcgan")
    _, other = published("gan-bn")
    with pytest.raises(recover.RecoverError, match="does not hold the weights of its recipe's generator"):
        recover.rebuild(content, other)


def test_a_graph_that_computes_something_else_is_refused() -> None:
    content, card = published("gan-bn")
    model = onnx.load_from_string(content)
    next(node for node in model.graph.node if node.op_type == "Tanh").op_type = "Sin"
    with pytest.raises(recover.RecoverError, match="of 255 apart"):
        recover.rebuild(model.SerializeToString(), card)


def test_a_card_that_does_not_tell_its_training_is_refused() -> None:
    content, card = published("gan-bn")
    with pytest.raises(recover.RecoverError, match="does not tell how it was trained"):
        recover.rebuild(content, card.model_copy(update={"training": {}}))
