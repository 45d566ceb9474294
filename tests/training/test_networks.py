from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.networks import cdcgan
from training.networks.dropout import Dropout


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


def test_dropout_does_nothing_in_evaluation_and_refuses_what_bytes_cannot_decide() -> None:
    x = torch.randn(3, 5)
    assert torch.equal(Dropout(0.25).eval()(x), x)
    for p in (0.3, 1.0, -0.25):
        with pytest.raises(ValueError, match="multiple of 1/256"):
            Dropout(p)


def test_labels_looked_up_score_as_labels_joined_to_the_image_as_maps() -> None:
    torch.manual_seed(0)
    _, network = cdcgan.build(100, 10, 1, 28, 0.25)
    assert isinstance(network, cdcgan.Discriminator)
    image, label = torch.randn(8, 1, 28, 28), torch.arange(8)
    maps = F.one_hot(label, 10).float()[:, :, None, None].expand(-1, -1, 28, 28)
    joined = network.body(torch.cat([image, maps], 1)).squeeze(1)
    assert torch.allclose(network(image, label), joined, atol=1e-5)
