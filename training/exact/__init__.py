"""A generator as an exact graph: whole numbers only, so that an address is one picture on every processor and engine.

    exact = export(generator, latent_recipe="philox-normal/v1", image_range=(-1.0, 1.0), metadata={"name": "digits"})
    exact.content             # an ONNX file
    reference(exact.program, latent, label)      # the same bytes, by numpy

``layers`` reads a generator as products of matrices, ``ranges`` sees how large its activations become, ``quantise``
makes whole numbers of both, ``rounding`` chooses the weights', ``graph`` writes them as ONNX, ``reference`` computes
them in numpy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import onnxruntime
from torch import nn

from ganserve.card import ModelCard
from ganserve.grid import grid_latents
from ganserve.latents import consecutive
from ganserve.proof import exact_digest
from training.exact.graph import OPSET, to_onnx
from training.exact.layers import ExactError, read
from training.exact.quantise import Program, quantise
from training.exact.ranges import IMAGES, calibrate
from training.exact.reference import reference
from training.exact.rounding import moments
from training.folding import folded

__all__ = ["GRIDS", "OPSET", "Exact", "ExactError", "check_equal", "exact_card", "export", "reference"]

# The recipe on a grid whose distribution is that of the recipe a generator was trained with.
GRIDS = {"philox-normal/v1": "philox-grid/v1", "philox-uniform/v1": "philox-uniform-grid/v1"}
CHECKED_BATCHES = (1, 2, 7, 64)


@dataclass(frozen=True)
class Exact:
    """An exact graph: its ONNX file, the whole numbers in it, its latent recipe, and the digest that replicas prove."""

    content: bytes
    program: Program
    latent_recipe: str
    digest: str


def export(
    generator: nn.Module,
    *,
    latent_recipe: str,
    image_range: tuple[float, float],
    metadata: Mapping[str, str],
    calibration: int = IMAGES,
) -> Exact:
    """The exact graph of a generator, checked against the whole-number reference.

    ``latent_recipe`` is the one that it was trained with, or that one's grid; ``metadata`` is that of
    :func:`training.export.metadata`, in which the grid takes the recipe's place; ``calibration``: how many images of
    its own show how large its activations become.

    Raises:
        ExactError: a layer that has no exact form, a sum that may reach 2**24, or a graph that differs from its
            reference.
    """
    grid = GRIDS.get(latent_recipe, latent_recipe)
    net = read(folded(generator))
    program = quantise(net, calibrate(net, grid, calibration), moments(net, grid), grid, image_range)
    content = to_onnx(program, {**metadata, "latent_recipe": grid})
    check_equal(content, program, grid)
    digest = exact_digest(lambda z, y: reference(program, z, y), grid, program.z, program.classes)
    return Exact(content, program, grid, digest)


def exact_card(card: ModelCard, exact: Exact) -> ModelCard:
    """The card of the exact form of what ``card`` describes."""
    changed = {
        "latent_recipe": exact.latent_recipe,
        "exact": True,
        "exact_digest": exact.digest,
        "opset": OPSET,
        "sha256": hashlib.sha256(exact.content).hexdigest(),
        "file_bytes": len(exact.content),
        "created_at": datetime.now(UTC),
        "training": dict(card.training),
        "metrics": {},
        "job_id": None,
    }
    return card.model_copy(update=changed)


def check_equal(content: bytes, program: Program, recipe: str) -> None:
    """Compare onnxruntime with the reference at several batches, in every class, on and off the grid.

    Raises:
        ExactError: a byte differs.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    for number, batch in enumerate((*CHECKED_BATCHES, max(program.classes, 1))):
        noise = grid_latents(recipe, consecutive(1000 * number, batch), program.z)
        feeds: dict[str, Any] = {"latent": noise if number % 2 else noise * np.float32(1.37)}
        if program.classes:
            feeds["label"] = (np.arange(batch, dtype=np.int64) % program.classes)[:, None]
        got = session.run(["image"], feeds)[0]
        expected = reference(program, feeds["latent"], feeds.get("label"))
        if got.dtype != np.uint8 or got.shape != expected.shape:
            raise ExactError(f"the graph gives {got.dtype} {got.shape}, not {expected.dtype} {expected.shape}")
        apart = int((got != expected).sum())
        if apart:
            raise ExactError(f"at batch {batch} the graph and its reference differ in {apart} of {got.size} values")
