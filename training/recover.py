"""A generator's weights out of its published ONNX file, so that a training can begin from any live version.

The graph keeps every weight under its own name, but batch norm is folded into its neighbours (:mod:`training.folding`).
A folded layer gives ``y``, and the norm that it once had is any norm for which ``norm(y) = y`` in evaluation mode:
mean ``m``, variance ``v``, scale ``sqrt(v + eps)``, shift ``m``. With ``m`` and ``v`` measured over the generator's own
noise, the norm does (nearly) the same to a training batch as well, so training begins where the live version is and not
from a distorted copy of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from ganserve import files
from ganserve.card import ModelCard
from ganserve.latents import consecutive, latents
from training import networks
from training.folding import folded
from training.graphs import Graph, open_session, run_session
from training.networks.colour import Up
from training.networks.projection import ConditionalBatchNorm
from training.run import RunConfig
from training.sampling import draw_latents

PREFIX = "generator."
MEASURED_BATCHES, MEASURED_ROWS = 32, 64
CHECKED = 64

Norm = nn.BatchNorm1d | nn.BatchNorm2d
Feed = Callable[[nn.Module], object]


class RecoverError(RuntimeError):
    """An ONNX file from which no generator can be rebuilt."""


def recover(onnx_file: Path, card: ModelCard, target: Path) -> None:
    """Write the weights of a published version as ``target`` (.safetensors).

    Raises:
        RecoverError: the file was not exported by this package, or the rebuilt generator makes other images.
    """
    content = onnx_file.read_bytes()
    generator = rebuild(content, card)
    tensors = {name: tensor.contiguous() for name, tensor in generator.state_dict().items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    files.replace(target, to_safetensors(tensors))


def rebuild(content: bytes, card: ModelCard) -> nn.Module:
    """The generator of an exported graph, in evaluation mode. Raises RecoverError."""
    try:
        config = RunConfig.from_dict({**card.training["config"], "init": None})
        recipe = config.settings
        generator, _ = networks.build(recipe.family, config.shape, recipe.width)
    except (KeyError, TypeError, ValueError) as error:
        raise RecoverError(f"the card of {card.name} {card.version} does not tell how it was trained") from error
    generator.eval().requires_grad_(False)
    _load_folded(generator, _weights(content), f"{card.name} {card.version}")
    rows, classes = MEASURED_ROWS, config.shape.classes

    def feed(network: nn.Module) -> None:
        label = torch.arange(rows) % classes if classes else None
        network(draw_latents(recipe, rows, torch.device("cpu")), label)

    _measure_norms(generator, feed)
    _check(generator, content, config)
    return generator


def _weights(content: bytes) -> dict[str, Tensor]:
    model = onnx.load_from_string(content)
    return {
        tensor.name.removeprefix(PREFIX): torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in model.graph.initializer
        if tensor.name.startswith(PREFIX)
    }


@torch.no_grad()
def _load_folded(generator: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    """Put the graph's weights in place and make every norm the identity."""
    expected = {key: tuple(tensor.shape) for key, tensor in folded(generator).state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    if expected != found:
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        told = "; ".join(f"{key}: {found.get(key)}, expected {expected.get(key)}" for key in wrong[:3])
        raise RecoverError(f"the graph of {name} does not hold the weights of its recipe's generator ({told})")
    own = generator.state_dict(keep_vars=True)
    for key, tensor in weights.items():
        layer = generator.get_submodule(key.rpartition(".")[0])
        if isinstance(layer, Up):
            layer.take(tensor)
        elif key in own:
            own[key].copy_(tensor)
    for norm in _norms(generator):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        if norm.affine:
            norm.weight.fill_(1)
            norm.bias.zero_()
    for key, norm in _without_bias(generator):
        norm.bias.copy_(weights[key])


def _norms(generator: nn.Module) -> list[Norm]:
    return [module for module in generator.modules() if isinstance(module, Norm)]


def _without_bias(generator: nn.Module) -> Iterator[tuple[str, Norm]]:
    """The norms whose shift the export made into the bias of a layer that has none, with that bias' name."""
    for path, module in generator.named_modules():
        if not isinstance(module, nn.Sequential):
            continue
        layers: list[Any] = list(module)
        for index, (layer, norm) in enumerate(itertools.pairwise(layers)):
            if isinstance(norm, Norm) and layer.bias is None:
                yield f"{path}.{index}.bias" if path else f"{index}.bias", norm


@torch.no_grad()
def _measure_norms(generator: nn.Module, feed: Feed) -> None:
    """Give each norm the statistics of what it sees, without changing what it gives in evaluation mode."""
    norms = _norms(generator)
    sums = {norm: [torch.zeros(norm.num_features, dtype=torch.float64) for _ in range(2)] for norm in norms}
    counts = dict.fromkeys(norms, 0)

    def look(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, Norm)
        seen = inputs[0].double().transpose(0, 1).flatten(1)
        sums[norm][0] += seen.sum(1)
        sums[norm][1] += seen.square().sum(1)
        counts[norm] += seen.shape[1]

    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(MEASURED_BATCHES):
            feed(generator)
    for hook in hooks:
        hook.remove()
    conditional = {module.norm: module for module in generator.modules() if isinstance(module, ConditionalBatchNorm)}
    for norm in norms:
        mean = sums[norm][0] / counts[norm]
        variance = (sums[norm][1] / counts[norm] - mean.square()).clamp(min=0)
        scale = (variance + norm.eps).sqrt().float()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        if norm.affine:
            norm.weight.copy_(scale)
            norm.bias.add_(mean.float())
        else:
            holder = conditional[norm]  # type: ignore[index]
            holder.shift.weight.add_(holder.scale.weight * mean.float())
            holder.scale.weight.mul_(scale)


@torch.no_grad()
def _check(generator: nn.Module, content: bytes, config: RunConfig) -> None:
    recipe, classes = config.settings, config.shape.classes
    noise = latents(recipe.latent, consecutive(0, CHECKED), recipe.z)
    label = (np.arange(CHECKED, dtype=np.int64) % classes)[:, None] if classes else None
    told = Graph(generator, recipe.image_range)(
        torch.from_numpy(noise), None if label is None else torch.from_numpy(label)
    ).numpy()
    published = run_session(open_session(content), noise, label)
    apart = int(np.abs(told.astype(int) - published.astype(int)).max())
    if apart > 1:
        raise RecoverError(f"the rebuilt generator's images are {apart} of 255 apart from the published file's")
