from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ganserve.card import ModelCorrupt
from ganserve.latents import consecutive, latents
from ganserve.repository import Repository
from tests.training.conftest import silent, small
from training import export, graphs, trainer
from training.data import Dataset
from training.exact import judged, published, reference
from training.exact.published import exact_of_published, publish_exact
from training.recover import RecoverError, rebuild
from training.retrain import tasks
from training.run import Intervals


@pytest.fixture(scope="module")
def run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run, trained once for all tests here,."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    intervals = Intervals(snapshots=1)
    trainer.train(small("projgan", digits), digits, path, report=silent, intervals=intervals)
    return path


def test_a_published_float_version_has_an_exact_one(run: Path, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "models")
    assert export.export_run(run, repository, exact=False) == 1
    made, card, _ = exact_of_published(repository, "tiny", 1)
    version = repository.publish(card, made.content, graphs.samples(made.content, card))
    published, content = repository.read("tiny", version)
    assert published.exact
    assert published.exact_digest == made.digest
    assert published.latent_recipe == "philox-grid/v1"
    assert published.metrics == {}
    float_card = repository.card("tiny", 1)
    assert not float_card.exact
    assert published.training["exact_of"] == {"version": 1, "sha256": float_card.sha256}
    assert "exact_of" not in float_card.training
    noise = latents(card.latent_recipe, consecutive(3, 10), card.z)
    label = np.arange(10)[:, None]
    images = graphs.run_session(graphs.open_session(content), noise, label)
    assert np.array_equal(images, reference(made.program, noise, label))
    plain = graphs.run_session(graphs.open_session(repository.model_path("tiny", 1).read_bytes()), noise, label)
    assert np.abs(images.astype(int) - plain).mean() < 0.2 * plain.std()


def test_an_export_makes_an_exact_graph_unless_float_is_asked_for(run: Path, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "models")
    asked = [str(run), "--models", str(tmp_path / "models")]
    assert export.main(asked) == 0
    assert export.main([*asked, "--float"]) == 0
    exact, plain = repository.card("tiny", 1), repository.card("tiny", 2)
    assert (exact.exact, plain.exact) == (True, False)
    assert (exact.latent_recipe, plain.latent_recipe) == ("philox-grid/v1", "philox-normal/v1")
    assert repository.logged("tiny", 1) == repository.logged("tiny", 2) is not None
    assert publish_exact(repository, "tiny", 2) == 3
    assert repository.logged("tiny", 3) == repository.logged("tiny", 2)
    assert (exact.parameters, exact.macs, exact.classes) == (plain.parameters, plain.macs, plain.classes)
    assert plain.exact_digest is None


def test_an_exact_version_holds_no_float_weights(run: Path, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "models")
    export.export_run(run, repository, exact=True)
    card, content = repository.read("tiny", 1)
    with pytest.raises(RecoverError, match="does not hold the weights"):
        rebuild(content, card)


def test_a_training_can_begin_from_an_exact_version_that_lies_alone(run: Path, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "models")
    export.export_run(run, repository, exact=True)
    assert tasks.recover(str(tmp_path / "models"), "tiny", 1, str(tmp_path / "begin.safetensors"))
    assert (tmp_path / "begin.safetensors").read_bytes() == (run / "best.safetensors").read_bytes()
    beside = tmp_path / "models" / "tiny" / "1" / "weights.safetensors"
    beside.write_bytes(beside.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelCorrupt, match=r"weights\.safetensors is not what its card says"):
        repository.weights(repository.card("tiny", 1))


def test_a_published_version_is_made_exact_by_its_name(run: Path, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "models")
    export.export_run(run, repository, exact=False)
    assert export.main(["tiny:1", "--models", str(tmp_path / "models")]) == 0
    assert repository.live("tiny") == 2
    card = repository.card("tiny", 2)
    assert card.exact
    assert repository.weights(card) is not None
    assert export.main(["tiny:9", "--models", str(tmp_path / "models")]) == 2
    assert export.main(["tiny:2", "--models", str(tmp_path / "models")]) == 2, "it holds no float weights"


def test_a_version_made_exact_without_weights_lends_those_of_its_float_version(run: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    repository = Repository(models)
    export.export_run(run, repository, exact=False)
    assert export.main(["tiny:1", "--models", str(models), "--no-weights"]) == 0
    assert repository.weights(repository.card("tiny", 2)) is None
    for version in (1, 2):
        tasks.recover(str(models), "tiny", version, str(tmp_path / f"{version}.safetensors"))
    assert (tmp_path / "2.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()


def test_an_exact_form_that_the_judge_finds_worse_is_refused_with_the_reason(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Repository(tmp_path / "models")
    export.export_run(run, repository, exact=False)
    scores = [{"coverage": 0.9 + 0.001 * step} for step in range(5)]
    asked = ["tiny:1", "--models", str(tmp_path / "models"), "--judge", "digits"]
    monkeypatch.setattr(published, "judge", lambda plain, exact, dataset: judged.Verdict(scores, {"coverage": 0.5}))
    assert export.main(asked) == 2
    assert "the exact graph is worse than the float one: coverage 0.5000" in capsys.readouterr().err
    assert repository.versions("tiny") == [1]
    monkeypatch.setattr(published, "judge", lambda plain, exact, dataset: judged.Verdict(scores, {"coverage": 0.9}))
    assert export.main(asked) == 0
    assert repository.live("tiny") == 2
