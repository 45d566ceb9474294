"""The job's steps: what it measures is compared fairly, and what goes live is its owner's and the gate's to say."""

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ganserve.queue import STEPS, WORKFLOW
from ganserve.repository import Repository
from tests.tiny import card, network
from training.retrain import workflow
from training.retrain.site import JobFailed


def test_workflow_and_steps_have_the_names_that_jobs_under_way_are_kept_by() -> None:
    assert (WORKFLOW, STEPS) == ("retrain", ("train", "export", "evaluate", "publish", "promote"))
    registered = [getattr(workflow, name).dbos_function_name for name in (*STEPS, WORKFLOW)]
    assert registered == [*STEPS, WORKFLOW]


class Models:
    """The part of the repository that promotion uses."""

    def __init__(self, live: int | None) -> None:
        self.now = live

    def live(self, name: str) -> int | None:
        return self.now

    def promote(self, name: str, version: int) -> None:
        self.now = version


@pytest.mark.parametrize(
    ("wish", "better", "live", "measured", "promoted", "words"),
    [
        ("if_better", True, 1, 1, True, "live"),
        ("if_better", False, 1, 1, False, "no better"),
        ("if_better", True, 2, 1, False, "version 2 went live after version 1 was measured"),
        ("if_better", True, None, None, True, "live"),
        ("always", False, 1, 1, True, "live"),
        ("never", True, 1, 1, False, "never"),
        ("if_better", False, 3, 1, True, "live"),
    ],
)
def test_a_version_goes_live_by_its_owners_wish_and_the_gate(
    wish: str, better: bool, live: int | None, measured: int | None, promoted: bool, words: str
) -> None:
    models = Models(live)
    outcome: dict[str, Any] = workflow._promote(
        SimpleNamespace(repository=models),  # type: ignore[arg-type]
        {"model": "m", "promote": wish},
        3,
        {"better": better, "live_version": measured},
    )
    assert outcome["promoted"] is promoted
    assert words in outcome["promotion"]
    assert models.now == (3 if promoted else live)


def test_what_the_training_logged_goes_with_the_version_that_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged, models = Repository(tmp_path / "staged"), Repository(tmp_path / "models")
    staged.publish(card("m"), network(), b"png", logged=b'{"log": []}')
    monkeypatch.setattr(workflow, "keep_weights", lambda *_: None)
    site: Any = SimpleNamespace(repository=models, staged=lambda job_id, folder: staged)
    measured = {"metrics": {"frechet": 1.0}, "reasons": ["because"]}
    assert workflow._publish(site, "a-job", {"model": "m", "dataset": "digits"}, measured) == 1
    assert models.logged("m", 1) == b'{"log": []}'
    assert models.card("m", 1).metrics["frechet"] == 1.0


MEASURED = {"judge": "j", "dataset": "d", "split": "test", "images": 100, "frechet": 1.0}


@pytest.mark.parametrize(
    ("live", "words"),
    [
        ("the model's classes ('cat',) are not the data set's ('dog',)", r"not comparable: .*classes \('cat',\)"),
        (
            {**MEASURED, "judge": "another", "frechet": 9.0},
            "not comparable: judge is 'j', the live version's 'another'",
        ),
        ({**MEASURED, "images": 50, "frechet": 9.0}, "not comparable: images is 100, the live version's 50"),
        ({}, "not comparable: judge is 'j', the live version's None"),
        ({key: MEASURED[key] for key in MEASURED if key != "frechet"}, "nothing to compare"),
    ],
)
def test_a_candidate_that_cannot_be_compared_with_the_live_version_is_published_but_not_promoted(
    tmp_path: Path, live: dict[str, Any] | str, words: str
) -> None:
    async def task(job_id: str, task: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if Path(arguments["onnx"]).is_relative_to(tmp_path / "runs"):
            return MEASURED
        if isinstance(live, str):
            raise JobFailed(f"evaluate: {live}")
        return live

    models = SimpleNamespace(names=lambda: ["m"], live=lambda name: 1, model_path=lambda name, version: tmp_path / "m")
    candidate = tmp_path / "runs/job/export/m/1/model.onnx"
    staged = SimpleNamespace(versions=lambda name: [1], model_path=lambda name, version: candidate)
    site: Any = SimpleNamespace(
        repository=models, staged=lambda job, folder: staged, dataset=lambda spec: spec["dataset"], task=task
    )
    found = asyncio.run(workflow._evaluate(site, "job", {"model": "m", "dataset": "d"}, {"version": 1}))
    assert found["metrics"] == MEASURED
    assert found["better"] is False
    assert re.search(words, found["reasons"][0])
    refused = workflow._promote(site, {"model": "m", "promote": "if_better"}, 2, found)
    assert refused == {"promoted": False, "promotion": "the gate found it no better than the live version"}


@pytest.mark.parametrize(
    ("exported", "asked", "reason"),
    [
        ({"version": 1, "inexact": ""}, [("judge", "export", "float")], ""),
        ({"version": 1, "inexact": "no exact form is known"}, [("evaluate", "float")], "no exact form is known"),
        ({"version": 1}, [("evaluate", "export")], None),
    ],
    ids=["an exact graph", "none, and why", "of a version before"],
)
def test_an_exact_graph_is_held_against_its_float_one_and_what_else_there_is_stands_alone(
    tmp_path: Path, exported: dict[str, Any], asked: list[tuple[str, ...]], reason: str | None
) -> None:
    seen: list[tuple[str, ...]] = []

    async def task(job_id: str, task: str, arguments: dict[str, str], shown: str = "") -> dict[str, Any]:
        files = (arguments.get(key) for key in ("onnx", "exact", "plain"))
        seen.append((task, *(Path(file).parents[2].name for file in files if file)))
        return {"metrics": MEASURED, "inexact": ""} if task == "judge" else MEASURED

    def staged(job: str, folder: str) -> Any:
        def path(name: str, version: int) -> Path:
            return tmp_path / folder / name / str(version) / "model.onnx"

        return SimpleNamespace(model_path=path, versions=lambda name: [1])

    site: Any = SimpleNamespace(staged=staged, dataset=lambda spec: spec["dataset"], task=task)
    site.repository = SimpleNamespace(names=list)
    found = asyncio.run(workflow._evaluate(site, "job", {"model": "m", "dataset": "d"}, exported))
    assert (seen, found["inexact"], found["metrics"]) == (asked, reason, MEASURED)
