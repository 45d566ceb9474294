"""No crash loses a job, runs it twice to the outside, or changes its weights. Real processes, real kills.

``-m slow`` adds the long matrix and PostgreSQL: ``make test-faults``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Site = Any
Weights = Callable[[int], str]
slow = pytest.mark.slow


def alive(process: int) -> bool:
    """Whether a process runs; one that only waits for its parent to take note does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def succeeded_once(site: Site, job: Any, expected: str) -> Any:
    """The job succeeded with exactly the expected weights, and exactly one version is there, live."""
    ended = site.end(job)
    assert ended.state == "succeeded", ended.error
    assert site.repository.versions("m") == [1]
    assert site.repository.live("m") == 1
    assert site.weights() == expected
    assert ended.result["promoted"] is True
    return ended


def test_an_undisturbed_job_is_trained_measured_published_and_promoted(
    site: Site, expected_weights: Weights
) -> None:
    site.worker()
    job = site.submit()
    assert (job.state, job.attempts) == ("queued", 0)
    ended = succeeded_once(site, job, expected_weights(200))
    assert ended.result["metrics"]["judge"] == "stub"
    assert ended.result["gate"] == {"better": True, "reasons": ["no version is live: nothing to beat"]}
    assert ended.attempts == 1
    assert site.store.workers() == ["w1"]
    second = site.end(site.submit(images=100))
    assert (second.result["version"], second.result["live_version"]) == (2, 1)


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("train", "step"),
        pytest.param("export", "step", marks=slow),
        pytest.param("evaluate", "step", marks=slow),
        pytest.param("publish", "step", marks=slow),
        ("publish", "done"),
        pytest.param("promote", "step", marks=slow),
        pytest.param("promote", "done", marks=slow),
    ],
)
def test_a_worker_killed_in_any_step_goes_on_when_it_is_back(
    site: Site, expected_weights: Weights, step: str, kind: str
) -> None:
    site.behave(step_seconds=0.05, **{f"{step}_seconds": 1.0})
    worker = site.worker()
    job = site.submit()
    site.reached(step, kind)
    worker.kill()
    worker.wait()
    site.behave()
    site.worker()
    assert succeeded_once(site, job, expected_weights(200)).attempts == 2


def test_the_training_child_dies_with_its_worker(site: Site) -> None:
    site.behave(step_seconds=0.1)
    worker = site.worker()
    site.submit(images=100_000)
    site.reached("train")
    child = site.child(worker)
    worker.kill()
    worker.wait()
    site.until(lambda: not alive(child), 20)


def test_a_killed_training_child_is_started_again_from_its_checkpoint(
    site: Site, expected_weights: Weights
) -> None:
    site.behave(step_seconds=0.05)
    worker = site.worker()
    job = site.submit()
    site.reached("train")
    os.kill(site.child(worker), signal.SIGKILL)
    assert succeeded_once(site, job, expected_weights(200)).attempts == 1


def test_sigterm_saves_a_checkpoint_and_another_worker_goes_on_at_once(
    site: Site, expected_weights: Weights
) -> None:
    site.behave(step_seconds=0.05)
    worker = site.worker("w1")
    job = site.submit(images=500)
    site.reached("train")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=120) == 0
    assert site.store.workers() == []
    site.worker("w2")
    assert succeeded_once(site, job, expected_weights(500)).worker == "w2"


@slow
def test_sigterm_of_the_training_child_alone_only_delays_the_job(
    site: Site, expected_weights: Weights
) -> None:
    site.behave(step_seconds=0.05)
    worker = site.worker()
    job = site.submit()
    site.reached("train")
    os.kill(site.child(worker), signal.SIGTERM)
    succeeded_once(site, job, expected_weights(200))


def test_the_job_of_a_worker_that_never_comes_back_is_taken_over(
    site: Site, expected_weights: Weights
) -> None:
    site.behave(step_seconds=0.05)
    lost = site.worker("lost")
    job = site.submit(images=500)
    site.reached("train")
    site.worker("other")
    lost.kill()
    lost.wait()
    assert succeeded_once(site, job, expected_weights(500)).worker == "other"


@slow
def test_a_worker_that_comes_back_late_does_no_harm(site: Site, expected_weights: Weights) -> None:
    site.behave(step_seconds=0.1)
    late = site.worker("late")
    job = site.submit(images=900)
    site.reached("train")
    late.send_signal(signal.SIGSTOP)
    site.worker("other")
    site.until(lambda: site.store.get(job.id).worker == "other")
    late.send_signal(signal.SIGCONT)
    assert succeeded_once(site, job, expected_weights(900)).worker == "other"
    again = site.submit(images=100)
    assert site.end(again).state == "succeeded"
    assert late.poll() is None, "the late worker lives on and takes jobs"


