"""Which recipe fits a set of pictures, and for how long, where none is asked for.

Each choice is a row that was measured: small sets and colour in ``benchmarks/colour.md``, digits by the thousand in
``benchmarks/quality.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from training import recipes
from training.data import Dataset

# Fewer training pictures than this and moments of features, which the recipe for digits matches, are those of too few.
MANY = 20_000
# Below, a transposed convolution has hardly anything to enlarge.
SMALLEST = 16
# What was measured on 500 and on 1,000 pictures; a longer run shows each of them more than 500 times.
SMALL_IMAGES = 260_000
SMALL: Mapping[str, float | int] = {"batch": 64, "lr_g": 3e-4, "lr_d": 3e-4, "decay_from": 0.5}
# A run shorter than this share of its recipe's length is told so.
SHORT = 0.1


@dataclass(frozen=True)
class Choice:
    """A recipe with what it is given.

    Attributes:
        images: the length in images seen; None: the recipe's own.
        reason: a sentence for whoever started the run.
    """

    recipe: str
    reason: str
    images: int | None = None
    overrides: Mapping[str, float | int] = field(default_factory=dict)


def choose(dataset: Dataset) -> Choice:
    """What fits a labelled set, by its size, its edge and its channels."""
    n, edge = len(dataset), dataset.size
    told = f"{n:,} pictures of {edge} pixels in {'colour' if dataset.channels == 3 else 'grey'}"
    if edge < SMALLEST:
        return Choice("cgan", f"{told}: too small for layers that enlarge")
    if dataset.channels == 1 and n >= MANY:
        return Choice("projgan", f"{told}: enough of them to match moments")
    # Digits and letters are others when mirrored; photographs are not.
    mirror = int(dataset.channels == 3)
    if n >= MANY:
        return Choice("projgan-colour", f"{told}: features of a network of their own", overrides={"mirror": mirror})
    return Choice(
        "projgan-colour",
        f"{told}: few, so features of a network of their own and every picture varied",
        SMALL_IMAGES,
        {**SMALL, "mirror": mirror},
    )


def too_short(recipe: recipes.Recipe, images: int | None) -> str | None:
    """What to tell of a run for which so many images were asked, or None."""
    if images is None or images >= recipe.images * SHORT:
        return None
    return (
        f"{images:,} images are {images / recipe.images:.1%} of what {recipe.name} takes ({recipe.images:,}): expect "
        "pictures that are not there yet"
    )
