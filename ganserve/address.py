"""The address of a picture: everything that its pixels follow from, and nothing else.

Entity tags are computed from it, and pictures carry it as text, which ``claim.py`` reads back. An address is a value:
equal addresses are equal pixels.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ganserve.latents import consecutive

if TYPE_CHECKING:
    # It brings pydantic, which clients do without.
    from ganserve.card import ModelCard

MODEL, VERSION, SEED, RECIPE, LABEL = "X-Model", "X-Model-Version", "X-Seed", "X-Latent-Recipe", "X-Label"
TRUNCATION = "X-Truncation"
# Of the sha256 of a graph, so many digits tell it from all others in a mark.
GRAPH_DIGITS = 16
# Labels that repeat after so many different places are told as what repeats.
_TURNS = 8


def hundredths(truncation: float) -> int | None:
    """A truncation in whole hundredths; None for 1, which leaves latents as they are. Raises ValueError for none."""
    if 0 < truncation <= 1:
        whole = round(truncation * 100)
        # As near as a number that was written with two digits lies.
        if whole and abs(truncation * 100 - whole) < 1e-9:
            return None if whole == 100 else whole
    raise ValueError(f"truncation {truncation:g} is out of range: expected whole hundredths above 0, up to 1")


def squarest(n: int) -> int:
    """Columns of the squarest grid of ``n`` tiles."""
    return math.ceil(math.sqrt(n))


@dataclass(frozen=True)
class Layout:
    """How tiles become one sheet: ``columns`` (None: the squarest), pixels of ``padding``, magnification."""

    columns: int | None = None
    padding: int = 0
    scale: int = 1

    def size(self, n: int, height: int, width: int) -> tuple[int, int]:
        """(width, height) of the sheet of ``n`` tiles, in pixels."""
        columns = min(self.columns or squarest(n), n)
        across, down = (side * self.scale + self.padding for side in (width, height))
        return columns * across + self.padding, -(-n // columns) * down + self.padding


@dataclass(frozen=True, eq=False)
class Address:
    """Images of one version of a model, in one layout.

    Attributes:
        graph: sha256 of ``model.onnx``; empty where it is not told.
        labels: class indices int64 [n], zeros for a model without classes; empty where they are not told.
        seeds: uint64 [n].
        truncation: hundredths by which latents are scaled; None: as they are.
    """

    model: str
    version: int
    recipe: str
    graph: str
    labels: NDArray[np.int64]
    seeds: NDArray[np.uint64]
    layout: Layout = field(default=Layout())
    truncation: int | None = None

    @classmethod
    def of(
        cls,
        card: ModelCard,
        labels: NDArray[np.int64],
        seeds: NDArray[np.uint64],
        layout: Layout = Layout(),
        truncation: int | None = None,
    ) -> Address:
        """Images of the version that ``card`` describes."""
        return cls(card.name, card.version, card.latent_recipe, card.sha256, labels, seeds, layout, truncation)

    def text(self) -> dict[str, str]:
        """For the text chunks of a PNG, and for headers: ASCII names and values."""
        told = {MODEL: self.model, VERSION: str(self.version), SEED: self.seed, RECIPE: self.recipe}
        return told if self.truncation is None else {**told, TRUNCATION: f"{self.truncation / 100:g}"}

    def query(self) -> str:
        """The whole address in one line of ASCII, as a picture carries it: :meth:`ganserve.claim.Claim.parse` reads it.

        Labels are indices, one for all or in turn; ``graph`` is the beginning of the graph's sha256.
        """
        n, seed, laid = len(self.seeds), self.seed, self.layout
        several = "," in seed
        parts = [f"model={self.model}&version={self.version}"]
        if len(self.labels):
            parts.append(f"labels={','.join(map(str, _turn(self.labels)))}")
        parts.append(f"seeds={seed}" if several else f"seed={seed}")
        if n > 1:
            parts.append(f"n={n}")
            if laid.columns is not None:
                parts.append(f"columns={laid.columns}")
        parts.append(f"padding={laid.padding}")
        if laid.scale != 1:
            parts.append(f"scale={laid.scale}")
        if self.truncation is not None:
            parts.append(f"truncation={self.truncation / 100:g}")
        if self.graph:
            parts.append(f"graph={self.graph[:GRAPH_DIGITS]}")
        return "&".join(parts)

    @cached_property
    def seed(self) -> str:
        """The seed of the first image where the others follow in a row, else all of them with commas."""
        first = int(self.seeds[0])
        n = len(self.seeds)
        if n == 1 or (self.seeds == consecutive(first, n)).all():
            return str(first)
        return ",".join(map(str, self.seeds.tolist()))

    def tag(self, made_by: str, form: str) -> str:
        """The opaque part of an entity tag, 32 hexadecimal digits: of these images as ``form``.

        Args:
            made_by: what the bytes depend on besides: the encoders, and the engine where that is not exact.
            form: how they are encoded.
        """
        laid = self.layout
        parts = f"{made_by}|{self.graph}|{self.model}|{self.version}|{form}|{laid.columns}|{laid.padding}|{laid.scale}|"
        if self.truncation is not None:
            parts += f"{self.truncation}|"
        digest = hashlib.blake2b(parts.encode(), digest_size=16)
        digest.update(self.labels.tobytes())
        digest.update(self.seeds.tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    @property
    def _value(self) -> tuple[object, ...]:
        labels, seeds = self.labels.tobytes(), self.seeds.tobytes()
        return (self.model, self.version, self.recipe, self.graph, labels, seeds, self.layout, self.truncation)


def _turn(labels: NDArray[np.int64]) -> list[int]:
    """The labels that, taken in turn, are these."""
    found: list[int] = labels.tolist()
    length = 0
    for _ in range(min(_TURNS, found.count(found[0]) - 1)):
        length = found.index(found[0], length + 1)
        # As lists: for a few labels an array costs more than all else here.
        if found[length:] == found[:-length]:
            return found[:length]
    return found
