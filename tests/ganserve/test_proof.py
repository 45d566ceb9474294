from __future__ import annotations

import hashlib

import numpy as np
import pytest

from ganserve.latents import latents
from ganserve.proof import exact_digest


@pytest.mark.parametrize("classes", [0, 3, 10])
def test_the_digest_is_of_the_pixels_of_seeds_0_to_255_with_the_classes_in_turn(classes: int) -> None:
    def run(latent: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        tint = np.zeros((len(latent), 1), np.int64) if label is None else label
        image: np.ndarray = (np.abs(latent[:, :12] * 32) + tint).astype(np.uint8).reshape(-1, 2, 3, 2)
        return image

    plain = hashlib.sha256()
    for seed in range(256):
        latent = latents("philox-grid/v1", [seed], 20)
        plain.update(run(latent, np.array([[seed % classes]]) if classes else None).tobytes())
    assert exact_digest(run, "philox-grid/v1", 20, classes) == plain.hexdigest()
