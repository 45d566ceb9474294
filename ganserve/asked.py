"""What a call asks for, made definite and checked, whoever answers: a server or the local generator."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from ganserve import errors
from ganserve.address import hundredths
from ganserve.latents import MAX_SEED, consecutive

# An index, also numpy's; or a class name.
Label = SupportsIndex | str


@dataclass(frozen=True)
class Asked:
    """A request for ``n`` images.

    Attributes:
        label: one for all, a list that is taken in turn, or None: the classes in turn.
        n: how many.
        seed: of the first image; the others follow. None: whoever answers draws one.
        seeds: of each image, in the place of ``seed``.
        model, version: None: the default model, its live version.
        truncation: hundredths by which latents are scaled; None: as they are.
    """

    label: int | str | list[int | str] | None
    n: int
    seed: int | None
    seeds: list[int] | None
    model: str | None
    version: int | None
    truncation: int | None = None

    @classmethod
    def of(
        cls,
        label: Label | Iterable[Label] | None,
        n: int | None,
        seed: int | None,
        seeds: Iterable[int] | None,
        model: str | None,
        version: int | None,
        truncation: float | None = None,
    ) -> Asked:
        """What a call was given. Raises errors.Invalid for what no model can answer."""
        if seed is not None and seeds is not None:
            raise errors.Invalid("seed and seeds exclude each other: give one of them")
        chosen = _labels(label)
        listed = None if seeds is None else [_seed(one) for one in seeds]
        if listed == [] or chosen == []:
            raise errors.Invalid("an empty list was given: leave it out, or give at least one value")
        turn = chosen if isinstance(chosen, list) else None
        count = len(listed or turn or [None]) if n is None else _whole("n", n)
        if count < 1:
            raise errors.Invalid(f"n is {count}: expected at least 1")
        if listed is not None and count != len(listed):
            raise errors.Invalid(
                f"n is {count} but {len(listed)} seeds are given: leave n out, or make them agree"
            )
        if turn is not None and len(turn) > count:
            raise errors.Invalid(f"{len(turn)} labels for {count} images: give at most as many labels as images")
        first = None if seed is None else _seed(seed)
        number = None if version is None else _whole("version", version)
        return cls(chosen, count, first, listed, model, number, scaling(truncation))

    def seeds_from(self, start: int, size: int, first: int) -> NDArray[np.uint64]:
        """The seeds of ``size`` images from image ``start`` on, uint64 [size]; ``first`` is that of image 0."""
        if self.seeds is not None:
            return np.asarray(self.seeds[start : start + size], np.uint64)
        return consecutive((first + start) % MAX_SEED, size)


def scaling(truncation: float | None) -> int | None:
    """A truncation in hundredths; None for none, and for 1. Raises errors.Invalid for no number of hundredths."""
    try:
        return None if truncation is None else hundredths(float(truncation))
    except (TypeError, ValueError):
        raise errors.Invalid(
            f"truncation is {truncation!r}: expected whole hundredths above 0, up to 1, such as 0.7"
        ) from None


def in_turn(turn: Sequence[Any], start: int, size: int) -> list[Any]:
    """The values that give images ``start`` to ``start + size`` theirs, if they are taken in turn from there on."""
    return [turn[(start + index) % len(turn)] for index in range(min(len(turn), size))]


def _labels(given: Label | Iterable[Label] | None) -> int | str | list[int | str] | None:
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, Iterable) and getattr(given, "shape", True) != ():
        return [_label(label) for label in given]
    return _label(given)


def _label(given: Any) -> int | str:
    return str(given) if isinstance(given, str) else _whole("label", given, "a class name or an index")


def _seed(given: Any) -> int:
    seed = _whole("seed", given)
    if not 0 <= seed < MAX_SEED:
        raise errors.Invalid(f"seed {seed} is out of range: expected 0 <= seed < 2**53")
    return seed


def _whole(name: str, given: Any, expected: str = "a whole number") -> int:
    try:
        if isinstance(given, bool):
            raise TypeError
        return operator.index(given)
    except TypeError:
        raise errors.Invalid(f"{name} is {given!r}: expected {expected}") from None
