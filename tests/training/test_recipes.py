from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

from training import networks, recipes


def test_the_services_copy_of_the_table_is_in_step() -> None:
    copy = Path(recipes.__file__).parent.parent / "service" / "recipes.json"
    assert json.loads(copy.read_text(encoding="utf-8")) == recipes.catalogue(), "run python -m training.recipes"


def test_an_override_replaces_one_number_only() -> None:
    plain, changed = recipes.get("dcgan"), recipes.get("dcgan", {"lr_d": 1e-3})
    assert changed.optimiser.lr_d == 1e-3
    assert changed.optimiser.lr_g == plain.optimiser.lr_g
    assert changed.batch == plain.batch


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"lr_g": 5}, "out of bounds"),
        ({"batch": "many"}, "not a number"),
        ({"depth": 3}, "no override 'depth'"),
    ],
)
def test_a_wrong_override_says_what_would_be_right(overrides: dict[str, object], told: str) -> None:
    with pytest.raises(recipes.RecipeError, match=told):
        recipes.get("dcgan", overrides)


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(recipes.RecipeError, match="projgan"):
        recipes.get("stylegan")


@pytest.mark.parametrize(("native", "size"), [(6, 8), (8, 8), (28, 28), (32, 32), (40, 32), (300, 64)])
def test_images_are_fitted_to_the_largest_supported_edge(native: int, size: int) -> None:
    assert recipes.size_for(native) == size


@pytest.mark.parametrize("size", recipes.SUPPORTED_SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_every_recipe_builds_for_every_size_grey_or_colour(recipe: str, channels: int, size: int) -> None:
    settings = recipes.get(recipe)
    shape = networks.Shape(settings.z, 3 if settings.conditional else 0, channels, size)
    generator, discriminator = networks.build(settings.family, shape, 0.25)
    label = torch.tensor([0, 2]) if settings.conditional else None
    image = generator(torch.randn(2, settings.z), label)
    assert image.shape == (2, channels, size, size)
    assert len(discriminator(image, label)) == 2


def parameters(recipe: str) -> tuple[int, int]:
    settings = recipes.get(recipe)
    shape = networks.Shape(settings.z, 10 if settings.conditional else 0, 1, 28)
    pair = networks.build(settings.family, shape, settings.width)
    return tuple(sum(p.numel() for p in net.parameters()) for net in pair)  # type: ignore[return-value]


def test_the_sources_layer_sizes_are_kept() -> None:
    def dense(*widths: int) -> int:
        return sum((a + 1) * b for a, b in itertools.pairwise(widths))

    assert parameters("gan") == (dense(100, 256, 512, 1024, 784), dense(784, 1024, 512, 256, 1))
    assert parameters("cgan") == (dense(110, 256, 512, 1024, 784), dense(794, 1024, 512, 256, 1))
    norms = 2 * (512 + 1024)
    assert parameters("gan-bn") == (dense(100, 256, 512, 1024, 784) + norms, dense(784, 512, 256, 1))
