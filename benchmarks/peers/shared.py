"""What every peer does apart from its framework: the request, noise, grid, PNG or NPZ; the ONNX session."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

if TYPE_CHECKING:
    import onnxruntime

Pixels = NDArray[np.uint8]


class Ask(BaseModel):
    """The part of ganserve's request that the benchmark uses."""

    label: int
    n: int
    seed: int
    format: str = "png"


def session(threads: int = 1) -> onnxruntime.InferenceSession:
    """The file named by MODEL. One thread a process, where the framework runs a process a core."""
    import onnxruntime  # not for the peer that runs torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])


def noise(seed: int, n: int, z: int) -> NDArray[np.float32]:
    """The latent vectors of a request."""
    return np.random.default_rng(seed).standard_normal((n, z), dtype=np.float32)


def run_together(model: onnxruntime.InferenceSession, asked: list[dict[str, Any]]) -> list[Pixels]:
    """One run over the rows of several requests, at most 64 rows at once."""
    z = model.get_inputs()[0].shape[1]
    latent = np.concatenate([noise(a["seed"], a["n"], z) for a in asked])
    label = np.concatenate([np.full((a["n"], 1), a["label"], np.int64) for a in asked])
    parts = [
        model.run(None, {"latent": latent[i : i + 64], "label": label[i : i + 64]})[0]
        for i in range(0, len(latent), 64)
    ]
    images = np.concatenate(parts)
    return np.split(images, np.cumsum([a["n"] for a in asked])[:-1])


def encode(images: Pixels, label: int, form: str) -> tuple[bytes, str]:
    """The body of the answer and its media type."""
    buffer = io.BytesIO()
    if form == "npz":
        np.savez(buffer, images=images, labels=np.full(len(images), label))
        return buffer.getvalue(), "application/x-npz"
    columns = int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    height, width = images.shape[1] + 2, images.shape[2] + 2
    sheet = np.zeros((rows * height + 2, columns * width + 2), np.uint8)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        sheet[row * height + 2 : (row + 1) * height, column * width + 2 : (column + 1) * width] = image[..., 0]
    # The fastest of Pillow's levels; it costs a tenth more bytes.
    Image.fromarray(sheet).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), "image/png"
