"""Images by request, in pieces of bounded memory: what is asked, and what the answers make together."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ganserve import errors
from ganserve.asked import Asked, in_turn
from ganserve.client import answers
from ganserve.client.exchange import Ask, Flow, Reply, checked
from ganserve.client.paths import version_path
from ganserve.images import Images

# Of one answer's pixels: a piece is at most so large, once it is known how large an image is.
PIECE_BYTES = 16 << 20
# Images of the first request, as large as images usually are small.
FIRST_PIECE = 256
# What the service says of a request for too many images, or for too many pixels.
_TOO_MANY = re.compile(r"images are too many for one (?:request|answer): at most ([0-9]+)")
_TOO_LARGE = re.compile(r"would be [0-9]+ x [0-9]+ pixels")

Tell = Callable[[int], None]


@dataclass
class Known:
    """What a client has learnt of its server.

    Attributes:
        limit: images that it gives in one answer, where it has said so.
        versions: the class names and the graph's sha256 of each version; a version never changes.
    """

    limit: int | None = None
    versions: dict[tuple[str, int], tuple[tuple[str, ...], str]] = field(default_factory=dict)

    def piece(self, row: int | None) -> int:
        """Images of the next request, where one has ``row`` bytes (None: not known yet)."""
        size = FIRST_PIECE if row is None else max(1, PIECE_BYTES // row)
        return size if self.limit is None else min(size, self.limit)

    def learn(self, reply: Reply, size: int) -> bool:
        """Whether ``size`` images were refused as too many, and fewer may be asked for."""
        if reply.status != 422 or size == 1:
            return False
        said = errors.problem(reply.status, reply.content).detail
        if (found := _TOO_MANY.search(said)) is not None and 0 < int(found[1]) < size:
            self.limit = int(found[1])
            return True
        if _TOO_LARGE.search(said):
            self.limit = size // 2
            return True
        return False


def of_version(known: Known, model: str, version: int) -> Flow[tuple[tuple[str, ...], str]]:
    """The classes of a version and its graph's sha256, asked for once."""
    if (model, version) not in known.versions:
        reply = yield Ask("GET", version_path(model, version))
        card = answers.document(checked(reply))
        read: Any = lambda told: (tuple(map(str, told["classes"])), str(told["sha256"]))  # noqa: E731
        known.versions[model, version] = answers.told_as(read, card)
    return known.versions[model, version]


def generate(known: Known, asked: Asked, tell: Tell) -> Flow[Images]:
    """All the images that are asked for; the first answer settles model, version and seed for the rest.

    Args:
        tell: is told how many images have come, after each piece.
    """
    made: Images | None = None
    done = 0
    while done < asked.n:
        row = None if made is None else made.images[0].nbytes
        size = min(known.piece(row), asked.n - done)
        reply = yield Ask("POST", "/generate", json=_fields(asked, made, done, size))
        if known.learn(reply, size):
            continue
        images, labels, seeds = answers.arrays(checked(reply))
        if len(images) != size:
            raise errors.BadAnswer(f"{size} images were asked for and {len(images)} came: is this the service?")
        if made is None:
            model, version, recipe = answers.made_by(reply)
            classes, graph = yield from of_version(known, model, version)
            made = _room(asked, images, (classes, model, version, recipe, graph))
        made.images[done : done + size] = images
        made.labels[done : done + size] = labels
        made.seeds[done : done + size] = seeds
        done += size
        tell(done)
    assert made is not None
    return made


def _room(asked: Asked, first: Any, told: tuple[tuple[str, ...], str, int, str, str]) -> Images:
    """Empty arrays for the images that are asked for, of the first ones' shape, of which all else is ``told``."""
    n = asked.n
    images = np.empty((n, *first.shape[1:]), np.uint8)
    return Images(images, np.empty(n, np.int64), np.empty(n, np.uint64), *told, asked.truncation)


def _fields(asked: Asked, made: Images | None, start: int, size: int) -> dict[str, Any]:
    """The request for images ``start`` to ``start + size``; ``made`` has those before."""
    first = made.seeds[0] if made is not None else asked.seed
    fields: dict[str, Any] = {
        "format": "npz",
        "n": size,
        "model": asked.model if made is None else made.model,
        "version": asked.version if made is None else made.version,
        "label": _turn(asked, made, start, size),
        "truncation": None if asked.truncation is None else asked.truncation / 100,
    }
    if asked.seeds is not None:
        fields["seeds"] = asked.seeds[start : start + size]
    elif first is not None:
        fields["seed"] = int(asked.seeds_from(start, 1, int(first))[0])
    return {name: value for name, value in fields.items() if value is not None}


def _turn(asked: Asked, made: Images | None, start: int, size: int) -> Any:
    """The label of the request: where labels are taken in turn, those of the images from ``start`` on."""
    if isinstance(asked.label, list):
        return in_turn(asked.label, start, size)
    if asked.label is None and made is not None and made.class_names:
        # By name: that means the same whether or not names are whole numbers.
        return in_turn(made.class_names, start, size)
    return asked.label


@dataclass
class Rows:
    """A synthetic data set, read batch by batch: row ``i`` is the image of seed ``seed + i``.

    Attributes:
        n: rows in all; None: without end.
        batch: rows of one answer.
        offset: the next row.
    """

    known: Known
    n: int | None
    batch: int
    model: str | None
    version: int | None
    seed: int
    offset: int
    balanced: bool
    truncation: int | None = None
    done: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("batch", 1), ("offset", 0), ("seed", 0)):
            given = getattr(self, name)
            if given is not None and given < least:
                raise errors.Invalid(f"{name} is {given}: expected at least {least}")

    @property
    def ended(self) -> bool:
        """Whether all rows were read."""
        return self.n is not None and self.done >= self.n

    def following(self) -> Flow[Images]:
        """The next batch. The first settles model and version, so that a promotion on the way changes nothing."""
        size = self.batch if self.n is None else min(self.batch, self.n - self.done)
        query = {
            "format": "npz",
            "seed": str(self.seed),
            "offset": str(self.offset),
            "n": str(size),
            "balanced": str(self.balanced).lower(),
        }
        if self.truncation is not None:
            query["truncation"] = f"{self.truncation / 100:g}"
        if self.model is not None:
            query["model"] = self.model
        if self.version is not None:
            query["version"] = str(self.version)
        reply = checked((yield Ask("GET", "/datasets/synthetic", query)))
        images, labels, seeds = answers.arrays(reply)
        self.model, self.version, recipe = answers.made_by(reply)
        classes, graph = yield from of_version(self.known, self.model, self.version)
        self.offset += len(images)
        self.done += len(images)
        return Images(images, labels, seeds, classes, self.model, self.version, recipe, graph, self.truncation)
