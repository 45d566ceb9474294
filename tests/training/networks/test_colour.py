"""The pair for colour: what its layers equal, and what its discriminator is taught."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training import networks
from training.data import Dataset
from training.exact import export, reference
from training.folding import folded
from training.networks.colour import Discriminator, Generator, Spectral, Up


def pair(size: int = 32, channels: int = 3) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    generator, discriminator = networks.build("colour", networks.Shape(128, 10, channels, size), 0.25)
    assert isinstance(generator, Generator)
    assert isinstance(discriminator, Discriminator)
    return generator, discriminator


def test_an_enlargement_is_that_of_the_nearest_pixel_and_a_convolution() -> None:
    torch.manual_seed(0)
    up, x = Up(3, 5), torch.randn(2, 3, 4, 6)
    kernel = up.weight.flip(2, 3).transpose(0, 1)
    told = F.conv2d(F.interpolate(x, scale_factor=2), kernel, padding=1)
    assert torch.allclose(up(x), told, atol=1e-5)
    assert torch.allclose(up.plain()(x), told, atol=1e-5)
    again = Up(3, 5)
    again.take(up.kernel)
    assert torch.allclose(again.weight, up.weight, atol=1e-6)


def test_a_weight_is_divided_by_its_norm_and_only_a_pass_that_changes_it_looks_for_the_norm() -> None:
    torch.manual_seed(0)
    layer = Spectral(6, 4, 3, 3)
    layer.weight.data.mul_(torch.linspace(0.2, 5, 6)[:, None, None, None])
    for _ in range(100):
        layer()
    assert torch.linalg.matrix_norm(layer().flatten(1), 2).item() == pytest.approx(1, abs=1e-3)
    before = layer.left.clone()
    layer.weight.data.mul_(torch.rand(6, 1, 1, 1))
    layer.requires_grad_(False)()
    with torch.no_grad():
        layer.requires_grad_(True)()
    layer.eval()()
    assert torch.equal(layer.left, before)
    layer.train()()
    assert not torch.equal(layer.left, before)


def test_a_colour_flagship_has_at_most_thirty_million_multiply_adds() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    generator, _ = networks.build("colour", networks.Shape(128, 10, 3, 32))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(torch.zeros(1, 128), torch.tensor([1]))
    assert counter.get_total_flops() // 2 <= 30_000_000


def test_the_discriminator_sees_a_picture_otherwise_each_time_and_the_same_once_it_is_not_trained() -> None:
    _, discriminator = pair()
    image, label = torch.rand(2, 3, 32, 32) * 2 - 1, torch.tensor([1, 2])
    with torch.no_grad():
        assert not torch.equal(discriminator(image, label), discriminator(image, label))
    discriminator.eval()
    assert torch.equal(discriminator(image, label), discriminator(image, label))
    assert discriminator(image, label).shape == (2, 4)


def test_frozen_features_are_taught_scaled_and_given_no_gradient(digits: Dataset) -> None:
    _, discriminator = pair(8, 1)
    assert digits.labels is not None
    before, state = discriminator.features.get_buffer("weight1").clone(), torch.get_rng_state()
    discriminator.teach(digits.images, digits.labels, seed=0, shown=4000, mirror=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(discriminator.features.get_buffer("weight1"), before)
    for view in discriminator._seen(digits.images[:512].float() / 127.5 - 1):
        assert view.square().mean().sqrt().item() == pytest.approx(1, abs=1e-3)
    assert not any(name.startswith("features") for name, _ in discriminator.named_parameters())
    image = torch.zeros(2, 1, 8, 8, requires_grad=True)
    discriminator(image, torch.tensor([0, 1])).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_heads_for_many_pictures_see_them_as_they_are_beside_the_small_generator() -> None:
    generator, discriminator = networks.build("heads", networks.Shape(64, 10, 1, 28), 1.0)
    flagship, _ = networks.build("projection", networks.Shape(64, 10, 1, 28), 1.0)
    assert [p.shape for p in generator.parameters()] == [p.shape for p in flagship.parameters()]
    image, label = torch.rand(2, 1, 28, 28) * 2 - 1, torch.tensor([1, 2])
    with torch.no_grad():
        assert torch.equal(discriminator(image, label), discriminator(image, label))


def test_classes_of_the_small_generator_begin_apart_against_heads() -> None:
    def difference(family: str) -> float:
        torch.manual_seed(0)
        generator, _ = networks.build(family, networks.Shape(64, 10, 1, 28), 1.0)
        latent = torch.randn(32, 64)
        with torch.no_grad():
            one, other = (generator(latent, torch.full((32,), label)) for label in (3, 8))
        return float((one - other).abs().mean())

    assert difference("projection") == 0
    assert difference("heads") > 0.1


def test_its_generator_has_an_exact_form_at_32_and_64_pixels() -> None:
    for size in (32, 64):
        generator, _ = pair(size)
        generator.train()
        for _ in range(3):
            generator(torch.randn(64, 128), torch.arange(64) % 10)
        generator.eval()
        exact = export(
            generator, latent_recipe="philox-normal/v1", image_range=(-1.0, 1.0), metadata={}, calibration=64
        )
        latent, label = torch.randn(4, 128).mul(16).round().div(16), torch.tensor([[0], [3], [5], [9]])
        told = reference(exact.program, latent.numpy(), label.numpy()).astype(int)
        with torch.no_grad():
            real = folded(generator)(latent, label.squeeze(1)).add(1).mul(127.5).round().permute(0, 2, 3, 1).numpy()
        assert abs(told - real).mean() < 4
