from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from training import networks
from training.networks.parts import in_parts


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
