from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from training.measure.classifier import Average, augment, fit


def halves(n: int = 256) -> tuple[Tensor, Tensor]:
    """Points left and right of zero."""
    torch.manual_seed(0)
    image = torch.randn(n, 1, 1, 2)
    return image, (image[:, 0, 0, 0] > 0).long()


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2), nn.Linear(2, 2))


def epochs(n: int) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
    image, label = halves()
    for _ in range(n):
        yield zip(image.split(32), label.split(32), strict=True)


def learn(taught: nn.Module, n: int, **more: object) -> tuple[nn.Module, list[float]]:
    optimiser = torch.optim.SGD(taught.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimiser, 1.0)
    return fit(taught, epochs(n), optimiser, schedule, **more)  # type: ignore[arg-type]


def test_a_classifier_learns_what_it_is_shown_and_ends_frozen_in_evaluation_mode() -> None:
    kept, scores = learn(network(), 5)
    image, label = halves()
    assert (kept(image).argmax(1) == label).float().mean() > 0.95
    assert scores == []
    assert not kept.training
    assert not any(p.requires_grad for p in kept.parameters())


def test_the_best_epoch_is_kept_and_of_equals_the_later_one() -> None:
    told = iter([0.2, 0.9, 0.9, 0.1])
    seen: list[Tensor] = []

    def score(candidate: nn.Sequential) -> float:
        seen.append(candidate[2].get_parameter("weight").detach().clone())
        return next(told)

    kept, scores = learn(network(), 4, score=score)
    assert scores == [0.2, 0.9, 0.9, 0.1]
    assert torch.equal(kept[2].weight, seen[2])  # type: ignore[index]


@pytest.mark.parametrize("buffers", [False, True])
def test_an_average_lags_behind_the_network_and_is_what_is_kept(buffers: bool) -> None:
    taught = network()
    average = Average.of(taught, 1000, buffers=buffers)
    kept, _ = learn(taught, 2, average=average)
    before = network()
    moved = (taught[2].weight - before[2].weight).abs().sum()  # type: ignore[index]
    followed = (kept[2].weight - before[2].weight).abs().sum()  # type: ignore[index]
    assert 0 < followed < moved
    same = torch.equal(kept[1].running_mean, taught[1].running_mean)  # type: ignore[index]
    assert same is not buffers, "batch norm's statistics are averaged too, or the network's own"


def test_noise_is_of_another_strength_in_each_image_and_stays_in_range() -> None:
    torch.manual_seed(0)
    grey = torch.full((200, 1, 16, 16), 0.5)
    inside = augment(grey, 0.0, noise=0.2)[:, :, 5:11, 5:11]
    spread = inside.flatten(1).std(1)
    assert spread.min() < 0.03
    assert 0.15 < spread.max() < 0.3
    assert torch.allclose(augment(grey, 0.0)[:, :, 5:11, 5:11], grey[:, :, 5:11, 5:11], atol=1e-5)
    bright = augment(torch.ones(8, 1, 16, 16), 0.0, noise=0.5)
    assert 0 <= bright.min() <= bright.max() <= 1


def test_flips_mirror_about_half_of_the_images_and_only_left_to_right() -> None:
    torch.manual_seed(0)
    images = torch.zeros(400, 1, 16, 16)
    images[:, :, 2:5, 2:5] = 1
    turned = augment(images, 0.0, flip=True)
    right = turned[:, :, :, 8:].sum((1, 2, 3)) > turned[:, :, :, :8].sum((1, 2, 3))
    assert 0.4 < right.float().mean() < 0.6
    assert (turned[:, :, :8].sum((1, 2, 3)) > turned[:, :, 8:].sum((1, 2, 3))).all()
    assert not (augment(images, 0.0)[:, :, :, 8:].sum((1, 2, 3)) > 4).any()
