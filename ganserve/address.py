"""The address of a picture: everything that its pixels follow from, and nothing else.

Entity tags are computed from it, and PNG files carry it as text. An address is a value: equal addresses are equal
pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ganserve.card import ModelCard
from ganserve.latents import MAX_SEED, consecutive

MODEL, VERSION, SEED, RECIPE, LABEL = "X-Model", "X-Model-Version", "X-Seed", "X-Latent-Recipe", "X-Label"


class NoAddress(ValueError):  # noqa: N818
    """Text in which no address is told."""


@dataclass(frozen=True)
class Layout:
    """How tiles become one sheet: ``columns`` (None: the squarest), pixels of ``padding``, magnification."""

    columns: int | None = None
    padding: int = 0
    scale: int = 1


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
        cls, card: ModelCard, labels: NDArray[np.int64], seeds: NDArray[np.uint64], layout: Layout = Layout()
    ) -> Address:
        """Images of the version that ``card`` describes."""
        return cls(card.name, card.version, card.latent_recipe, card.sha256, labels, seeds, layout)

    @classmethod
    def parse(cls, text: Mapping[str, str]) -> Address:
        """What the text chunks of a PNG claim: the inverse of :meth:`text` for one image or for seeds one by one.

        A row of seeds is told by its first alone: how many there are is for the picture's size to say. Labels, layout
        and the graph's hash are not in the text.

        Raises:
            NoAddress: a part is missing, or is no name, number or seed.
        """
        try:
            seeds = [_whole(seed) for seed in text[SEED].split(",")]
            made = cls(text[MODEL], _whole(text[VERSION]), text[RECIPE], "", _NONE, np.asarray(seeds, np.uint64))
        except KeyError as error:
            raise NoAddress(f"no address: {error.args[0]} is not told") from None
        if made.version < 1 or max(seeds) >= MAX_SEED:
            raise NoAddress("no address: expected a version from 1 on, and seeds below 2**53")
        return made

    def text(self) -> dict[str, str]:
        """For the text chunks of a PNG, and for headers: ASCII names and values."""
        return {MODEL: self.model, VERSION: str(self.version), SEED: self.seed, RECIPE: self.recipe}

    @property
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


_NONE = np.zeros(0, np.int64)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise NoAddress(f"no address: {text[:40]!r} is not a whole number")
    return int(text)
