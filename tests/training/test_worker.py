"""The worker's parts that need no queue: attempts, progress, promotion. tests/faults has the rest."""

import asyncio
import json
import re
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from training import worker
from training.worker import JobFailed, _event, _Progress, _promote, _why, attempts, begin_attempt, init_weights


def test_the_first_attempt_is_empty_and_the_next_one_inherits_what_the_last_one_left(tmp_path: Path) -> None:
    job = tmp_path / "job"
    first = begin_attempt(job)
    assert list(first.iterdir()) == []
    (first / "checkpoints").mkdir()
    (first / "checkpoints/step-1.pt").write_bytes(b"state")
    (first / "log.jsonl").write_text("one\n")
    (first / ".log.jsonl.123").write_text("being written")
    second = begin_attempt(job)
    assert (second / "checkpoints/step-1.pt").read_bytes() == b"state"
    assert not (second / ".log.jsonl.123").exists()
    with (second / "log.jsonl").open("a") as log:
        log.write("two\n")
    assert (first / "log.jsonl").read_text() == "one\n", "a late worker's run is not written into"


def test_attempts_are_counted_as_numbers(tmp_path: Path) -> None:
    for number in (1, 2, 9, 10):
        (tmp_path / f"attempt-{number}").mkdir()
    (tmp_path / "attempt-x").mkdir()
    assert [path.name for path in attempts(tmp_path)][-2:] == ["attempt-9", "attempt-10"]
    assert begin_attempt(tmp_path).name == "attempt-11"


def test_progress_is_told_at_most_once_a_second_and_keeps_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(worker.time, "monotonic", lambda: now)
    progress, told = _Progress({"step": "train"}), []
    for step in range(1000):
        now += 0.01
        seen = {"step": step, "steps": 1000, "images": step * 64, "images_total": 64_000}
        if progress.take({"event": "progress", **seen}):
            told.append(progress.value())
    assert len(told) == 10
    assert told[-1]["step"] == "train"
    assert (told[-1]["training_step"], told[-1]["training_steps"]) == (900, 1000)
    assert (told[-1]["images"], told[-1]["images_left"]) == (57_600, 6_400)
    assert progress.pending
    assert progress.value()["training_step"] == 999


def test_scores_and_warnings_are_part_of_the_progress() -> None:
    progress = _Progress({"step": "train"})
    progress.take({"event": "samples", "path": "samples/a.png", "step": 1, "images": 64, "score": 3.5})
    for number in range(20):
        progress.take({"event": "warning", "reason": f"w{number}"})
    told = progress.value()
    assert told["metrics"] == {"score": 3.5}
    assert told["samples"] == "samples/a.png"
    assert told["warnings"] == [f"w{number}" for number in range(10, 20)]


@pytest.mark.parametrize("line", [b"hello\n", b"[1]\n", b"\xff\xfe\n", b"3\n", b"\n"])
def test_what_a_library_prints_is_no_event(line: bytes) -> None:
    assert _event(line) == {}


def test_an_event_is_read() -> None:
    assert _event(json.dumps({"event": "finished"}).encode()) == {"event": "finished"}


@pytest.mark.parametrize(
    ("code", "words", "reason"),
    [
        (-9, [], "killed by SIGKILL"),
        (-11, ["Fatal Python error"], "killed by SIGSEGV (Fatal Python error)"),
        (2, ["error: data set 'x' is empty"], "data set 'x' is empty"),
        (1, [], "ended with status 1"),
    ],
)
def test_the_end_of_a_child_is_told_in_words(code: int, words: list[str], reason: str) -> None:
    assert _why(code, deque(words)) == reason


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
    outcome: dict[str, Any] = _promote(
        SimpleNamespace(repository=models),  # type: ignore[arg-type]
        {"model": "m", "promote": wish},
        3,
        {"better": better, "live_version": measured},
    )
    assert outcome["promoted"] is promoted
    assert words in outcome["promotion"]
    assert models.now == (3 if promoted else live)


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: dict[str, Any] | str, words: str
) -> None:
    async def task(job_id: str, step: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if Path(arguments["onnx"]).is_relative_to(tmp_path / "runs"):
            return MEASURED
        if isinstance(live, str):
            raise JobFailed(f"evaluate: {live}")
        return live

    monkeypatch.setattr(worker, "_task", task)
    (tmp_path / "runs/job/export/m/1").mkdir(parents=True)
    models = SimpleNamespace(names=lambda: ["m"], live=lambda name: 1, model_path=lambda name, version: tmp_path / "m")
    site: Any = SimpleNamespace(config=SimpleNamespace(data=tmp_path), repository=models)
    found = asyncio.run(worker._evaluate(site, "job", {"model": "m", "dataset": "d"}))
    assert found["metrics"] == MEASURED
    assert found["better"] is False
    assert re.search(words, found["reasons"][0])
    refused = _promote(site, {"model": "m", "promote": "if_better"}, 2, found)
    assert refused == {"promoted": False, "promotion": "the gate found it no better than the live version"}


def _site(tmp_path: Path, recipe: str = "cgan", live: int | None = 1) -> Any:
    card = SimpleNamespace(name="m", version=1, recipe=recipe, sha256="ab" * 32)
    repository = SimpleNamespace(root=tmp_path / "models", live=lambda name: live, card=lambda name, version: card)
    return SimpleNamespace(config=SimpleNamespace(data=tmp_path), repository=repository)


def test_a_warm_start_begins_from_the_version_that_was_live_when_the_job_first_asked(tmp_path: Path) -> None:
    site, spec = _site(tmp_path), {"model": "m", "recipe": "cgan"}
    kept = tmp_path / "weights" / f"{'ab' * 32}.safetensors"
    kept.parent.mkdir()
    kept.write_bytes(b"first")
    first = asyncio.run(init_weights(site, "job", spec))
    kept.write_bytes(b"another version's")
    assert asyncio.run(init_weights(site, "job", spec)) == first
    assert first.read_bytes() == b"first"


@pytest.mark.parametrize(
    ("recipe", "live", "words"),
    [("dcgan", 1, "m 1 is of recipe 'dcgan', not 'cgan'"), ("cgan", None, "'m' has no live version")],
)
def test_a_warm_start_from_nothing_or_another_recipe_fails_with_its_reason(
    tmp_path: Path, recipe: str, live: int | None, words: str
) -> None:
    with pytest.raises(JobFailed, match=f'{words}.*ask for init "scratch"'):
        asyncio.run(init_weights(_site(tmp_path, recipe, live), "job", {"model": "m", "recipe": "cgan"}))
