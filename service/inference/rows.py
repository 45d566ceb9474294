"""What is asked for, and what of it still waits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ganserve.latents import latents
from service.inference.engine import Engine


@dataclass(frozen=True)
class Rows:
    """What to generate: a seed or a latent vector, and a label, for each image.

    Attributes:
        seeds: uint64 [n], or None where ``latent`` is given.
        labels: int64 [n], or None for an unconditional model.
        latent: float32 [n, z], in place of seeds.
        truncation: hundredths by which the latents of seeds are scaled; None: as they are.
    """

    seeds: NDArray[np.uint64] | None
    labels: NDArray[np.int64] | None
    latent: NDArray[np.float32] | None = None
    truncation: int | None = None

    def __len__(self) -> int:
        rows = self.seeds if self.latent is None else self.latent
        assert rows is not None
        return len(rows)

    def part(self, start: int, stop: int) -> Rows:
        """Some of the rows, not copied."""
        return Rows(
            None if self.seeds is None else self.seeds[start:stop],
            None if self.labels is None else self.labels[start:stop],
            None if self.latent is None else self.latent[start:stop],
            self.truncation,
        )

    def latents(self, engine: Engine) -> NDArray[np.float32]:
        """float32 [n, z]."""
        if self.latent is not None:
            return self.latent
        assert self.seeds is not None
        return latents(engine.card.latent_recipe, self.seeds, engine.card.z, self.truncation)

    @classmethod
    def together(cls, parts: list[Rows], engine: Engine) -> Rows:
        """All rows of several requests to one engine."""
        labels = [part.labels for part in parts if part.labels is not None]
        joined = np.concatenate(labels) if labels else None
        seeds = [part.seeds for part in parts if part.latent is None and part.seeds is not None]
        truncation = parts[0].truncation
        if len(seeds) == len(parts) and all(part.truncation == truncation for part in parts):
            return cls(np.concatenate(seeds), joined, None, truncation)
        return cls(None, joined, np.concatenate([part.latents(engine) for part in parts]))


@dataclass(eq=False, slots=True)
class Waiting:
    """A request in the queue.

    Attributes:
        n: rows in all.
        small: the event loop may run it.
        taken: rows that have left the queue, the first ones.
        dead: nobody waits for it any more.
        asked, started: seconds of ``time.perf_counter``; 0 until its first run.
    """

    engine: Engine
    rows: Rows
    n: int
    small: bool = False
    taken: int = 0
    dead: bool = False
    asked: float = field(default_factory=time.perf_counter)
    started: float = 0.0

    @property
    def left(self) -> int:
        """Rows that still wait."""
        return self.n - self.taken


W = TypeVar("W", bound=Waiting)


@dataclass(slots=True)
class Piece(Generic[W]):
    """Rows ``start`` to ``stop`` of a request."""

    job: W
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(slots=True)
class Chunk(Generic[W]):
    """What goes through an engine in one run."""

    engine: Engine
    pieces: list[Piece[W]]
