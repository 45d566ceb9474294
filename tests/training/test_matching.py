"""The second stage's loss: where it sends features, and that the moments then agree."""

import copy

import pytest
import torch

from training import data, teacher
from training.data import Dataset
from training.features import Features
from training.matching import COARSE, FINE, SEEN, Matching, Moments, Plan, Space, shrunk


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
    assert (
        torch.linalg.eigvalsh(space.real.covariance[1]).min()
        > 0.01 * torch.linalg.eigvalsh(space.real.covariance[0]).min()
    )
    assert torch.isfinite(space.real.covariance).all()


@pytest.mark.parametrize("images", [40, 8])
def test_few_images_of_many_pixels_have_the_components_that_a_full_search_finds(images: int) -> None:
    features = gaussian(6, images, 100)
    space = Space(100, 1, 12)
    space.learn(features, torch.zeros(images, dtype=torch.int64))
    values, vectors = torch.linalg.eigh(torch.cov(features.double().T, correction=0))
    expected = vectors[:, -12:] / values[-12:].mean().sqrt()
    torch.testing.assert_close((space.basis @ space.basis.T).double(), expected @ expected.T, atol=1e-6, rtol=1e-4)
    # Each counts as much as the images vary along it, the largest last.
    torch.testing.assert_close(
        space.real.covariance[0], torch.diag(values[-12:] / values[-12:].mean()), atol=1e-4, rtol=0
    )


def teach(plan: Plan) -> tuple[Matching, torch.Tensor, torch.Tensor]:
    digits = data.load("digits", size=8, channels=1)
    assert digits.labels is not None
    matching = Matching(1, 10, 8, len(digits), plan)
    matching.teach(digits.images, digits.labels, seed=0, shown=2_500)
    return matching, digits.images.float() / 127.5 - 1, digits.labels


@pytest.fixture(scope="module")
def taught() -> tuple[Matching, torch.Tensor, torch.Tensor]:
    return teach(COARSE)


@pytest.fixture(scope="module")
def taught_finely() -> tuple[Matching, torch.Tensor, torch.Tensor]:
    return teach(FINE)


def test_real_images_are_where_they_should_be_and_noise_is_not(
    taught: tuple[Matching, torch.Tensor, torch.Tensor],
) -> None:
    matching, images, labels = copy.deepcopy(taught[0]), taught[1], taught[2]
    matching.begin(images, labels)
    near, unclear = matching(images, labels)
    assert unclear == 0
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert near < 0.1 * matching(noise, labels)[0]


def test_several_networks_that_differ_take_turns(taught: tuple[Matching, torch.Tensor, torch.Tensor]) -> None:
    matching, images, labels = copy.deepcopy(taught[0]), taught[1][:64], taught[2][:64]
    one, other = (view.features.get_buffer("weight0") for view in matching._views[:2])
    assert not torch.equal(one, other)
    matching.begin(taught[1], taught[2])
    for turn in range(2 * len(COARSE.networks)):
        expected = [
            (turn + len(COARSE.networks) - 1 - index) // len(COARSE.networks) for index in range(len(COARSE.networks))
        ]
        assert [int(view.calls) for view in matching._views] == expected
        matching(images, labels)


@pytest.mark.parametrize("kind", ["taught", "taught_finely"])
def test_its_gradient_reaches_the_images_and_nothing_else(kind: str, request: pytest.FixtureRequest) -> None:
    taught = request.getfixturevalue(kind)
    matching, images, labels = copy.deepcopy(taught[0]), taught[1][:64], taught[2][:64]
    matching.begin(taught[1], taught[2])
    made = (images * 0.5).requires_grad_()
    sum(matching(made, labels)).backward()
    assert made.grad is not None
    assert made.grad.abs().max() > 0
    assert list(matching.parameters()) == []


@pytest.mark.parametrize("kind", ["taught", "taught_finely"])
def test_its_state_goes_on_exactly_where_it_was(kind: str, request: pytest.FixtureRequest) -> None:
    taught = request.getfixturevalue(kind)
    one, images, labels = copy.deepcopy(taught[0]), taught[1], taught[2]
    one.begin(images, labels)
    for start in range(0, 320, 64):
        one(images[start : start + 64], labels[start : start + 64])
    other = Matching(1, 10, 8, len(images), one.plan)
    other.load_state_dict(one.state_dict())
    for start in range(320, 640, 64):
        batch = images[start : start + 64], labels[start : start + 64]
        assert one(*batch) == other(*batch)


def test_what_samples_leave_to_chance_is_left_alone_and_what_they_show_is_not() -> None:
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 400, 20, generator=random, dtype=torch.float64)
    rows[1, :, 0] *= 3
    sampled = rows.transpose(1, 2) @ rows / 400
    drawn = shrunk(sampled, torch.tensor([400.0, 400.0], dtype=torch.float64))
    truth = torch.eye(20, dtype=torch.float64).repeat(2, 1, 1)
    truth[1, 0, 0] = 9
    before, after = ((x - truth).square().sum((1, 2)).sqrt() for x in (sampled, drawn))
    assert after[0] < 0.3 * before[0]
    assert drawn[1, 0, 0] > 8
    torch.testing.assert_close(drawn.diagonal(dim1=1, dim2=2).sum(1), sampled.diagonal(dim1=1, dim2=2).sum(1))


def test_only_what_is_less_clear_than_nearly_all_real_images_is_pushed(
    taught_finely: tuple[Matching, torch.Tensor, torch.Tensor],
) -> None:
    matching, images, labels = copy.deepcopy(taught_finely[0]), taught_finely[1], taught_finely[2]
    matching.begin(images, labels)
    view = matching._views[0]
    margin = view._margin(view._pooled(images)[-1], labels)
    for label in range(10):
        assert 0.01 < (margin[labels == label] < view.clear[label]).float().mean() < 0.03
    _, right = matching(images, labels)
    matching.turn.zero_()
    _, wrong = matching(images, (labels + 1) % 10)
    assert 0 < right < 0.05
    assert wrong > 1


def test_every_network_takes_the_moments_of_every_batch_where_the_plan_says_so(
    taught: tuple[Matching, torch.Tensor, torch.Tensor], taught_finely: tuple[Matching, torch.Tensor, torch.Tensor]
) -> None:
    for (source, images, labels), moved in ((taught, 1), (taught_finely, len(FINE.networks))):
        matching = copy.deepcopy(source)
        matching.begin(images, labels)
        before = [view._spaces[0].fake.mean.clone() for view in matching._views]
        matching(-images[:64], labels[:64])
        after = [view._spaces[0].fake.mean for view in matching._views]
        assert sum(not torch.equal(a, b) for a, b in zip(after, before, strict=True)) == moved


def test_taught_features_tell_the_classes_apart_and_leave_the_random_state(digits: Dataset) -> None:
    features = Features(1, SEEN)
    assert digits.labels is not None
    state = torch.get_rng_state()
    convolutions, _ = teacher.teach(features.plan, digits.images, digits.labels, 10, seed=0, shown=300_000)
    assert torch.equal(torch.get_rng_state(), state)
    features.load(convolutions)
    last = features(digits.images.float() / 127.5 - 1)[-1].mean((2, 3))
    centres = torch.stack([last[digits.labels == c].mean(0) for c in range(10)])
    nearest = torch.cdist(last, centres).argmin(1)
    assert float((nearest == digits.labels).float().mean()) > 0.9
