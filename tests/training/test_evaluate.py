from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from service.repository import Repository
from tests.onnx_models import tiny_generator
from tests.training.conftest import silent, small
from training import cas, evaluate, export, judge, trainer
from training.data import DataError, Dataset, split_held_out


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSERVE_DATA", str(tmp_path_factory.getbasetemp() / "data"))


def test_a_judge_learns_the_digits_and_is_the_same_when_read_again(digits: Dataset, tmp_path: Path) -> None:
    rest, held_out = split_held_out(digits)
    network, accuracies = judge.fit(rest, held_out, epochs=10)
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


def test_a_run_is_scored_on_its_exported_file_and_the_card_keeps_the_scores(
    digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "tiny"
    intervals = trainer.Intervals(snapshots=1)
    trainer.train(small("cgan", digits), digits, run, report=silent, intervals=intervals)
    repository = Repository(tmp_path / "models")
    export.export_run(run, repository)
    asked = ["tiny", "--dataset", "digits", "--models", str(repository.root), "--images", "140"]
    assert evaluate.main(asked) == 0
    assert "label_accuracy" in capsys.readouterr().out
    scores = repository.card("tiny", 1).metrics
    assert scores["images"] == 140
    assert scores["split"] == "held-out"
    assert scores["label_accuracy_real"] > 0.8
    assert scores["label_accuracy"] < 0.6, "twenty steps do not make digits"
    assert scores["frechet"] > 3 * scores["frechet_real"]
    assert json.loads(json.dumps(scores)) == scores
    assert evaluate.main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == scores, "the same file has the same scores"


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
