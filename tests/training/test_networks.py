from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from training import networks, recipes, teacher, trainer
from training.data import Dataset
from training.networks import cdcgan, dcgan, projected
from training.networks.dropout import Dropout
from training.networks.parts import in_parts


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_keeps_its_share_and_the_mean_and_passes_gradients_of_what_it_kept(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.ones(64, 6, 13, 17).contiguous(memory_format=layout).requires_grad_()
    y = Dropout(0.25)(x)
    assert y.stride() == x.stride()
    kept = y > 0
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.005)
    assert torch.equal(y[kept], torch.full_like(y[kept], 4 / 3))
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y)


def test_dropout_treats_every_place_and_every_byte_of_a_draw_alike() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(4000, 16)) > 0).float()
    assert float((kept.mean(0) - 0.5).abs().max()) < 0.04
    assert float(torch.corrcoef(kept.T).fill_diagonal_(0).abs().max()) < 0.08


def test_dropout_in_place_gives_what_it_gives_anew_and_its_gradient() -> None:
    x = torch.randn(8, 4, 5, 5, requires_grad=True)
    torch.manual_seed(0)
    expected = Dropout(0.25)(x * 1)
    (theirs,) = torch.autograd.grad(expected.square().sum(), x)
    torch.manual_seed(0)
    given = x * 1
    found = Dropout(0.25, inplace=True)(given)
    assert found.data_ptr() == given.data_ptr()
    assert torch.equal(found, expected)
    (ours,) = torch.autograd.grad(found.square().sum(), x)
    assert torch.equal(ours, theirs)


def test_dropout_does_nothing_in_evaluation_and_refuses_what_bytes_cannot_decide() -> None:
    x = torch.randn(3, 5)
    assert torch.equal(Dropout(0.25).eval()(x), x)
    for p in (0.3, 1.0, -0.25):
        with pytest.raises(ValueError, match="multiple of 1/256"):
            Dropout(p)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_dense_layer_reads_maps_in_either_layout_as_flattened_ones_and_copies_none(
    layout: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    dense, plain = dcgan.Dense(6 * 3 * 5, 2), nn.Linear(6 * 3 * 5, 2)
    plain.load_state_dict(dense.state_dict())
    maps = torch.randn(4, 6, 3, 5).contiguous(memory_format=layout).requires_grad_()
    found, expected = dense(maps), plain(maps.flatten(1))
    assert torch.allclose(found, expected, atol=1e-6)
    ours = torch.autograd.grad(found.square().sum(), [maps, dense.weight, dense.bias])
    theirs = torch.autograd.grad(expected.square().sum(), [maps, plain.weight, plain.bias])
    for mine, its in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, its, atol=1e-5)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("family", ["cdcgan", "gap"])
def test_parts_of_a_batch_are_normalised_as_if_the_network_had_seen_one_after_the_other(family: str) -> None:
    torch.manual_seed(0)
    shape = networks.Shape(100, 10 if family == "cdcgan" else 0, 1, 28)
    _, network = networks.build(family, shape, 0.25)
    twin = copy.deepcopy(network)
    parts = torch.rand(6, 1, 28, 28) + 1, torch.rand(6, 1, 28, 28) - 1
    labels = (torch.arange(12) % 10).chunk(2) if shape.classes else (None, None)
    label = torch.arange(12) % 10 if shape.classes else None
    with in_parts(network, 2):
        found = network(torch.cat(parts), label)
    expected = torch.cat([twin(part, its) for part, its in zip(parts, labels, strict=True)])
    assert torch.allclose(found, expected, atol=1e-5)
    for ours, theirs in zip(network.buffers(), twin.buffers(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6), "running averages saw both parts in turn"
    gradients = [
        torch.autograd.grad(x.square().sum(), net.parameters()) for x, net in ((found, network), (expected, twin))
    ]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()) + 1e-5)
    assert not torch.allclose(network(torch.cat(parts), label), expected, atol=1e-2), "and the parts are over"


def test_a_batch_norm_that_would_mix_the_parts_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with pytest.raises(TypeError, match="BatchNorm2d would mix the parts"), in_parts(network, 2):
        pass


def test_labels_looked_up_score_as_labels_joined_to_the_image_as_maps() -> None:
    torch.manual_seed(0)
    _, network = cdcgan.build(100, 10, 1, 28, 0.25)
    assert isinstance(network, cdcgan.Discriminator)
    image, label = torch.randn(8, 1, 28, 28), torch.arange(8)
    maps = F.one_hot(label, 10).float()[:, :, None, None].expand(-1, -1, 28, 28)
    joined = network.body(torch.cat([image, maps], 1)).squeeze(1)
    assert torch.allclose(network(image, label), joined, atol=1e-5)


def test_frozen_features_are_taught_once_and_no_step_moves_them(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "EPOCH_IMAGES", 3000)
    recipe = dataclasses.replace(recipes.get("projgan"), name="trial", family="projected", width=0.25, batch=16)
    monkeypatch.setitem(recipes.RECIPES, "trial", recipe)
    loop = trainer.Loop(trainer.configure("trial", digits), digits, Accelerator(cpu=True))
    assert isinstance(loop.discriminator, projected.Discriminator)
    drawn = loop.discriminator.features.get_buffer("weight0").clone()
    state = torch.get_rng_state()
    loop.begin()
    assert torch.equal(torch.get_rng_state(), state)
    taught = {name: buffer.clone() for name, buffer in loop.discriminator.features.named_buffers()}
    assert not torch.equal(taught["weight0"], drawn)
    for _ in range(3):
        loop.advance(measure=True)
    for name, buffer in loop.discriminator.features.named_buffers():
        assert torch.equal(buffer, taught[name])
        assert f"features.{name}" in loop.state()["discriminator"]


def test_taught_features_tell_the_classes_apart(digits: Dataset) -> None:
    features = projected.Features(1)
    assert digits.labels is not None
    _, loss = teacher.teach(features, digits.images, digits.labels, 10, seed=0)
    assert loss < 1.0, "guessing costs 2.3, label smoothing alone 0.5"
    last = features(digits.images.float() / 127.5 - 1)[-1].mean((2, 3))
    centres = torch.stack([last[digits.labels == c].mean(0) for c in range(10)])
    nearest = torch.cdist(last, centres).argmin(1)
    assert float((nearest == digits.labels).float().mean()) > 0.9
