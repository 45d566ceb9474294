"""What an exact version promises, in one line: the digest of 256 named addresses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ganserve.grid import grid_latents

ADDRESSES = 256
BATCH = 32

Run = Callable[[NDArray[np.float32], NDArray[np.int64] | None], NDArray[np.uint8]]


def exact_digest(run: Run, recipe: str, z: int, classes: int, *, batch: int = BATCH) -> str:
    """SHA-256 over the pixels of seeds 0 to 255, seed i in class i modulo ``classes`` (none: no label), in hex.

    The images follow each other by seed; the pixels of one are its uint8 [height, width, channels], row by row.
    ``run`` makes such images, uint8 [batch, height, width, channels], of latents float32 [batch, z] and labels int64
    [batch, 1].
    """
    digest = hashlib.sha256()
    noise = grid_latents(recipe, np.arange(ADDRESSES), z)
    label = (np.arange(ADDRESSES) % classes)[:, None] if classes else None
    for first in range(0, ADDRESSES, batch):
        rows = slice(first, first + batch)
        digest.update(np.ascontiguousarray(run(noise[rows], None if label is None else label[rows])).tobytes())
    return digest.hexdigest()
