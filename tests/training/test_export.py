from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ganserve import charts
from ganserve.latents import consecutive, latents
from ganserve.repository import Repository
from tests.training.conftest import silent, small
from training import export, graphs, recipes, trainer
from training.data import Dataset
from training.folding import folded
from training.run import Intervals, Stopped


def finish(recipe: str, digits: Dataset, run: Path) -> Path:
    intervals = Intervals(snapshots=1)
    images = 16 * 20 * recipes.get(recipe).d_steps
    trainer.train(small(recipe, digits, images=images), digits, run, report=silent, intervals=intervals)
    return run


@pytest.mark.parametrize("recipe", ["gan-bn", "dcgan", "wgan", "cgan", "cdcgan", "projgan"])
def test_a_finished_run_becomes_a_live_version_that_equals_torch(recipe: str, digits: Dataset, tmp_path: Path) -> None:
    run = finish(recipe, digits, tmp_path / "tiny")
    repository = Repository(tmp_path / "models")
    version = export.export_run(run, repository)
    assert repository.live("tiny") == version == 1
    card = repository.verify("tiny", 1)
    assert card.recipe == recipe
    model = onnx.load(repository.model_path("tiny", 1))
    onnx.checker.check_model(model, full_check=True)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert not any("Random" in node.op_type for node in model.graph.node)
    assert {p.key: p.value for p in model.metadata_props}["latent_recipe"] == card.latent_recipe
    assert all(v.type.tensor_type.shape.dim[0].dim_param == "batch" for v in model.graph.input)
    assert str(Path(export.__file__).parent).encode() not in repository.model_path("tiny", 1).read_bytes()
    finished = export.FinishedRun.read(run)
    noise = latents(card.latent_recipe, consecutive(5, 3), card.z)
    label = np.array([[0], [3], [9]]) if card.conditional else None
    got = graphs.run_session(graphs.open_session(model.SerializeToString()), noise, label)
    plain = graphs.Graph(finished.generator(), finished.config.settings.image_range)
    expected = plain(torch.from_numpy(noise), None if label is None else torch.from_numpy(label)).numpy()
    assert np.abs(got.astype(int) - expected).max() <= 1
    curves = charts.read(repository.logged("tiny", 1) or b"")
    assert curves == charts.kept(run)
    assert curves["log"][-1]["step"] == curves["snapshots"][-1]["step"] == 20


def test_a_graph_that_disagrees_with_torch_is_not_published(digits: Dataset, tmp_path: Path) -> None:
    run = finish("cgan", digits, tmp_path / "tiny")
    finished = export.FinishedRun.read(run)
    wrong = folded(finished.generator())
    with torch.no_grad():
        next(wrong.parameters()).mul_(-1)
    content = export.to_onnx(graphs.Graph(wrong, finished.config.settings.image_range), finished, "tiny")
    with pytest.raises(export.ExportError, match="of 255 apart"):
        export.check_parity(content, finished)


def test_only_what_the_repository_lacks_is_exported(
    digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish("gan", digits, tmp_path / "runs" / "tiny")
    asked = ["--runs", str(tmp_path / "runs"), "--models", str(tmp_path / "models")]
    assert export.main(asked) == 0
    assert export.main(asked) == 2
    assert "nothing to export" in capsys.readouterr().err
    assert Repository(tmp_path / "models").versions("tiny") == [1]


def test_with_nothing_to_export_it_says_how_to_get_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main(["--runs", str(tmp_path), "--models", str(tmp_path / "models")]) == 2
    assert "python -m training.train" in capsys.readouterr().err


def test_an_unfinished_run_is_not_exported(digits: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "tiny"
    with pytest.raises(Stopped):
        trainer.train(small("gan", digits), digits, run, report=silent, should_stop=lambda: True)
    with pytest.raises(export.ExportError, match=r"stopped at step 1 of 20.*--resume"):
        export.export_run(run, Repository(tmp_path / "models"))
