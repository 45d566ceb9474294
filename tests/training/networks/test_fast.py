"""Layers that are faster than PyTorch's own compute the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from training.networks.fast import Dense, Dropout, Flatten, LabelMapConv2d


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
    dense, plain = nn.Sequential(Flatten(), Dense(6, 5, 2)), nn.Sequential(nn.Flatten(), nn.Linear(6 * 5 * 5, 2))
    plain.load_state_dict(dense.state_dict())
    maps = torch.randn(4, 6, 5, 5).contiguous(memory_format=layout).requires_grad_()
    found, expected = dense(maps), plain(maps)
    assert torch.allclose(found, expected, atol=1e-6)
    ours = torch.autograd.grad(found.square().sum(), [maps, *dense.parameters()])
    theirs = torch.autograd.grad(expected.square().sum(), [maps, *plain.parameters()])
    for mine, its in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, its, atol=1e-5)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_label_looked_up_is_a_label_joined_to_the_image_as_maps_and_so_are_its_gradients(channels: int) -> None:
    torch.manual_seed(0)
    looked_up, plain = LabelMapConv2d(channels, 10, 16, 4, 2, 1), nn.Conv2d(channels + 10, 16, 4, 2, 1)
    plain.load_state_dict(looked_up.state_dict())
    image, label = torch.randn(8, channels, 28, 28, requires_grad=True), torch.arange(8)
    maps = F.one_hot(label, 10).float()[:, :, None, None].expand(-1, -1, 28, 28)
    found, expected = looked_up(image, label), plain(torch.cat([image, maps], 1))
    assert torch.allclose(found, expected, atol=1e-5)
    ours = torch.autograd.grad(found.square().sum(), [image, *looked_up.parameters()])
    theirs = torch.autograd.grad(expected.square().sum(), [image, *plain.parameters()])
    for mine, its in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, its, atol=1e-4 * float(its.abs().max()))
