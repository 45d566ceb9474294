"""The plain side of the benchmark of training speed: another way to compute the same."""

from __future__ import annotations

import copy

import pytest
import torch

from benchmarks import training
from training import data, networks, recipes
from training.networks.cdcgan import Discriminator as WithMaps
from training.run import configure


@pytest.mark.parametrize("name", training.RECIPES)
def test_the_plain_side_has_networks_that_compute_what_ours_do(name: str) -> None:
    recipe = recipes.get(name, {"width": 0.25})
    shape = networks.Shape(recipe.z, 10 if recipe.conditional else 0, 3 if name == training.COLOUR else 1, 32)
    torch.manual_seed(0)
    generator, discriminator = (net.eval() for net in networks.build(recipe.family, shape, recipe.width))
    latent, label = torch.randn(6, recipe.z), torch.arange(6) if recipe.conditional else None
    # Without label maps of our own there is no need of a layer of our own.
    classes = shape.classes if isinstance(discriminator, WithMaps) else 0
    image = generator(latent, label)
    score = discriminator(image, label)
    plain_g, plain_d = (training.plainly(copy.deepcopy(net), classes).eval() for net in (generator, discriminator))
    torch.testing.assert_close(plain_g(latent, label), image)
    torch.testing.assert_close(plain_d(image, label), score, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "size", "channels"), [("cdcgan", 28, 1), (training.COLOUR, 32, 3)])
def test_the_plain_loop_trains_both_networks(name: str, size: int, channels: int) -> None:
    dataset = data.load("digits", size=size, channels=channels).subset(torch.arange(40))
    loop = training.PlainLoop(configure(name, dataset, overrides={"width": 0.125, "batch": 8}), dataset)
    before = [copy.deepcopy(list(net.parameters())) for net in (loop.generator, loop.discriminator)]
    loop.advance()
    for old, net in zip(before, (loop.generator, loop.discriminator), strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(old, net.parameters(), strict=True))
