"""A job's export makes the exact graph and the float one; the judge says which is published, and the card why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import silent, small
from training import exact, trainer
from training.data import Dataset
from training.evaluate import evaluate_onnx
from training.exact import judged
from training.retrain import tasks, workflow
from training.retrain.attempts import EXPORT, FLOAT
from training.retrain.site import Config, Site
from training.run import Intervals

SPEC = {"model": "tiny", "dataset": "digits"}


@pytest.fixture(scope="module")
def run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    trainer.train(small("cgan", digits), digits, path, report=silent, intervals=Intervals(snapshots=1))
    return path


def exported(site: Site, run: Path) -> dict[str, Any]:
    places = {"repository": site.staged("job", EXPORT).root, "beside": site.staged("job", FLOAT).root}
    return tasks.export(str(run), **{key: str(root) for key, root in places.items()}, model="tiny", job_id="job")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(Config(f"sqlite:///{tmp_path}/jobs.sqlite", tmp_path, tmp_path / "models", "w"))


def judged_by(site: Site) -> dict[str, Any]:
    paths = {key: str(site.staged("job", f).model_path("tiny", 1)) for key, f in (("exact", EXPORT), ("plain", FLOAT))}
    return {**tasks.judge(**paths, dataset="digits"), "reasons": ["nothing to beat"]}


def test_a_job_publishes_the_exact_graph_with_the_weights_that_a_next_job_begins_from(site: Site, run: Path) -> None:
    assert exported(site, run) == {"version": 1, "inexact": ""}
    measured = judged_by(site)
    assert measured["inexact"] == ""
    assert {"frechet", "coverage", "precision", "label_accuracy"} <= measured["metrics"].keys()
    assert workflow._publish(site, "job", SPEC, measured) == workflow._publish(site, "job", SPEC, measured) == 1
    card = site.repository.verify("tiny", 1)
    assert (card.exact, card.job_id, card.notes) == (True, "job", [])
    # The repository alone, as another machine has it.
    other = site.config.data / "other.safetensors"
    tasks.recover(str(site.config.models), "tiny", 1, str(other))
    assert other.read_bytes() == (run / "best.safetensors").read_bytes()


def test_an_exact_graph_that_the_judge_finds_worse_gives_way_to_the_float_one_and_the_card_says_why(
    site: Site, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(site, run)
    plain = site.staged("job", FLOAT).model_path("tiny", 1).read_bytes()

    def worse(graph: bytes, *args: Any, **asked: Any) -> dict[str, Any]:
        found = evaluate_onnx(graph, *args, **asked)
        return found if graph == plain else found | {"coverage": -1.0}

    monkeypatch.setattr(judged, "evaluate_onnx", worse)
    measured = judged_by(site)
    assert measured["metrics"]["coverage"] >= 0, "what is told is the float graph's"
    workflow._publish(site, "job", SPEC, measured)
    card = site.repository.verify("tiny", 1)
    (note,) = card.notes
    assert not card.exact
    assert note.startswith("not exact: the exact graph is worse than the float one: coverage -1.0000 (")
    assert site.repository.model_path("tiny", 1).read_bytes() == plain


def test_a_generator_without_an_exact_form_is_published_as_a_float_graph_with_the_reason(
    site: Site, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(generator: object) -> None:
        raise exact.ExactError("no exact form is known of it")

    monkeypatch.setattr(exact, "read", none)
    told = exported(site, run)
    assert told == {"version": 1, "inexact": "no exact form is known of it"}
    workflow._publish(site, "job", SPEC, {"metrics": {}, "reasons": [], "inexact": told["inexact"]})
    card = site.repository.verify("tiny", 1)
    assert (card.exact, card.notes) == (False, ["not exact: no exact form is known of it"])
