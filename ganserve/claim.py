"""What a picture, or its sender, claims: the text of an address, read back. Nothing of it is trusted.

:meth:`ganserve.address.Address.query` writes it; a sender may leave out what a look at the picture tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

import numpy as np
from numpy.typing import NDArray

from ganserve import labels
from ganserve.address import (
    GRAPH_DIGITS,
    LABEL,
    MODEL,
    SEED,
    TRUNCATION,
    VERSION,
    Address,
    Layout,
    hundredths,
)
from ganserve.card import NAME, ModelCard, VersionNotFound
from ganserve.latents import MAX_SEED, consecutive
from ganserve.marks import ADDRESS_KEY

MAX_IMAGES = 65536
MAX_PADDING, MAX_SCALE = 64, 32
# In this order, where a sender does not say: as /generate lays out, and as a single image stands.
_PADDINGS = (2, 0)
_FIELDS = ("model", "version", "label", "labels", "seed", "seeds", "n", "columns", "padding", "scale", "truncation")


class NoAddress(ValueError):  # noqa: N818
    """Text that is no address, or that of another picture; the message says what would be right."""


@dataclass(frozen=True, eq=False)
class Claim:
    """Where a picture is said to stand.

    Attributes:
        model, version: None: the default model, its live version.
        graph: how the sha256 of the graph begins; empty: not told.
        label: names or indices as people give them, in turn; None: the classes in turn.
        indices: of classes, in turn; None: ``label`` counts.
        n: how many images; None: as many as labels or seeds are listed.
        seed, seeds: the first one's seed, or each one's.
        columns, padding, scale: None: not told.
    """

    model: str | None
    version: int | None
    graph: str
    label: tuple[str, ...] | None
    indices: tuple[int, ...] | None
    n: int | None
    seed: int | None
    seeds: tuple[int, ...] | None
    columns: int | None
    padding: int | None
    scale: int | None
    truncation: int | None

    @classmethod
    def parse(cls, query: str) -> Claim:
        """From the text of an address.

        Raises:
            NoAddress
        """
        told, label = _fields(query)
        model, graph = told.get("model"), told.get("graph", "")
        if model is not None and not NAME.fullmatch(model):
            raise NoAddress(f"model {_short(model)} is no name: expected small letters, digits and -")
        if not re.fullmatch(f"([0-9a-f]{{{GRAPH_DIGITS},64}})?", graph):
            raise NoAddress(f"graph {_short(graph)} is none: expected at least {GRAPH_DIGITS} digits of a sha256")
        n, seeds = _whole(told, "n", 1, MAX_IMAGES), _listed(told, "seeds", MAX_SEED - 1)
        if ("seed" in told) == ("seeds" in told):
            raise NoAddress("the address has no seed, or two: give seed, or seeds")
        if seeds is not None and n not in (None, len(seeds)):
            raise NoAddress(f"n is {n} but {len(seeds)} seeds are given: leave n out, or make them agree")
        return cls(
            model,
            _whole(told, "version", 1, 2**31),
            graph,
            tuple(label) if label else None,
            _listed(told, "labels", 2**31),
            n,
            _whole(told, "seed", 0, MAX_SEED - 1),
            seeds,
            _whole(told, "columns", 1, MAX_IMAGES),
            _whole(told, "padding", 0, MAX_PADDING),
            _whole(told, "scale", 1, MAX_SCALE),
            _truncation(told.get("truncation")),
        )

    @classmethod
    def of_texts(cls, texts: Mapping[str, str]) -> Claim | None:
        """From what a picture carries, also a single image from before there were marks; None: it carries no address.

        Raises:
            NoAddress
        """
        if ADDRESS_KEY in texts:
            claim = cls.parse(texts[ADDRESS_KEY])
            if claim.model is None or claim.version is None:
                raise NoAddress("the picture's address names no model and version")
            return claim
        if not all(name in texts for name in (MODEL, VERSION, SEED, LABEL)) or "," in texts[SEED]:
            return None
        old = {"model": texts[MODEL], "version": texts[VERSION], "seed": texts[SEED], "padding": "0"}
        if TRUNCATION in texts:
            old["truncation"] = texts[TRUNCATION]
        return cls.parse(urlencode(old | {"label": texts[LABEL]}))

    def count(self, card: ModelCard) -> int:
        """How many images of the version of ``card``."""
        asked = self._asked(card) or ()
        return self.n or len(self.seeds or (asked if len(asked) > 1 else ())) or 1

    def at(self, card: ModelCard, size: tuple[int, int]) -> Address:
        """The address in the version of ``card``, of a picture of ``size`` (width, height).

        Raises:
            NoAddress: the layout gives a picture of another size.
            VersionNotFound: the version's graph is another.
            UnknownLabel: a label that the model does not have.
        """
        if not card.sha256.startswith(self.graph):
            raise VersionNotFound(
                f"the picture is of the graph {self.graph[:GRAPH_DIGITS]}, and {card.name} version {card.version} has "
                f"{card.sha256[:GRAPH_DIGITS]} here: another server's model has that name"
            )
        n = self.count(card)
        layout = self._layout(n, card, size)
        seeds = consecutive(self.seed or 0, n) if self.seeds is None else np.asarray(self.seeds, np.uint64)
        return Address.of(card, self._labels(n, card), seeds, layout, self.truncation)

    def _layout(self, n: int, card: ModelCard, size: tuple[int, int]) -> Layout:
        """The one that is told, else the first that gives the size."""
        image = card.image
        paddings = _PADDINGS if self.padding is None else (self.padding,)
        scales = range(1, MAX_SCALE + 1) if self.scale is None else (self.scale,)
        tried = [Layout(self.columns, padding, scale) for padding in paddings for scale in scales]
        for layout in tried:
            if layout.size(n, image.height, image.width) == size:
                return layout
        width, height = tried[0].size(n, image.height, image.width)
        raise NoAddress(
            f"the picture has {size[0]} x {size[1]} pixels, and {width} x {height} stand at the address: "
            "n, columns, padding and scale must give its size"
        )

    def _asked(self, card: ModelCard) -> list[str] | None:
        """Labels as /generate takes them; none where a model without classes is meant."""
        asked = None if self.label is None else labels.split(self.label, card.classes)
        return None if asked == ["-"] and not card.conditional else asked

    def _labels(self, n: int, card: ModelCard) -> NDArray[np.int64]:
        if self.indices is not None:
            last = max(1, len(card.classes)) - 1
            if max(self.indices) > last:
                raise labels.UnknownLabel(f"model {card.name} has no label {max(self.indices)}: at most {last}")
            return np.resize(np.asarray(self.indices, np.int64), n)
        asked = self._asked(card)
        if asked is not None and len(asked) > n:
            raise NoAddress(f"{len(asked)} labels for {n} images: give at most as many labels as images")
        return labels.rows(asked, n, card)


def _fields(query: str) -> tuple[dict[str, str], list[str]]:
    """Each field once, and the labels."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_IMAGES)
    except ValueError:
        raise NoAddress("the address has too many parts") from None
    told: dict[str, str] = {}
    named: list[str] = []
    listed = 0
    for name, value in pairs:
        if name == "label":
            named.append(value)
            listed += value.count(",") + 1
        elif name not in _FIELDS and name != "graph":
            raise NoAddress(f"{_short(name)} is no part of an address: expected {', '.join(_FIELDS)} or graph")
        elif name in told:
            raise NoAddress(f"{name} is given twice: give it once")
        else:
            told[name] = value
    if listed > MAX_IMAGES:
        raise NoAddress(f"more than {MAX_IMAGES} labels are told")
    if named and "labels" in told:
        raise NoAddress("label and labels exclude each other: give one of them")
    return told, named


def _listed(told: Mapping[str, str], name: str, most: int) -> tuple[int, ...] | None:
    if name not in told:
        return None
    parts = told[name].split(",", MAX_IMAGES)
    if len(parts) > MAX_IMAGES:
        raise NoAddress(f"more than {MAX_IMAGES} {name} are told")
    return tuple(_number(name, part, 0, most) for part in parts)


def _whole(told: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    return _number(name, told[name], least, most) if name in told else None


def _number(name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and least <= int(text) <= most):
        raise NoAddress(f"{name} is {_short(text)}: expected a whole number from {least} to {most}")
    return int(text)


def _truncation(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return hundredths(float(text) if len(text) <= 20 else 0.0)
    except ValueError:
        raise NoAddress(f"truncation is {_short(text)}: expected whole hundredths above 0, up to 1") from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
