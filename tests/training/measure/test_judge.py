from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from ganserve.reading import place_mark
from training import judge as command
from training.data import DataError, Dataset
from training.measure import judge, photographs


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Dataset]:
    """Judges that have learned nothing, in no time, and the data sets they were asked for."""
    asked: list[Dataset] = []

    def fit(rest: Dataset, held_out: Dataset, **more: object) -> tuple[judge.Network, list[float]]:
        asked.append(rest)
        torch.manual_seed(len(asked))
        return judge.Network(rest.channels, len(rest.classes)).eval(), [0.5]

    monkeypatch.setattr(judge, "fit", fit)
    return asked


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANSERVE_DATA", str(tmp_path))
    return tmp_path / "judges"


def bars(n: int = 240, channels: int = 1, name: str = "bars") -> Dataset:
    """Upright and lying bars in noise: two classes that any judge can tell apart."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 60, (n, channels, 12, 12), dtype=torch.uint8, generator=random)
    labels = torch.arange(n) % 2
    images[labels == 0, :, :, 5:7] = 255
    images[labels == 1, :, 5:7, :] = 255
    return Dataset(name, images, labels, ("upright", "lying"))


CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.mark.parametrize(
    ("name", "least", "classes"),
    [
        ("mnist", 0.994, tuple("0123456789")),
        ("cifar10", 0.91, CIFAR10),
        ("second/cifar10", 0.89, CIFAR10),
        ("second/cifar10-whitened", 0.85, CIFAR10),
    ],
)
def test_a_shipped_judge_is_the_file_its_json_names_and_as_good_as_was_asked(
    name: str, least: float, classes: tuple[str, ...]
) -> None:
    told = json.loads((judge.SHIPPED / f"{name}.json").read_text())
    content = (judge.SHIPPED / f"{name}.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == told["sha256"]
    assert told["test_accuracy"] >= least
    shipped = judge.read(judge.SHIPPED / f"{name}.safetensors")
    assert shipped.digest == told["sha256"]
    assert shipped.classes == classes


def test_the_shipped_judge_still_answers_as_when_it_was_frozen() -> None:
    shipped = judge.read(judge.SHIPPED / "mnist.safetensors")
    upright = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    upright[:, :, 4:24, 13:16] = 255
    ring = torch.zeros(1, 1, 28, 28)
    y, x = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    ring[0, 0] = 255 * torch.exp(-(((x / 6) ** 2 + (y / 9) ** 2).sqrt() - 1).square() * 30)
    logits, features = shipped(torch.cat([upright, ring.to(torch.uint8)]))
    assert logits.argmax(1).tolist() == [1, 0]
    assert features.shape == (2, 96)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cifar10", [2.7491, -1.1326, -0.5297, 1.9998, 0.1487, -1.355, 0.7907, -1.3285, -0.1875, -1.1467]),
        ("second/cifar10", [0.2624, -0.9745, -0.3207, -0.0352, 2.0112, -0.0721, 0.5506, -1.1239, 0.845, -1.1383]),
        (
            "second/cifar10-whitened",
            [1.5466, -0.7542, -0.5200, 0.4527, 0.0470, -0.2614, 1.9231, -0.4303, -0.9154, -1.0788],
        ),
    ],
)
def test_a_judge_of_colour_pictures_still_answers_as_when_it_was_frozen(name: str, told: list[float]) -> None:
    shipped = judge.read(judge.SHIPPED / f"{name}.safetensors")
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    slopes = torch.stack([8 * x, 8 * y, (x - 16).abs() * (y - 16).abs()]).clamp(0, 255).to(torch.uint8)
    logits, features = shipped(slopes[None])
    assert logits[0].tolist() == pytest.approx(told, abs=0.01)
    assert len(features) == 1


def test_a_data_set_without_a_shipped_judge_gets_one_that_has_learned_it(cache: Path) -> None:
    assert judge.for_dataset(bars()).accuracy(bars()) > 0.95


def test_a_judge_is_trained_once_for_one_set_of_images_and_anew_for_another(cache: Path, fits: list[Dataset]) -> None:
    first = judge.for_dataset(bars())
    assert judge.for_dataset(bars()).digest == first.digest
    assert len(fits) == 1
    other = bars()
    other.images[0] += 1
    assert judge.for_dataset(other).digest != first.digest
    assert len(fits) == 2


@pytest.mark.parametrize("lost", [".json", ".safetensors"])
def test_a_judge_left_half_written_is_trained_again(cache: Path, fits: list[Dataset], lost: str) -> None:
    judge.for_dataset(bars())
    (left,) = cache.glob(f"*{lost}")
    left.unlink()
    assert judge.for_dataset(bars()).classes == bars().classes
    assert len(fits) == 2


def test_a_damaged_cached_judge_is_trained_again(cache: Path, fits: list[Dataset]) -> None:
    judge.for_dataset(bars())
    (path,) = cache.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(DataError, match="another digest"):
        judge.read(path)
    again = judge.for_dataset(bars())
    assert len(fits) == 2
    assert judge.read(path).digest == again.digest


def test_colour_images_of_a_set_that_is_called_as_a_shipped_one_get_a_judge_that_sees_colour(
    cache: Path, fits: list[Dataset]
) -> None:
    digits = tuple("0123456789")
    images = torch.randint(0, 256, (40, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    named = Dataset("mine/mnist", images, torch.arange(40) % 10, digits)
    found = judge.for_dataset(named)
    assert found.channels == 3
    assert found(images)[0].shape == (40, 10)


def test_a_judge_cannot_learn_without_labels(cache: Path) -> None:
    with pytest.raises(DataError, match="no labels"):
        judge.for_dataset(Dataset("bars", bars().images, None, ()))


def test_the_whitened_judge_learns_colour_and_comes_back_from_its_files(tmp_path: Path) -> None:
    data = bars(channels=3)
    rest, held_out = data.subset(torch.arange(200)), data.subset(torch.arange(200, 240))
    network, accuracies = judge.fit_whitened(rest, held_out, epochs=6, batch=32)
    assert max(accuracies) > 0.95
    path = tmp_path / "bars.safetensors"
    judge.write(path, network, data, {})
    assert json.loads(path.with_suffix(".json").read_text())["architecture"] == "whitened"
    assert judge.read(path).accuracy(held_out) == max(accuracies)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_frozen_first_convolution_whitens_patches_and_is_not_trained(channels: int) -> None:
    images = bars(channels=channels).images[:100].float() / 255
    network = photographs.Whitened(channels, 2)
    network.see(images)
    frozen = network.whiten.weight.clone()
    patches = torch.nn.functional.unfold(images - 0.5, 4, stride=3).transpose(1, 2).flatten(0, 1)
    seen = patches @ frozen.flatten(1).T
    # Filters come in pairs of opposite sign; what they see is of one strength, and no two of a kind correlate.
    half = int(frozen.flatten(1).any(1).sum()) // 2
    assert half == 16
    assert torch.equal(frozen[half : 2 * half], -frozen[:half])
    together = seen[:, :half].T @ seen[:, :half] / len(seen)
    assert torch.allclose(together, torch.diag(together.diagonal()), atol=1e-2)
    assert 0.5 < together.diagonal().min() <= together.diagonal().max() < 1.01
    assert not network.whiten.weight.requires_grad
    logits, features = network(images)
    assert logits.shape == (100, 2)
    assert features.shape == (100, 160)
    logits.sum().backward()
    assert network.whiten.weight.grad is None
    assert torch.equal(network.whiten.weight, frozen)


def test_what_is_for_the_plain_judge_is_refused_for_the_whitened_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--dataset", "digits", "--architecture", "whitened", "--flip"])
    assert "always mirrors" in capsys.readouterr().err


def test_what_was_learnt_of_a_folder_bears_its_mark_so_that_it_can_go_with_it(tmp_path: Path) -> None:
    mark = judge.private(str(tmp_path))
    assert mark == f"{place_mark(str(tmp_path.resolve()))}-"
    assert judge.private(str(tmp_path / ".")) == mark
    assert judge.private("ylecun/mnist") == judge.private("digits") == ""