@slow
def test_a_damaged_checkpoint_costs_only_the_time_since_the_one_before(
    site: Site, expected_weights: Weights
) -> None:
    site.behave(step_seconds=0.05)
    worker = site.worker()
    job = site.submit(images=300)
    site.until(lambda: len(list(site.data.glob("runs/*/attempt-1/checkpoints/*.pt"))) >= 2)
    worker.kill()
    worker.wait()
    newest = max(site.data.glob("runs/*/attempt-1/checkpoints/*.pt"))
    newest.write_bytes(b"half a checkp")
    site.worker()
    ended = succeeded_once(site, job, expected_weights(300))
    assert ended.state == "succeeded"


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        ("collapse", "training: the generator has collapsed: all images look alike"),
        pytest.param("bad", "training: data set 'bad' is empty", marks=slow),
        ("poison", "training failed 3 times without a new checkpoint; last: killed by SIGKILL"),
        pytest.param("hang", "no progress in 12 s", marks=slow),
    ],
)
def test_a_job_that_cannot_succeed_fails_with_its_reason_and_the_queue_goes_on(
    site: Site, dataset: str, reason: str
) -> None:
    if dataset == "hang":
        site.behave(no_progress_seconds=12.0)
    site.worker()
    job, healthy = site.submit(dataset), site.submit()
    ended = site.end(job)
    assert ended.state == "failed"
    assert reason in (ended.error or "")
    assert site.end(healthy).state == "succeeded"


@slow
def test_a_version_that_cannot_be_compared_with_the_live_one_is_published_and_waits_for_an_admin(site: Site) -> None:
    site.worker()
    assert site.end(site.submit()).result["promoted"] is True
    site.behave(other_classes=1)
    ended = site.end(site.submit(images=100))
    assert ended.state == "succeeded", ended.error
    assert (ended.result["version"], ended.result["promoted"], site.repository.live("m")) == (2, False, 1)
    assert "not comparable" in ended.result["gate"]["reasons"][0]
    assert "classes ('cat',)" in ended.result["gate"]["reasons"][0]
    assert site.end(site.submit(images=50, promote="always")).result["promoted"] is True
    assert site.repository.live("m") == 3


def test_a_job_that_kills_its_worker_each_time_is_given_up_and_the_queue_goes_on(site: Site) -> None:
    site.behave(max_deaths=2)
    deadly, healthy = site.submit("deadly"), site.submit()
    workers: list[Any] = []

    def over() -> Any:
        if not workers or workers[-1].poll() is not None:
            workers.append(site.worker())
        found = site.store.get(deadly.id)
        return found if found.finished else None

    ended = site.until(over, 300)
    assert ended.state == "failed"
    assert "train: given up, for its worker died 2 times on end and got no further" in ended.error
    assert [worker.poll() for worker in workers] == [-signal.SIGKILL, -signal.SIGKILL, None]
    assert site.end(healthy).state == "succeeded"


@slow
def test_a_job_whose_workers_die_but_get_further_each_time_is_not_given_up(
    site: Site, expected_weights: Weights
) -> None:
    site.behave(step_seconds=0.05, max_deaths=1)
    job = site.submit(images=1000)
    seen: set[str] = set()
    for _ in range(3):
        worker = site.worker()
        before = set(seen)

        def further(before: set[str] = before) -> bool:
            seen.update(path.name for path in site.data.glob("runs/*/attempt-*/checkpoints/*.pt"))
            return seen > before

        site.until(further)
        worker.kill()
        worker.wait()
    site.worker()
    assert succeeded_once(site, job, expected_weights(1000)).attempts == 4


@slow
def test_workers_that_are_told_to_end_do_not_count_against_their_job(site: Site, expected_weights: Weights) -> None:
    site.behave(export_seconds=20.0, max_deaths=1)
    job = site.submit()
    for _ in range(3):
        worker = site.worker()
        site.reached("export")
        (site.data / "step-export").unlink()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=120) == 0
    site.behave(max_deaths=1)
    site.worker()
    assert succeeded_once(site, job, expected_weights(200)).attempts == 4


