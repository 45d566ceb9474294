"""Engines without networks, for tests that ask what happens around a run."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from ganserve.card import ModelCard


class DummyEngine:
    """A model without a network: pixel values tell label and latent."""

    provider = "dummy"
    exact = None

    def __init__(self, card: ModelCard, max_rows: int = 32) -> None:
        self.card = card
        self.max_rows = max_rows
        self.batches: list[int] = []
        # Tests close it to hold the lanes, and set what a run shall raise.
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """The mean of the latent, and the label, in every pixel."""
        self.batches.append(len(latent))
        self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        shape = self.card.image
        value = (np.abs(latent[:, 0]) * 1000).astype(np.int64) % 251
        if label is not None:
            value = (value + label * 7) % 256
        pixels = np.broadcast_to(
            value.astype(np.uint8)[:, None, None, None],
            (len(latent), shape.height, shape.width, shape.channels),
        )
        return np.ascontiguousarray(pixels)
