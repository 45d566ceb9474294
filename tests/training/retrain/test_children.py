"""What a child process tells becomes the job's progress; one that stalls is killed; its end is told in words."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from training.retrain.children import Children, Ended, Progress, StallWatch, why


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the job is told, without a queue."""
    kept: list[dict[str, Any]] = []

    async def tell(self: Progress) -> None:
        kept.append(self.value())

    monkeypatch.setattr(Progress, "tell", tell)
    return kept


def run(tmp_path: Path, script: str, *, seconds: float = 60.0) -> Ended:
    command = [sys.executable, "-c", f"import json, os, sys, time\n{script}"]
    return asyncio.run(Children(tmp_path, seconds).run(command, "train"))


def test_a_childs_last_event_is_what_it_found_and_what_it_told_before_is_the_jobs_progress(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    ended = run(
        tmp_path,
        """print("a library says hello")
print(json.dumps({"event": "progress", "step": 3, "images": 30, "images_total": 40}))
print(json.dumps({"event": "finished", "state": "finished", "data": os.environ["GANSERVE_DATA"]}))""",
    )
    assert (ended.code, ended.reason) == (0, "")
    assert ended.result == {"state": "finished", "data": str(tmp_path)}
    assert told[0] == {"step": "train"}
    assert told[-1] == {"step": "train", "training_step": 3, "images": 30, "images_total": 40, "images_left": 10}


def test_what_a_training_was_worth_stays_told_while_the_job_goes_on_and_not_in_the_next_job(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    curve = [{"images": 64, "label_accuracy": 0.5}]
    sheet = {"event": "samples", "path": "a.png", "step": 1, "images": 64, "label_accuracy": 0.5, "curve": curve}
    children = Children(tmp_path, 60.0)
    for step, script in (("train", f"print({json.dumps(json.dumps(sheet))})"), ("export", ""), ("train", "")):
        asyncio.run(children.run([sys.executable, "-c", script], step))
    exported = next(state for state in told if state["step"] == "export")
    assert exported == {"step": "export", "curve": curve, "metrics": {"label_accuracy": 0.5}, "samples": "a.png"}
    assert told[-1] == {"step": "train"}


def test_a_child_that_fails_is_believed_and_one_that_says_nothing_is_quoted(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    said = run(tmp_path, """print(json.dumps({"event": "failed", "reason": "no image"})); sys.exit(2)""")
    assert (said.code, said.reason) == (2, "no image")
    quoted = run(tmp_path, """sys.exit("error: the disk is full")""")
    assert (quoted.code, quoted.reason) == (1, "the disk is full")


def test_a_childs_threads_sleep_where_they_wait_unless_someone_says_otherwise(
    tmp_path: Path, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """print(json.dumps({"event": "result", "policy": os.environ["OMP_WAIT_POLICY"]}))"""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert run(tmp_path, script).result == {"policy": "PASSIVE"}
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert run(tmp_path, script).result == {"policy": "ACTIVE"}


def test_a_child_that_says_the_same_for_too_long_is_killed(tmp_path: Path, told: list[dict[str, Any]]) -> None:
    begun = time.monotonic()
    ended = run(
        tmp_path,
        """while True:
    print(json.dumps({"event": "progress", "step": 3, "images": 30}), flush=True)
    time.sleep(0.05)""",
        seconds=1.0,
    )
    assert (ended.code, ended.reason) == (-9, "no progress in 1 s")
    assert time.monotonic() - begun < 30


def test_a_child_of_a_cancelled_job_is_killed_at_once(tmp_path: Path, told: list[dict[str, Any]]) -> None:
    async def cancelled() -> int:
        site = Children(tmp_path, 60.0)
        command = [sys.executable, "-c", "import time; print('{}', flush=True); time.sleep(600)"]
        job = asyncio.create_task(site.run(command, "train"))
        while not site._alive:
            await asyncio.sleep(0.01)
        (process,) = site._alive
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert not site._alive
        assert process.returncode is not None
        return process.returncode

    assert asyncio.run(asyncio.wait_for(cancelled(), 30)) == -9


def test_the_end_of_a_child_that_was_told_to_stop_is_never_taken_for_an_outcome(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    async def stopped() -> None:
        site = Children(tmp_path, 60.0)
        script = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *a: sys.exit(75)); time.sleep(600)"
        job = asyncio.create_task(site.run([sys.executable, "-c", script], "train"))
        while not site._alive:
            await asyncio.sleep(0.01)
        site.stopping.set()
        stopping = threading.Thread(target=site.stop, args=(20.0,))
        stopping.start()
        while stopping.is_alive():
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(job), 0.3)
        job.cancel()

    asyncio.run(asyncio.wait_for(stopped(), 30))


def test_only_what_is_new_counts_as_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = StallWatch(10.0)
    watch.look({"event": "checkpoint", "step": 1})
    now += 4
    watch.look({"event": "checkpoint", "step": 1})
    watch.look({"event": "warning", "reason": "slow"})
    assert watch.left() == 6.0
    watch.look({"event": "checkpoint", "step": 2})
    assert watch.left() == 10.0
    now += 60
    assert 0 < watch.left() < 0.1


def test_progress_is_told_at_most_once_a_second_and_keeps_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress, told = Progress({"step": "train"}), []
    for step in range(1000):
        now += 0.01
        seen: Any = {"event": "progress", "step": step, "steps": 1000, "images": step * 64, "images_total": 64_000}
        if progress.take(seen):
            told.append(progress.value())
    assert len(told) == 10
    assert told[-1]["step"] == "train"
    assert (told[-1]["training_step"], told[-1]["training_steps"]) == (900, 1000)
    assert (told[-1]["images"], told[-1]["images_left"]) == (57_600, 6_400)
    assert progress.pending
    assert progress.value()["training_step"] == 999


def test_scores_and_warnings_are_part_of_the_progress() -> None:
    progress = Progress({"step": "train"})
    sheet: Any = {"event": "samples", "path": "samples/a.png", "step": 1, "images": 64, "score": 3.5}
    progress.take(sheet)
    for number in range(20):
        progress.take({"event": "warning", "reason": f"w{number}"})
    told = progress.value()
    assert told["metrics"] == {"score": 3.5}
    assert told["samples"] == "samples/a.png"
    assert told["warnings"] == [f"w{number}" for number in range(10, 20)]


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
    assert why(code, words) == reason