@pytest.mark.parametrize(
    "step",
    [
        "train",
        pytest.param("export", marks=slow),
        pytest.param("evaluate", marks=slow),
        pytest.param("publish", marks=slow),
        pytest.param("promote", marks=slow),
    ],
)
def test_cancel_ends_a_job_in_any_step_and_the_queue_goes_on(site: Site, step: str) -> None:
    site.behave(step_seconds=0.1, **{f"{step}_seconds": 2.0})
    worker = site.worker()
    job = site.submit(images=100_000 if step == "train" else 50)
    site.reached(step)
    child = site.child(worker) if step == "train" else None
    asked = time.monotonic()
    assert site.store.cancel(job.id).state == "cancelled"
    if child is not None:
        site.until(lambda: not alive(child), 20)
        assert time.monotonic() - asked < 5
    assert site.store.cancel(job.id).state == "cancelled", "cancelling twice is no mistake"
    site.behave()
    assert site.end(site.submit(images=50)).state == "succeeded"
    assert site.store.get(job.id).state == "cancelled"


@slow
def test_a_job_cancelled_while_queued_never_starts(site: Site) -> None:
    job = site.submit()
    assert site.store.cancel(job.id).state == "cancelled"
    site.worker()
    assert site.end(site.submit(images=50)).state == "succeeded"
    assert not (site.data / "runs" / job.id).exists()


@slow
def test_a_postgresql_restart_under_a_running_job_is_ridden_out(
    postgres_site: Site, postgres: Any, expected_weights: Weights
) -> None:
    site = postgres_site
    site.behave(step_seconds=0.05)
    site.worker()
    job = site.submit(images=600)
    site.reached("train")
    postgres.stop()
    time.sleep(2)
    postgres.start()

    def ended() -> Any:
        try:
            found = site.store.get(job.id)
        except Exception:
            return None
        return found if found.finished else None

    site.until(ended)
    succeeded_once(site, job, expected_weights(600))


def test_a_worker_whose_database_goes_away_while_it_begins_says_so_and_takes_jobs_when_it_is_back(
    sqlite_site: Site, expected_weights: Weights
) -> None:
    sqlite_site.behave(away_at_launch=1)
    sqlite_site.worker()
    job = sqlite_site.submit(images=100)
    succeeded_once(sqlite_site, job, expected_weights(100))
    assert "does not answer, trying again" in (sqlite_site.data / "w1.log").read_text()


@slow
def test_a_worker_that_begins_before_its_database_waits_says_so_and_takes_jobs(
    postgres_site: Site, postgres: Any, expected_weights: Weights
) -> None:
    site = postgres_site
    job = site.submit()
    postgres.stop()
    worker = site.worker()
    site.until(lambda: "does not answer, trying again" in (site.data / "w1.log").read_text())
    assert worker.poll() is None
    postgres.start()
    succeeded_once(site, job, expected_weights(200))


@contextmanager
def small_disk(site: Site, folder: Path) -> Iterator[Callable[[], None]]:
    """``folder`` on a disk of 64 KiB, all but one page of it taken; gives the call that makes room."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        (folder / ".ballast").write_bytes(bytes(60 * 1024))
        yield (folder / ".ballast").unlink
    finally:
        for process in site.processes:
            process.kill()
            process.wait()
        subprocess.run(["umount", str(folder)], check=True)


@slow
@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("folder", ["runs", "models"])
def test_a_full_disk_fails_the_job_with_its_reason_and_space_lets_the_next_one_pass(
    site: Site, folder: str, expected_weights: Weights
) -> None:
    with small_disk(site, site.data / folder) as make_room:
        site.worker()
        ended = site.end(site.submit())
        assert ended.state == "failed"
        assert "No space left on device" in (ended.error or "")
        assert site.repository.names() == [] or site.repository.versions("m") == []
        make_room()
        again = site.end(site.submit())
        assert again.state == "succeeded", again.error
        assert site.weights(site.repository.live("m")) == expected_weights(200)


@slow
def test_progress_is_told_while_training(site: Site) -> None:
    site.behave(step_seconds=0.05)
    site.worker()
    job = site.submit(images=1000)
    seen = site.until(lambda: (p := site.store.get(job.id).progress) and p.get("images") and p)
    assert seen["step"] == "train"
    assert seen["images_total"] == 1000
    assert json.dumps(seen)
    later = site.until(lambda: (p := site.store.get(job.id).progress)["images"] > seen["images"] and p)
    assert later["training_step"] > seen["training_step"]
