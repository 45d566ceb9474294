"""One step of the game: who sees what, and what is left to look at."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tests.training.conftest import small
from training.batches import Batches
from training.data import Dataset
from training.gan import Extra, Gan


def nothing(fake: Tensor, label: Tensor | None) -> Extra | None:
    return None


def begun(recipe: str, dataset: Dataset) -> tuple[Gan, Batches]:
    config, accelerator = small(recipe, dataset), Accelerator(cpu=True)
    torch.manual_seed(0)
    return Gan(config.settings, config.shape, accelerator), Batches(dataset, config, accelerator)


def tensors(*nets: nn.Module) -> list[Tensor]:
    return [tensor.clone() for net in nets for tensor in net.state_dict().values()]


@pytest.mark.parametrize("recipe", ["cdcgan", "dcgan-gap", "dcgan", "wgan-gp"])
def test_a_look_after_a_step_leaves_no_trace(recipe: str, few: Dataset) -> None:
    gan, batches = begun(recipe, few)
    result = gan.step(0, batches, nothing)
    before, state = tensors(gan.generator, gan.discriminator), torch.get_rng_state()
    again = gan.score_again(result)
    assert again.shape == result.d_fake.shape
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(before, tensors(gan.generator, gan.discriminator), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("recipe", "rows"), [("cdcgan", [16, 16]), ("dcgan-gap", [16, 16]), ("dcgan", [32])])
def test_real_and_generated_images_share_a_pass_unless_batch_norm_would_mix_them(
    recipe: str, rows: list[int], few: Dataset
) -> None:
    gan, batches = begun(recipe, few)
    passes: list[int] = []
    gan.discriminator.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    gan.step(0, batches, nothing)
    assert passes == rows + [16] * gan.recipe.g_steps


def test_what_a_stage_asks_for_reaches_the_generator_and_the_reported_loss_is_the_games_alone(few: Dataset) -> None:
    (plain, batches), (asked, again) = begun("cgan", few), begun("cgan", few)

    def bright(fake: Tensor, label: Tensor | None) -> Extra:
        distance = (1 - fake).mean()
        return Extra(distance, (3 * distance, 2 * distance))

    torch.manual_seed(1)
    first = plain.step(0, batches, nothing)
    torch.manual_seed(1)
    second = asked.step(0, again, bright)
    assert torch.equal(first.loss_g, second.loss_g)
    assert first.distance is None
    assert second.distance is not None
    torch.manual_seed(2)
    noise, label = torch.randn(64, 100), torch.arange(64) % 10
    assert asked.generator(noise, label).mean() > plain.generator(noise, label).mean()


def test_critics_weights_are_clipped_and_a_step_shows_as_many_batches_as_the_recipe_says(few: Dataset) -> None:
    gan, batches = begun("wgan", few)
    shown: list[int] = []
    take = batches.take
    batches.take = lambda draw: shown.append(draw) or take(draw)  # type: ignore[func-returns-value, method-assign]
    gan.step(3, batches, nothing)
    assert shown == [15, 16, 17, 18, 19]
    assert max(float(p.detach().abs().max()) for p in gan.discriminator.parameters()) <= 0.01


def test_the_discriminator_does_not_learn_from_the_generators_update(few: Dataset) -> None:
    gan, batches = begun("gan", few)
    seen: list[list[Tensor]] = []
    step = gan.opt_d.step

    def remember(closure: None = None) -> None:
        step(closure)
        seen.append([p.detach().clone() for p in gan.discriminator.parameters()])

    gan.opt_d.step = remember  # type: ignore[assignment]
    gan.step(0, batches, nothing)
    assert len(seen) == 1
    assert all(torch.equal(a, b) for a, b in zip(seen[0], gan.discriminator.parameters(), strict=True))
    assert all(p.requires_grad for p in gan.discriminator.parameters())


def test_a_gan_taken_up_from_its_state_goes_on_to_the_same_bits(few: Dataset) -> None:
    gan, batches = begun("projgan-r3", few)
    gan.step(0, batches, nothing)
    state, random = copy.deepcopy(gan.state()), torch.get_rng_state()
    expected = gan.step(1, batches, nothing)
    other, again = begun("projgan-r3", few)
    other.load_state(state)
    torch.set_rng_state(random)
    found = other.step(1, again, nothing)
    assert torch.equal(found.loss_g, expected.loss_g)
    for a, b in zip(tensors(gan.generator), tensors(other.generator), strict=True):
        assert torch.equal(a, b)
