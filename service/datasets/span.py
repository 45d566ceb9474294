"""A data set is a range of addresses: rows of a model and version, whose seeds and labels follow from their numbers.

Row ``i`` of a data set that begins at seed ``s`` has seed ``(s + i) mod 2**53``; its label follows from ``i`` or from
its seed. So any part of a data set can be made without the rest, and equal requests give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganserve import labels as named
from ganserve import marks
from ganserve.address import GRAPH_DIGITS
from ganserve.card import ModelCard
from ganserve.latents import MAX_SEED, consecutive, philox4x32_10

BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Span:
    """Rows ``offset`` to ``offset + n`` of the data set of a model that begins at ``seed``.

    Attributes:
        balanced: the classes in turn; else each row's class is drawn from its seed.
        truncation: hundredths by which latents are scaled; None: as they are.
    """

    card: ModelCard
    seed: int
    offset: int
    n: int
    balanced: bool
    truncation: int | None = None

    def rows(self, start: int, count: int) -> tuple[NDArray[np.uint64], NDArray[np.int64] | None]:
        """Seeds uint64 [count] and labels int64 [count] (None without classes) of the rows from ``start`` on."""
        seeds = consecutive((self.seed + start) % MAX_SEED, count)
        classes = len(self.card.classes)
        if not self.card.conditional:
            return seeds, None
        if self.balanced:
            return seeds, (start % classes + np.arange(count, dtype=np.int64)) % classes
        return seeds, drawn_labels(seeds, classes)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """The rows as (start, count), some thousand at a time."""
        for start in range(self.offset, self.offset + self.n, BLOCK_ROWS):
            yield start, min(BLOCK_ROWS, self.offset + self.n - start)

    def told(self) -> dict[str, Any]:
        """What names the rows, for the inside of a file."""
        told = {
            "model": self.card.name,
            "version": self.card.version,
            "latent_recipe": self.card.latent_recipe,
            "seed": self.seed,
            "offset": self.offset,
            "n": self.n,
            "balanced": self.balanced,
            "graph": self.card.sha256[:GRAPH_DIGITS],
            **marks.FIELDS,
        }
        return told if self.truncation is None else {**told, "truncation": self.truncation / 100}

    def addresses(self, start: int, count: int) -> list[str]:
        """Where each of the rows from ``start`` on stands, below the address of any server that has the model."""
        card = self.card
        seeds, labels = self.rows(start, count)
        end = "" if self.truncation is None else f"?truncation={self.truncation / 100:g}"
        stand = [named.in_path(label, card.classes) for label in range(len(card.classes))]
        places = ["-"] * count if labels is None else [stand[label] for label in labels.tolist()]
        base = f"/images/{card.name}/{card.version}"
        return [f"{base}/{place}/{seed}.png{end}" for place, seed in zip(places, seeds.tolist(), strict=True)]


def drawn_labels(seeds: NDArray[np.uint64], classes: int) -> NDArray[np.int64]:
    """A class drawn from each seed alone: int64 [n]. Word 0 of Philox at counter (0, 0, 0, 1), times classes / 2**32.

    Latents never reach that counter, so label and latent are independent.
    """
    key = np.stack([seeds & np.uint64(0xFFFFFFFF), seeds >> np.uint64(32)], axis=-1).astype(np.uint32)
    words = philox4x32_10(np.array([[0, 0, 0, 1]], np.uint32), key)[..., 0]
    return ((words.astype(np.uint64) * np.uint64(classes)) >> np.uint64(32)).astype(np.int64)
