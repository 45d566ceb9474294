from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from ganserve.repository import Repository
from tests.onnx_models import tiny_generator
from tests.training.conftest import silent, small
from training import evaluate, export, trainer
from training.data import DataError, Dataset, fingerprint, load, split_held_out
from training.measure import cas, judge, metrics
from training.run import Intervals


@pytest.fixture(scope="module")
def learned(digits: Dataset) -> tuple[judge.Network, list[float]]:
    """A judge of the digits that are not held out, after fewer epochs than one that is trained on demand gets."""
    torch.set_num_threads(1)
    rest, _ = split_held_out(digits)
    return judge.fit(*split_held_out(rest), epochs=10)


@pytest.fixture(scope="module")
def cache(
    digits: Dataset, learned: tuple[judge.Network, list[float]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A data folder where that judge is kept as if it had been trained on demand."""
    folder = tmp_path_factory.mktemp("data")
    rest, _ = split_held_out(digits)
    judge.write(folder / "judges" / f"{fingerprint(rest)}.safetensors", learned[0], rest, {})
    return folder


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSERVE_DATA", str(cache))


def exported(classes: int | None) -> bytes:
    """A tiny generator with the metadata that an export writes."""
    model = onnx.load_from_string(tiny_generator(classes=classes))
    names = [str(i) for i in range(classes or 0)]
    onnx.helper.set_model_props(model, {"latent_recipe": "philox-normal/v1", "classes": json.dumps(names)})
    return bytes(model.SerializeToString())


def test_a_judge_learns_the_digits_and_is_the_same_when_read_again(
    digits: Dataset, learned: tuple[judge.Network, list[float]], tmp_path: Path
) -> None:
    _, held_out = split_held_out(digits)
    network, accuracies = learned
    assert max(accuracies) > 0.9
    path = tmp_path / "digits.safetensors"
    judge.write(path, network, digits, {"epochs": 6})
    again = judge.read(path)
    plain = judge.Judge(network, "", digits.classes)
    assert torch.allclose(again(held_out.images)[0], plain(held_out.images)[0], atol=1e-4)
    assert again.accuracy(held_out) == plain.accuracy(held_out)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="another digest"):
        judge.read(path)


def test_a_run_is_scored_on_its_exported_file_and_only_recorded_when_asked_beside_the_card(
    digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "tiny"
    intervals = Intervals(snapshots=1)
    trainer.train(small("cgan", digits), digits, run, report=silent, intervals=intervals)
    repository = Repository(tmp_path / "models")
    export.export_run(run, repository)
    asked = ["tiny", "--dataset", "digits", "--models", str(repository.root), "--images", "140"]
    assert evaluate.main(asked) == 0
    assert "label_accuracy" in capsys.readouterr().out
    assert repository.measures("tiny", 1) == []
    card = (repository.root / "tiny" / "1" / "card.json").read_bytes()
    assert evaluate.main([*asked, "--record"]) == 0
    assert (repository.root / "tiny" / "1" / "card.json").read_bytes() == card
    (scores,) = repository.measures("tiny", 1)
    assert scores["images"] == 140
    assert scores["split"] == "held-out"
    assert scores["label_accuracy_real"] > 0.8
    assert scores["label_accuracy"] < 0.6, "twenty steps do not make digits"
    assert scores["frechet"] > 3 * scores["frechet_real"]
    capsys.readouterr()
    assert evaluate.main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == scores, "the same file has the same scores"
    (measures,) = repository.root.rglob("measures.jsonl")
    measures.unlink()
    measures.mkdir()
    assert evaluate.main([*asked, "--json", "--record"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out) == scores, "what cannot be recorded is told all the same"
    assert said.err.startswith("error: ")


def test_real_images_are_measured_once_for_all_models_of_a_data_set(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[object] = []
    measure = metrics.measure

    def counted(comparison: metrics.Comparison) -> Any:
        measured.append(comparison)
        return measure(comparison)

    monkeypatch.setattr(metrics, "measure", counted)
    model = exported(classes=10)
    first = evaluate.evaluate_onnx(model, "digits", images=120)
    before = len(measured)
    again = evaluate.evaluate_onnx(model, "digits", images=120)
    assert len(measured) == before + 1, "the generated images only"
    assert again == first
    evaluate.evaluate_onnx(model, "digits", images=100)
    assert len(measured) == before + 3, "another number of images is another measurement"


def test_a_model_without_classes_has_no_label_metrics_but_a_histogram_by_the_judge() -> None:
    found = evaluate.evaluate_onnx(exported(classes=None), "digits", images=120, with_cas=True)
    assert found["label_accuracy"] is None
    assert "cas" not in found
    assert sum(found["class_histogram"]) == 120
    assert found["label_accuracy_real"] > 0.8
    assert "frechet over real" in evaluate.table(found)


@pytest.mark.parametrize("classes", [None, 10])
def test_features_that_know_no_classes_measure_any_model_beside_real_images(classes: int | None) -> None:
    found = evaluate.evaluate_onnx(exported(classes=classes), "digits", images=120, with_unsupervised=True)
    assert found["unsupervised_frechet_ratio"] > 2, "a network that was never trained"
    assert found["unsupervised_recall_real"] > found["unsupervised_recall"]
    ratio = found["unsupervised_frechet"] / found["unsupervised_frechet_real"]
    assert found["unsupervised_frechet_ratio"] == pytest.approx(ratio, rel=1e-3)
    assert "unsupervised_recall" in evaluate.table(found)


def test_cas_learns_from_as_many_generated_images_as_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    learned_from: list[int] = []

    def score(images: torch.Tensor, *more: object, seed: int) -> float:
        learned_from.append(len(images))
        return 0.5 + seed / 10

    monkeypatch.setattr(cas, "score", score)
    found = evaluate.evaluate_onnx(exported(classes=10), "digits", images=80, with_cas=True, cas_images=90)
    assert learned_from == [90] * 4, "three seeds on generated images, one on real ones"
    assert (found["cas"], found["cas_images"], found["cas_real"]) == (0.6, 90, 0.5)


def test_a_model_whose_classes_stand_in_another_order_is_asked_for_them_by_name() -> None:
    turned = onnx.load_from_string(exported(classes=10))
    names = [str(i) for i in reversed(range(10))]
    del turned.metadata_props[:]
    onnx.helper.set_model_props(turned, {"latent_recipe": "philox-normal/v1", "classes": json.dumps(names)})
    plain, mapped = evaluate.Generated(exported(classes=10)), evaluate.Generated(turned.SerializeToString())
    mapped.speak([str(i) for i in range(10)])
    labels = torch.arange(10)
    expected, _ = plain.images(10, 5, 9 - labels)
    images, told = mapped.images(10, 5, labels)
    assert torch.equal(images, expected)
    assert not torch.equal(images, plain.images(10, 5, labels)[0])
    assert told is not None
    assert torch.equal(told, labels), "the labels are the data set's"


def test_a_model_of_other_classes_than_the_data_is_refused() -> None:
    with pytest.raises(DataError, match=r"classes of the model are not those of the data set .*the data set alone: 3"):
        evaluate.evaluate_onnx(exported(classes=3), "digits", images=80)


def test_a_file_that_was_not_exported_here_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "foreign.onnx"
    path.write_bytes(tiny_generator())
    assert evaluate.main([str(path), "--dataset", "digits"]) == 2
    assert "names no latent recipe" in capsys.readouterr().err


def test_an_unknown_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["absent", "--dataset", "digits", "--models", str(tmp_path)]) == 2
    assert "no model 'absent'" in capsys.readouterr().err


def test_cas_of_real_images_is_high_and_of_wrong_labels_low(digits: Dataset) -> None:
    assert digits.labels is not None
    train, test = digits.subset(torch.arange(1500)), digits.subset(torch.arange(1500, 1797))
    assert train.labels is not None
    assert test.labels is not None
    right = cas.score(train.images, train.labels, test.images, test.labels, seed=0, epochs=8, batch=64)
    wrong = cas.score(train.images, (train.labels + 1) % 10, test.images, test.labels, seed=0, epochs=4, batch=64)
    assert right > 0.8
    assert wrong < 0.2


def scored(dataset: Dataset, folder: Path, tmp_path: Path) -> dict[str, Any]:
    """The scores of a model of a few steps on a folder of pictures."""
    trainer.train(small("cgan", dataset), dataset, tmp_path / "run", report=silent)
    repository = Repository(tmp_path / "models")
    export.export_run(tmp_path / "run", repository, name="few")
    return evaluate.evaluate_onnx(repository.model_path("few", 1), str(folder))


@pytest.fixture
def rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Many pictures of one class, two of another, one of a third."""
    monkeypatch.setenv("GANSERVE_DATA", str(tmp_path / "var"))
    random = np.random.default_rng(0)
    for name, count, value in (("many", 90, 60), ("pair", 2, 120), ("single", 1, 200)):
        (tmp_path / "rare" / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.normal(value, 15, (8, 8)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "rare" / name / f"{index:03}.png")
    return tmp_path / "rare"


def test_a_class_of_hardly_a_picture_is_trained_on_and_named_as_not_measured(rare: Path, tmp_path: Path) -> None:
    dataset = load(str(rare))
    scores = scored(dataset, rare, tmp_path)
    assert scores["unmeasured_classes"] == ["pair", "single"]
    assert "not measured, for want of images: pair, single" in evaluate.table(scores)
    assert json.loads(json.dumps(scores)) == scores


@pytest.mark.parametrize(("classes", "count"), [(("a", "b"), 3), (("a",), 24)])
def test_a_set_of_few_pictures_or_of_one_class_is_measured_by_what_has_a_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: tuple[str, ...], count: int
) -> None:
    monkeypatch.setenv("GANSERVE_DATA", str(tmp_path / "var"))
    random = np.random.default_rng(0)
    for name in classes:
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{index}.png")
    dataset = load(str(tmp_path / "set"), labelled=len(classes) > 1)
    if len(classes) == 1:
        trainer.train(small("dcgan-gap", dataset), dataset, tmp_path / "run", report=silent)
        repository = Repository(tmp_path / "models")
        export.export_run(tmp_path / "run", repository, name="few")
        scores = evaluate.evaluate_onnx(repository.model_path("few", 1), str(tmp_path / "set"))
    else:
        scores = scored(dataset, tmp_path / "set", tmp_path)
    assert scores["split"] == ("held-out" if len(classes) == 1 else "train")
    assert scores["frechet"] is not None
    assert json.loads(json.dumps(scores)) == scores


def test_a_metric_without_a_value_for_identical_pictures_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANSERVE_DATA", str(tmp_path / "var"))
    for name, pixels in (("a", np.eye(8)), ("b", np.eye(8)[::-1])):
        (tmp_path / "icons" / name).mkdir(parents=True)
        for index in range(40):
            Image.fromarray((pixels * 255).astype(np.uint8)).save(tmp_path / "icons" / name / f"{index:03}.png")
    dataset = load(str(tmp_path / "icons"))
    scores = scored(dataset, tmp_path / "icons", tmp_path)
    assert scores["within_class_variance_ratio"] is None
    assert "all alike" in scores["left_out"]["within_class_variance_ratio"]
    assert json.loads(json.dumps(scores)) == scores
    assert "is left out:" in evaluate.table(scores)
