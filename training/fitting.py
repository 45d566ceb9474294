"""Which recipe fits a set of pictures, and for how long, where none is asked for.

Each choice is a row that was measured: small sets and colour in ``benchmarks/colour.md``, digits by the thousand in
``benchmarks/quality.md``, and digits in a few minutes in ``benchmarks/budgets.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from training import networks, precision, recipes
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
# In less than this share of its length a recipe for many pictures is not there yet: more and larger steps are sooner.
SOON = 0.25
FASTER: Mapping[str, float | int] = {"batch": 32, "lr_g": 4e-4, "lr_d": 4e-4}
# Seconds of a whole run over those of its steps' passes: what is taught, moments, optimisers, data, snapshots.
BESIDE: Mapping[str, float] = {"projgan": 3.0, "projgan-heads": 2.0, "projgan-colour": 1.25}
OTHERS = 1.5


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


def soon(choice: Choice, dataset: Dataset, images: int) -> Choice:
    """What fits, for a run of so many images: if that leaves a recipe for many pictures too little, smaller batches and
    faster rates bring the classes sooner, and so do, of grey ones, heads on features of their own."""
    if choice.images or dataset.size < SMALLEST or images >= recipes.get(choice.recipe).images * SOON:
        return choice
    grey = choice.recipe == "projgan"
    sooner = {**choice.overrides, **(FASTER if grey else SMALL)}
    told = f"{choice.reason}, in more time than that; so in smaller batches"
    return Choice("projgan-heads" if grey else choice.recipe, told, None, sooner)


def within(
    minutes: float,
    dataset: Dataset,
    overrides: Mapping[str, float | int],
    *,
    kind: str,
    threads: int,
    recipe: str | None = None,
) -> Choice:
    """What a set can be given in so many minutes of so many threads, by a trial of this machine's speed.

    Every recipe's schedule is in shares of its length, so that a short run has all stages, moments last; what fits
    is as in :func:`soon`.

    Args:
        overrides: those that were asked for; they are not among the choice's.
        kind: the precision, ``auto`` too.
        recipe: the one that was asked for; None: the one that fits.
    """

    def images(choice: Choice) -> int:
        asked = recipes.get(choice.recipe, {**choice.overrides, **overrides})
        classes = len(dataset.classes) if asked.conditional else 0
        shape = networks.Shape(asked.z, classes, dataset.channels, dataset.size)
        computes = precision.choose(asked, shape, precision.device())[0] if kind == precision.AUTO else kind
        seconds = precision.pace(asked, shape, computes) * BESIDE.get(choice.recipe, OTHERS)
        return int(minutes * 60 * threads / seconds)

    choice = choose(dataset) if recipe is None else Choice(recipe, f"{recipe} was asked for")
    fits = images(choice)
    if recipe is None:
        choice = soon(choice, dataset, fits)
        fits = images(choice)
    own = choice.images or recipes.get(choice.recipe).images
    told = f"about {fits:,} images in {minutes:g} minutes of {threads} thread{'s' if threads > 1 else ''}"
    if fits > own:
        told += f", of which {own:,} are enough"
    shown = max(1, min(fits, own))
    return Choice(choice.recipe, f"{choice.reason}; {told}", shown, choice.overrides)


def too_short(recipe: recipes.Recipe, images: int | None) -> str | None:
    """What to tell of a run for which so many images were asked, or None."""
    if images is None or images >= recipe.images * SHORT:
        return None
    return (
        f"{images:,} images are {images / recipe.images:.1%} of what {recipe.name} takes ({recipe.images:,}): expect "
        f"pictures that are not there yet; --images {math.ceil(recipe.images * SHORT)} is the least that serves"
    )
