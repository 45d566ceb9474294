"""The second stage's loss: where it sends features, and that the moments then agree."""

import copy

import pytest
import torch

from training import data
from training.matching import VIEWS, Matching, Moments, Space


def gaussian(seed: int, n: int, d: int) -> torch.Tensor:
    """Correlated normal rows, float32 [n, d]."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.eye(d) + 0.3 * torch.randn(d, d, generator=random)
    return torch.randn(n, d, generator=random) @ mix + torch.randn(d, generator=random)


def test_moved_features_have_the_real_moments() -> None:
    labels = torch.arange(2).repeat_interleave(4000)
    real = torch.cat([gaussian(1, 4000, 6), gaussian(2, 4000, 6)])
    fake = torch.cat([gaussian(3, 4000, 6), gaussian(4, 4000, 6)])
    space = Space(6, 2, 6)
    space.learn(real, labels)
    seen = fake @ space.basis
    space.fake.add(seen, labels, 0)
    before = (space.fake.mean - space.real.mean).norm() + (space.fake.covariance - space.real.covariance).norm()
    space.solve()
    after = Moments(2, 6)
    after.add(space.target(seen, labels), labels, 0)
    torch.testing.assert_close(after.mean, space.real.mean, atol=1e-4, rtol=0)
    assert (after.covariance - space.real.covariance).norm() < 0.1 * before  # all but the ridge


def test_moments_forget_what_is_a_window_ago() -> None:
    moments = Moments(1, 3)
    label = torch.zeros(400, dtype=torch.int64)
    moments.add(gaussian(1, 400, 3), label, 0)
    later = gaussian(2, 400, 3)
    for _ in range(20):
        moments.add(later, label, window=100)
    torch.testing.assert_close(moments.mean[0].float(), later.mean(0), atol=1e-3, rtol=0)


def test_a_class_of_few_images_borrows_the_shape_of_all() -> None:
    labels = torch.tensor([0] * 500 + [1])
    features = gaussian(5, 501, 4)
    space = Space(4, 2, 4)
    space.learn(features, labels)
    assert torch.linalg.eigvalsh(space.real.covariance[1]).min() > 0.01 * torch.linalg.eigvalsh(
        space.real.covariance[0]
    ).min()
    assert torch.isfinite(space.real.covariance).all()


@pytest.fixture(scope="module")
def taught() -> tuple[Matching, torch.Tensor, torch.Tensor]:
    digits = data.load("digits", size=8, channels=1)
    assert digits.labels is not None
    matching = Matching(1, 10, 8, len(digits))
    matching.teach(digits.images, digits.labels, seed=0, shown=2_500)
    return matching, digits.images.float() / 127.5 - 1, digits.labels


def test_real_images_are_where_they_should_be_and_noise_is_not(
    taught: tuple[Matching, torch.Tensor, torch.Tensor],
) -> None:
    matching, images, labels = copy.deepcopy(taught[0]), taught[1], taught[2]
    matching.begin(images, labels)
    near = matching(images, labels)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert near < 0.1 * matching(noise, labels)


def test_several_networks_that_differ_take_turns(taught: tuple[Matching, torch.Tensor, torch.Tensor]) -> None:
    matching, images, labels = copy.deepcopy(taught[0]), taught[1][:64], taught[2][:64]
    assert not torch.equal(matching._views[0].features.weight0, matching._views[1].features.weight0)
    matching.begin(taught[1], taught[2])
    for turn in range(2 * VIEWS):
        assert [int(view.calls) for view in matching._views] == [(turn + VIEWS - 1 - i) // VIEWS for i in range(VIEWS)]
        matching(images, labels)


def test_its_gradient_reaches_the_images_and_nothing_else(
    taught: tuple[Matching, torch.Tensor, torch.Tensor],
) -> None:
    matching, images, labels = copy.deepcopy(taught[0]), taught[1][:64], taught[2][:64]
    matching.begin(taught[1], taught[2])
    made = (images * 0.5).requires_grad_()
    matching(made, labels).backward()
    assert made.grad is not None
    assert made.grad.abs().max() > 0
    assert list(matching.parameters()) == []


def test_its_state_goes_on_exactly_where_it_was(taught: tuple[Matching, torch.Tensor, torch.Tensor]) -> None:
    one, images, labels = copy.deepcopy(taught[0]), taught[1], taught[2]
    one.begin(images, labels)
    for start in range(0, 320, 64):
        one(images[start : start + 64], labels[start : start + 64])
    other = Matching(1, 10, 8, len(images))
    other.load_state_dict(one.state_dict())
    for start in range(320, 640, 64):
        batch = images[start : start + 64], labels[start : start + 64]
        assert torch.equal(one(*batch), other(*batch))
