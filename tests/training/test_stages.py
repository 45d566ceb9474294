"""What a recipe's stages do to rates, averages, and what is shipped."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from tests.training.conftest import small
from training import recipes, stages
from training.data import Dataset
from training.loop import Loop


def of(recipe: str, dataset: Dataset, steps: int, **overrides: float) -> tuple[stages.Stage, ...]:
    images = 16 * steps * recipes.get(recipe).d_steps
    config = small(recipe, dataset, images=images, overrides=overrides)
    return stages.of(config, len(dataset), torch.device("cpu"))


def test_every_step_has_one_stage_and_a_stage_begins_where_the_one_before_ends(few: Dataset) -> None:
    for recipe in recipes.RECIPES:
        for steps in (1, 2, 3, 64):
            found = of(recipe, few, steps)
            assert found[0].first == 0
            assert found[-1].end == steps
            for step in range(steps):
                stage = stages.at(found, step)
                assert stage.first <= step < stage.end


def test_in_the_second_stage_rates_stay_and_the_average_remembers_longer_and_longer(few: Dataset) -> None:
    first, second, last = of("projgan", few, 60_000)
    assert first.rate(0) == second.rate(second.first) == second.rate(last.first - 1) == 1
    assert 0 < first.rate(first.end - 1) < 0.001
    forgotten = [1 - second.ema_decay(steps) for steps in (second.first, second.first + 4000, last.first)]
    assert forgotten == pytest.approx([1e-3, 5e-4, 4 / (4000 + last.first - second.first)], rel=1e-4)


def test_a_run_may_ask_for_another_decay_of_its_first_stage(few: Dataset) -> None:
    first, second, _ = of("projgan", few, 160, decay_from=0.9)
    assert [first.rate(step) for step in (0, 89)] == [1, 1]
    assert first.rate(95) == pytest.approx(0.5)
    assert second.rate(100) == 1
    (alone,) = of("gan", few, 100, decay_from=1.0)
    assert {alone.rate(step) for step in range(100)} == {1.0}


def test_frozen_features_of_a_discriminator_are_taught_before_the_first_step(few: Dataset) -> None:
    run = small("projgan-colour", few, images=64, overrides={"batch": 16, "width": 0.125})
    loop = Loop(run, few, Accelerator(cpu=True))
    frozen = loop.gan.discriminator.get_submodule("features")
    before = {name: buffer.clone() for name, buffer in frozen.named_buffers()}
    loop.advance(measure=False)
    taught = {name: buffer.clone() for name, buffer in frozen.named_buffers()}
    assert not any(torch.equal(before[name], taught[name]) for name in before)
    loop.advance(measure=False)
    assert all(torch.equal(taught[name], buffer) for name, buffer in frozen.named_buffers())


def test_a_young_average_does_not_remember_the_random_start(few: Dataset) -> None:
    (stage,) = of("projgan-r3", few, 60_000)
    assert stage.ema_decay(1) == pytest.approx(2 / 11)
    assert stage.ema_decay(50_000) == 0.999


def test_what_is_finished_is_what_is_shipped(few: Dataset) -> None:
    loop = Loop(small("projgan", few, images=16 * 64), few, Accelerator(cpu=True))
    while loop.step < loop.stages[-1].first:
        loop.advance(measure=False)
    before, generator = loop.to_export(), loop.gan.generator
    latent, label = torch.randn(64, 64), torch.arange(64) % 10
    loop.advance(measure=False)
    assert not generator.training
    after = loop.to_export()
    # One small step away from what would have been exported before it, and no measuring anew in between.
    assert (before(latent, label) - generator(latent, label)).abs().max() < 0.02
    for name, buffer in after.named_buffers():
        assert torch.equal(buffer, dict(generator.named_buffers())[name])
    statistics = [buffer.clone() for buffer in generator.buffers()]
    loop.advance(measure=True)
    assert all(torch.equal(a, b) for a, b in zip(statistics, generator.buffers(), strict=True))
    assert loop.gan.opt_g.param_groups[0]["lr"] < 0.05 * loop.gan.recipe.optimiser.lr_g
