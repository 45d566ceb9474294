"""Generators as graphs: what is exported, how a graph is run here, and the sheet of samples that it makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from torch import Tensor, nn

from ganserve import encode, marks
from ganserve.card import ModelCard
from ganserve.latents import consecutive, latents
from training.sampling import to_uint8

SAMPLE_COLUMNS = 16


class Graph(nn.Module):
    """What is exported: latent float32 [batch, z] (and label int64 [batch, 1]) to image uint8 [batch, h, w, c]."""

    def __init__(self, generator: nn.Module, image_range: tuple[float, float]) -> None:
        super().__init__()
        self.generator = generator
        self.low, self.high = image_range

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        image = self.generator(latent, None if label is None else label.squeeze(1))
        return to_uint8(image, self.low, self.high).permute(0, 2, 3, 1)


def open_session(content: bytes) -> onnxruntime.InferenceSession:
    """One single-threaded CPU session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, noise: Any, label: Any | None) -> Any:
    """uint8 [batch, h, w, c] of noise float32 [batch, z] and label int64 [batch, 1]."""
    feeds = {"latent": noise} if label is None else {"latent": noise, "label": label}
    return session.run(["image"], feeds)[0]


def samples(content: bytes, card: ModelCard) -> bytes:
    """The PNG sheet of a model: 16 seeds from 0 on in a row a class (16 rows if it has no classes)."""
    rows = len(card.classes) or SAMPLE_COLUMNS
    noise = latents(card.latent_recipe, consecutive(0, rows * SAMPLE_COLUMNS), card.z)
    label = np.arange(rows, dtype=np.int64).repeat(SAMPLE_COLUMNS)[:, None] if card.conditional else None
    return marks.picture(encode.grid(run_session(open_session(content), noise, label), SAMPLE_COLUMNS))
