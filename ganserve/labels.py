"""What a label names: a class, by its name or by its index.

Indices are what the graph takes; names are what people say. Everything that is given a label asks here. Where both fit,
the name wins; and where any name is a whole number, a number is a name and never an index, so that label 12 of the
classes ``1`` to ``12`` is class ``12``. Names are compared in Unicode's normal form C.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    # It brings pydantic, which clients do without.
    from ganserve.card import ModelCard

Label = int | str

LISTED = 20
# Characters of a name that can be asked for.
LONGEST_NAME = 200
# A header with more is left out.
LONGEST_HEADER = 1024
_INDEX = re.compile(r"[0-9]{1,9}")
# In the digits of any script, as int() reads them.
_WHOLE = re.compile(r"[+-]?\d{1,18}")
# What a header takes as it is: visible ASCII and blanks, without what is the list's and the encoding's own.
_PLAIN = " !\"#$&'()*+-./:;<=>?@[\\]^_`{|}~"


class UnknownLabel(ValueError):  # noqa: N818
    """A label that the model does not have; the message says which it has."""


def index(label: Label, card: ModelCard) -> int:
    """The index of the class that ``label`` names in a model with classes. Raises UnknownLabel."""
    text, names = str(label), _names(tuple(card.classes))
    for spelling in (text, unicodedata.normalize("NFC", text)):
        if (place := names.places.get(spelling)) is not None:
            return place
    number = _number(text)
    if names.numbers:
        # 01 is 1, as long as no other class is.
        alike = [] if number is None else names.numbers.get(number, [])
        if len(alike) == 1:
            return alike[0]
    elif _INDEX.fullmatch(text) and int(text) < len(card.classes):
        return int(text)
    raise UnknownLabel(_refusal(label, card))


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


def numbered(classes: Sequence[str]) -> bool:
    """Whether any name is a whole number: then numbers are names, and no index is."""
    return bool(_names(tuple(classes)).numbers)


def plain(classes: Sequence[str]) -> bool:
    """Whether every name is its index, or there are no classes: name and index then say the same."""
    return _names(tuple(classes)).plain


def in_path(place: int, classes: Sequence[str]) -> str:
    """How the class at an index stands in an address: its index, or its name, percent-encoded, where that would be
    taken for another's name."""
    return quote(classes[place], safe="") if numbered(classes) else str(place)


def split(values: Sequence[str], classes: Sequence[str] = ()) -> list[str]:
    """The labels of a query's values: each a list with commas, unless a class has a comma in its name."""
    if any("," in name for name in classes):
        return list(values)
    return [label for value in values for label in value.split(",")]


def header(labels: Sequence[int], classes: Sequence[str]) -> str | None:
    """The names of images' classes for a header: one where it is that of all, else in turn with commas.

    Names are percent-encoded UTF-8 where they are more than visible ASCII without commas and percent signs.

    Returns:
        None where names are their indices, or that would be longer than headers should be.
    """
    if plain(classes):
        return None
    if len(set(labels)) == 1:
        labels = labels[:1]
    if len(labels) > LONGEST_HEADER // 2:
        return None
    told = ",".join(_encoded(classes[label]) for label in labels)
    return told if len(told) <= LONGEST_HEADER else None


@dataclass(frozen=True)
class _Names:
    """The names of a model's classes, looked up: as they are and composed, and those of each whole number."""

    places: dict[str, int]
    numbers: dict[int, list[int]]
    plain: bool


# The same few models are asked again and again.
@lru_cache(maxsize=256)
def _names(classes: tuple[str, ...]) -> _Names:
    places = {name: place for place, name in reversed(list(enumerate(classes)))}
    for place, name in enumerate(classes):
        places.setdefault(unicodedata.normalize("NFC", name), place)
    numbers: dict[int, list[int]] = {}
    for place, name in enumerate(classes):
        if (number := _number(name)) is not None:
            numbers.setdefault(number, []).append(place)
    return _Names(places, numbers, all(name == str(place) for place, name in enumerate(classes)))


def _encoded(name: str) -> str:
    # Blanks at the ends are no part of a header's value.
    return quote(name, safe=_PLAIN if name == name.strip() else _PLAIN.strip())


def _number(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None


def _refusal(label: Label, card: ModelCard) -> str:
    shown = int(label) if isinstance(label, str) and _INDEX.fullmatch(label) else label
    names = ", ".join(card.classes[:LISTED]) + (", ..." if len(card.classes) > LISTED else "")
    if numbered(card.classes) and not plain(card.classes):
        return f"model {card.name} has no label {shown!r}: its names are whole numbers, so expected one of {names}"
    said = f"model {card.name} has no label {shown!r}: expected an index from 0 to {len(card.classes) - 1} or one of "
    if isinstance(label, str) and "," in label and any("," in name for name in card.classes):
        return f"{said}{names}; names have commas here, so a list is the parameter once a label"
    return f"{said}{names}"
