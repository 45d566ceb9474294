"""The graph's contract: which tensors a model takes and gives, in the words of everybody who asks.

======== ======= ========================= ====================================================
tensor   type    shape
======== ======= ========================= ====================================================
latent   float32 [batch, z]                always
label    int64   [batch, 1]                conditional models only; squeezed inside the graph
image    uint8   [batch, height, width, c] the output
======== ======= ========================= ====================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganserve.card import MAX_BATCH_SIZE, ModelCard


@dataclass(frozen=True)
class TensorSpec:
    """One tensor; ``row`` is its shape without the batch."""

    name: str
    onnx: str  # onnxruntime's name of the type
    v2: str  # the Open Inference Protocol's
    triton: str  # config.pbtxt's
    numpy: str  # little-endian, as it travels
    row: tuple[int, ...]


class SignatureMismatch(ValueError):  # noqa: N818  a fact about a graph, not a failure
    """The graph takes or gives something else than its card says; the message says both."""


def inputs(card: ModelCard) -> dict[str, TensorSpec]:
    """What a card's graph takes, by name."""
    found = {"latent": TensorSpec("latent", "tensor(float)", "FP32", "TYPE_FP32", "<f4", (card.z,))}
    if card.conditional:
        found["label"] = TensorSpec("label", "tensor(int64)", "INT64", "TYPE_INT64", "<i8", (1,))
    return found


def output(card: ModelCard) -> TensorSpec:
    """What a card's graph gives."""
    shape = card.image
    return TensorSpec(
        "image", "tensor(uint8)", "UINT8", "TYPE_UINT8", "|u1", (shape.height, shape.width, shape.channels)
    )


def feeds(card: ModelCard, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> dict[str, NDArray[Any]]:
    """What a session is given for latents float32 [n, z] and labels int64 [n] (None: the classes' first)."""
    given: dict[str, NDArray[Any]] = {"latent": latent}
    if card.conditional:
        chosen = np.zeros(len(latent), np.int64) if label is None else label
        given["label"] = chosen.reshape(-1, 1)
    return given


def check(session: Any, card: ModelCard) -> None:
    """Hold an onnxruntime session's inputs and outputs against its card.

    Raises:
        SignatureMismatch: other tensors, other types, another z, or a batch that is fixed.
    """
    taken = {i.name: (i.type, i.shape[1:]) for i in session.get_inputs()}
    expected = {spec.name: (spec.onnx, list(spec.row)) for spec in inputs(card).values()}
    if taken != expected:
        raise SignatureMismatch(f"the graph takes {taken}; its card says {expected}")
    given = {o.name: o.type for o in session.get_outputs()}
    if given != {"image": "tensor(uint8)"}:
        raise SignatureMismatch(f"the graph gives {given}; its card says one output, image of uint8")
    fixed = [i.name for i in session.get_inputs() if isinstance(i.shape[0], int)]
    if fixed:
        raise SignatureMismatch(f"the batch dimension of {', '.join(fixed)} is fixed, expected symbolic")


def config_pbtxt(card: ModelCard, live: int) -> str:
    """Triton's model configuration for a card, with ``live`` as the one version that is served."""
    listed = ",\n  ".join(_configured(spec) for spec in inputs(card).values())
    return (
        f'name: "{card.name}"\n'
        'backend: "onnxruntime"\n'
        f"max_batch_size: {MAX_BATCH_SIZE}\n"
        f"input [\n  {listed}\n]\n"
        f"output [\n  {_configured(output(card))}\n]\n"
        "dynamic_batching { }\n"
        f"version_policy {{ specific {{ versions: [ {live} ] }} }}\n"
    )


def _configured(spec: TensorSpec) -> str:
    dims = ", ".join(map(str, spec.row))
    return f'{{ name: "{spec.name}" data_type: {spec.triton} dims: [ {dims} ] }}'
