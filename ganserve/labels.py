"""What a label names: a class, by its name or by its index.

Indices are what the graph takes; names are what people say. Everything that is given a label asks here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ganserve.card import ModelCard

Label = int | str

LISTED = 20
_DIGITS = re.compile(r"[0-9]{1,9}")


class UnknownLabel(ValueError):  # noqa: N818
    """A label that the model does not have; the message says which it has."""


def read(text: str) -> Label:
    """A label as it stands in an address or a query: digits are an index, as a bare number is in JSON."""
    return int(text) if _DIGITS.fullmatch(text) else text


def index(label: Label, card: ModelCard) -> int:
    """The index of the class that ``label`` names in a model with classes. Raises UnknownLabel."""
    if isinstance(label, str):
        if label in card.classes:
            return card.classes.index(label)
        label = read(label)
    if isinstance(label, int) and 0 <= label < len(card.classes):
        return label
    names = ", ".join(card.classes[:LISTED]) + (", ..." if len(card.classes) > LISTED else "")
    raise UnknownLabel(
        f"model {card.name} has no label {label!r}: expected an index from 0 to {len(card.classes) - 1} or one of "
        f"{names}"
    )


def rows(asked: Label | Sequence[Label] | None, n: int, card: ModelCard) -> NDArray[np.int64]:
    """The label of each of ``n`` images, int64 [n]: one for all, a list in turn, or the classes in turn for None.

    A model without classes has zeros, which its graph does not take.

    Raises:
        UnknownLabel: one that the model does not have, or any where it has no classes.
    """
    if not card.conditional:
        if asked is not None:
            raise UnknownLabel(f"model {card.name} has no classes: leave label out, or take a conditional model")
        return np.zeros(n, np.int64)
    if isinstance(asked, int | str):
        return np.full(n, index(asked, card), np.int64)
    turn = range(len(card.classes)) if asked is None else [index(label, card) for label in asked]
    return np.resize(np.asarray(turn, np.int64), n)
