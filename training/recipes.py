"""The table of recipes: architecture, loss, optimiser and schedule, each with its source.

``python -m training.recipes`` writes ``service/recipes.json``, by which the service checks a retraining job's
overrides without importing torch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUPPORTED_SIZES = (8, 16, 28, 32, 64)

MNIST = 60_000


@dataclass(frozen=True)
class Optimiser:
    """``kind`` is adam or rmsprop; learning rates of the generator and of the discriminator."""

    kind: str = "adam"
    lr_g: float = 2e-4
    lr_d: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True)
class Adversarial:
    """The first stage of every run: the two networks' game alone.

    ``decay_from`` is the share of the stage from which on the learning rates fall to the share ``floor`` of themselves
    in a straight line. ``taught`` is the share of the run's length that the discriminator's frozen features are shown
    before the first step, for families that have any.
    """

    decay_from: float = 1.0
    floor: float = 0.0
    taught: float = 0.0
    begin: float = 0.0


@dataclass(frozen=True)
class Matching:
    """From the share ``begin`` of the run on, moments of frozen features are matched with this ``weight``
    (:data:`training.matching.COARSE`); the learning rates begin anew and stay, and the average of the weights grows
    longer instead."""

    begin: float
    weight: float


@dataclass(frozen=True)
class Finishing:
    """The end of a run, where the average is corrected as it is shipped (:data:`training.matching.FINE`).

    ``begin`` is the share of the run before it; ``rate`` the share of the learning rates that it begins with, and
    which falls to nothing; ``matching`` and ``margin`` are the weights of moments and of margins.
    """

    begin: float
    rate: float
    matching: float
    margin: float


Stage = Adversarial | Matching | Finishing


@dataclass(frozen=True)
class Recipe:
    """How one GAN is made. ``images`` is its length: real images shown to the discriminator. What each of the
    ``stages`` does, :mod:`training.stages` tells."""

    name: str
    source: str
    family: str
    conditional: bool
    loss: str
    images: int
    batch: int = 64
    z: int = 100
    latent: str = "philox-normal/v1"
    optimiser: Optimiser = field(default_factory=Optimiser)
    d_steps: int = 1
    g_steps: int = 1
    width: float = 1.0
    clip: float = 0.0
    gradient_penalty: float = 0.0
    r1_r2: float = 0.0
    penalty_every: int = 1
    ema: float = 0.0
    bfloat16: bool = True  # False: stays in float32 wherever it runs, since its pictures would suffer
    mirror: int = 0  # 1: every other real image is shown mirrored, where left and right do not matter
    stages: tuple[Stage, ...] = (Adversarial(),)
    image_range: tuple[float, float] = (-1.0, 1.0)


_QIITA_GAN = 'Qiita, "Conditional GAN と GAN の違い"'
_THEORY = "生成敵対ネットワーク (GAN) 理論と実装 (PyTorch)"
_DCGAN = "Qiita, DCGAN in Keras and PyTorch; Radford et al. 2015 (arXiv:1511.06434)"
_ZENN = 'Zenn, "基本的なGAN"'
_CDCGAN = 'Qiita, "Conditional GANをTensorflowで実装する"'
_DCGAN_ADAM = Optimiser(betas=(0.5, 0.999))
_FALLING: tuple[Stage, ...] = (Adversarial(decay_from=0.4),)

_TABLE = (
    # None of the sources of these six lets its rates fall or averages weights, and their lengths, where they name one,
    # end while images still improve: what is shipped has both, and trains for about as long as it improves. Networks,
    # losses, rates and batches are the sources'.
    Recipe(
        "gan",
        f"{_QIITA_GAN}; Goodfellow et al. 2014 (arXiv:1406.2661)",
        "mlp",
        False,
        "bce",
        90 * MNIST,  # the source: 50 epochs
        ema=0.9995,
        stages=_FALLING,
    ),
    Recipe(
        "gan-bn",
        _THEORY,
        "mlp-bn",
        False,
        "bce",
        100 * MNIST,  # as the source
        optimiser=Optimiser(lr_g=1e-4, lr_d=2e-4),
        ema=0.9995,
        stages=_FALLING,
    ),
    Recipe(
        "dcgan",
        _DCGAN,
        "dcgan",
        False,
        "bce",
        8000 * 128,  # the source: 3,001 steps
        batch=128,
        optimiser=_DCGAN_ADAM,
        ema=0.999,
        stages=_FALLING,
    ),
    Recipe(
        "dcgan-gap",
        _ZENN,
        "gap",
        False,
        "bce",
        16_000 * 128,  # as for `dcgan`
        batch=128,
        optimiser=_DCGAN_ADAM,
        ema=0.999,
        stages=_FALLING,
    ),
    Recipe(
        "wgan",
        f"{_ZENN}; Arjovsky et al. 2017 (arXiv:1701.07875)",
        "gap",
        False,
        "wasserstein",
        10_000 * 5 * 64,  # by the generator's steps
        optimiser=Optimiser("rmsprop", 5e-5, 5e-5),
        d_steps=5,
        clip=0.01,
        ema=0.999,
        stages=_FALLING,
    ),
    Recipe(
        "wgan-gp",
        "Gulrajani et al. 2017 (arXiv:1704.00028)",
        "gap-critic",
        False,
        "wasserstein",
        5000 * 5 * 64,  # by the generator's steps
        optimiser=Optimiser(lr_g=1e-4, lr_d=1e-4, betas=(0.0, 0.9)),
        d_steps=5,
        gradient_penalty=10.0,
        ema=0.999,
        stages=_FALLING,
    ),
    Recipe(
        "cgan",
        f"{_QIITA_GAN}; Mirza and Osindero 2014 (arXiv:1411.1784)",
        "mlp",
        True,
        "bce",
        # The source has 50 epochs, at constant rates and without an average: after these a tenth of the images has
        # another label than was asked for, and speckle.
        113 * MNIST,
        ema=0.9995,
        stages=(Adversarial(decay_from=0.4),),
    ),
    Recipe(
        "cdcgan",
        _CDCGAN,
        "cdcgan",
        True,
        "bce",
        # The source has 2,000 steps, at constant rates and without an average: its images are strokes that a judge
        # takes for the right digit four times in ten.
        40_600 * 64,
        latent="philox-uniform/v1",
        optimiser=_DCGAN_ADAM,
        g_steps=2,
        ema=0.999,
        stages=(Adversarial(decay_from=0.4),),
        image_range=(-0.5, 0.5),
    ),
    Recipe(
        "projgan",
        "ours, after Miyato and Koyama 2018 (arXiv:1802.05637) and Miyato et al. 2018 (arXiv:1802.05957), then with "
        "moments matched as in dos Santos et al. 2019 (arXiv:1904.02762)",
        "projection",
        True,
        "hinge",
        32_000 * 64,
        z=64,
        optimiser=_DCGAN_ADAM,
        ema=0.999,
        stages=(
            Adversarial(decay_from=0.5),
            Matching(begin=20 / 32, weight=0.4),
            Finishing(begin=30 / 32, rate=0.03, matching=0.7, margin=1.2),
        ),
    ),
    Recipe(
        "projgan-heads",
        "ours, `projgan` with a discriminator after Sauer et al. 2021 (Projected GANs, arXiv:2111.01007), on features "
        "of the run's own pictures",
        "heads",
        True,
        "hinge-heads",
        20_000 * 64,
        z=64,
        optimiser=_DCGAN_ADAM,
        ema=0.999,
        stages=(
            Adversarial(decay_from=0.5, taught=0.2),
            Matching(begin=18 / 32, weight=0.4),
            Finishing(begin=24 / 32, rate=0.03, matching=0.7, margin=1.2),
        ),
    ),
    Recipe(
        "projgan-r3",
        "ours, after Huang et al. 2024 (R3GAN, arXiv:2501.05441): relativistic with lazy R1 and R2",
        "projection",
        True,
        "relativistic",
        20_000 * 64,
        z=64,
        optimiser=_DCGAN_ADAM,
        r1_r2=1.0,
        penalty_every=8,
        ema=0.999,
        stages=(Adversarial(decay_from=0.5),),
    ),
    Recipe(
        "projgan-colour",
        "ours, after Sauer et al. 2021 (Projected GANs, arXiv:2111.01007), with features of the run's own pictures, "
        "and Zhao et al. 2020 (DiffAugment, arXiv:2006.10738)",
        "colour",
        True,
        "hinge-heads",
        3_600_000,
        batch=512,
        z=128,
        # At equal rates the discriminator falls behind, and what is made becomes less and less diverse.
        optimiser=Optimiser(lr_g=1.5e-4, lr_d=6e-4, betas=(0.0, 0.99)),
        ema=0.999,
        mirror=1,
        stages=(Adversarial(decay_from=0.4, floor=0.15, taught=0.25),),
    ),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _TABLE}

# Overrides that a run may ask for: names inside the optimiser and the first stage are written flat.
BOUNDS: Mapping[str, dict[str, Any]] = {
    "batch": {"type": "int", "min": 2, "max": 1024},
    "width": {"type": "float", "min": 0.125, "max": 4.0},
    "lr_g": {"type": "float", "min": 1e-7, "max": 1e-1},
    "lr_d": {"type": "float", "min": 1e-7, "max": 1e-1},
    "d_steps": {"type": "int", "min": 1, "max": 20},
    "g_steps": {"type": "int", "min": 1, "max": 20},
    "ema": {"type": "float", "min": 0.0, "max": 0.99999},
    "decay_from": {"type": "float", "min": 0.0, "max": 1.0},
    "mirror": {"type": "int", "min": 0, "max": 1},
}
_OPTIMISER_FIELDS = ("lr_g", "lr_d")
_STAGE_FIELDS = ("decay_from",)


class RecipeError(ValueError):
    """An unknown recipe or an override outside its bounds."""


def get(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of that name with the overrides applied.

    Raises:
        RecipeError: unknown recipe, unknown override, or a value of the wrong type or out of bounds.
    """
    if name not in RECIPES:
        raise RecipeError(f"unknown recipe {name!r}: expected one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    for key, value in (overrides or {}).items():
        checked: Any = _checked(name, key, value)
        if key in _OPTIMISER_FIELDS:
            optimiser = dataclasses.replace(recipe.optimiser, **{key: checked})
            recipe = dataclasses.replace(recipe, optimiser=optimiser)
        elif key in _STAGE_FIELDS:
            first, *later = recipe.stages
            recipe = dataclasses.replace(recipe, stages=(dataclasses.replace(first, **{key: checked}), *later))
        else:
            recipe = dataclasses.replace(recipe, **{key: checked})
    return recipe


def _checked(recipe: str, key: str, value: Any) -> float | int:
    if key not in BOUNDS:
        raise RecipeError(f"recipe {recipe!r} has no override {key!r}: expected one of {', '.join(BOUNDS)}")
    bound = BOUNDS[key]
    right = f"{bound['type']} from {bound['min']} to {bound['max']}"
    try:
        number = int(value) if bound["type"] == "int" else float(value)
    except (TypeError, ValueError):
        raise RecipeError(f"override {key}={value!r} is not a number: expected {right}") from None
    if not bound["min"] <= number <= bound["max"]:
        raise RecipeError(f"override {key}={value!r} is out of bounds: expected {right}")
    return number


def catalogue() -> dict[str, Any]:
    """The table as data: what the service needs to check a job."""
    return {
        recipe.name: {
            "conditional": recipe.conditional,
            "description": recipe.source,
            "images": recipe.images,
            "overrides": {key: {**bound, "default": default(recipe, key)} for key, bound in BOUNDS.items()},
        }
        for recipe in RECIPES.values()
    }


def default(recipe: Recipe, key: str) -> float | int:
    """The recipe's own value of an override."""
    holder: Any = recipe
    if key in _OPTIMISER_FIELDS:
        holder = recipe.optimiser
    elif key in _STAGE_FIELDS:
        holder = recipe.stages[0]
    value: float | int = getattr(holder, key)
    return value


def size_for(native: int) -> int:
    """The largest supported edge that does not exceed the data's own; the smallest one for tiny images."""
    return max((s for s in SUPPORTED_SIZES if s <= native), default=SUPPORTED_SIZES[0])


if __name__ == "__main__":
    target = Path(__file__).parent.parent / "service" / "recipes.json"
    target.write_text(json.dumps(catalogue(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {target.name}")
