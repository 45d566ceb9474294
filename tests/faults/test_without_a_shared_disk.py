"""Workers that share a queue and an object store, but no disk: what one began another ends, nothing is made twice."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import stores
from tests.faults.apart import Apart
from tests.faults.conftest import undisturbed


@pytest.fixture
def apart(tmp_path: Path, bucket: str) -> Iterator[Apart]:
    root = tmp_path / "site"
    root.mkdir()
    site = Apart(root, f"sqlite:///{root}/jobs.sqlite", bucket)
    yield site
    site.close()


def test_a_machine_is_lost_with_its_disk_and_another_goes_on_from_the_last_checkpoint(apart: Apart) -> None:
    apart.behave(step_seconds=0.1)
    first = apart.worker("w1")
    job = apart.submit(images=600)
    apart.checkpoint_is_stored(job.id)
    first.kill()
    first.wait()
    shutil.rmtree(apart.disk("w1"))
    apart.behave()
    apart.worker("w2")
    assert apart.end(job).state == "succeeded"
    assert apart.weights() == undisturbed(600)
    assert min(apart.began("w2")) > 0
    assert apart.repository.versions("m") == [1]


@pytest.mark.slow
def test_a_machine_is_lost_between_the_steps_and_another_ends_the_job_on_an_empty_disk(apart: Apart) -> None:
    apart.behave(evaluate_seconds=60.0)
    first = apart.worker("w1")
    job = apart.submit(images=100)
    apart.until((apart.disk("w1") / "step-evaluate").exists)
    first.kill()
    first.wait()
    shutil.rmtree(apart.disk("w1"))
    apart.behave()
    apart.worker("w2")
    assert apart.end(job).state == "succeeded"
    assert apart.weights() == undisturbed(100)
    assert apart.began("w2") == []


def test_two_workers_that_both_believe_a_job_is_theirs_make_one_version(apart: Apart) -> None:
    apart.behave(publish_seconds=3.0)
    first = apart.worker("w1")
    job = apart.submit(images=100)
    apart.until((apart.disk("w1") / "step-publish").exists)
    first.send_signal(signal.SIGSTOP)
    apart.behave()
    apart.worker("w2")
    assert apart.end(job).state == "succeeded"
    first.send_signal(signal.SIGCONT)
    apart.until((apart.disk("w1") / "done-publish").exists)
    assert apart.repository.versions("m") == [1]
    assert apart.weights() == undisturbed(100)
    assert apart.repository.live("m") == 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["cut", "hang", "drip"])
def test_a_store_that_is_away_delays_a_job_and_costs_it_nothing(
    tmp_path: Path, bucket: str, proxy: stores.Proxy, apart: Apart, fault: str
) -> None:
    apart.behave(step_seconds=0.05)
    worker = apart.worker("w1")
    job = apart.submit(images=300)
    apart.checkpoint_is_stored(job.id)
    proxy.fault = lambda method, path: fault
    apart.until(lambda: "does not answer" in (apart.data / "w1.log").read_text())
    proxy.fault = lambda method, path: None
    assert apart.end(job).state == "succeeded"
    assert worker.poll() is None
    assert apart.weights() == undisturbed(300)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["checkpoint", "publish"])
def test_a_worker_ends_when_it_is_told_to_while_its_store_hangs_and_another_ends_the_job(
    proxy: stores.Proxy, apart: Apart, place: str
) -> None:
    apart.behave(**({"step_seconds": 0.05} if place == "checkpoint" else {"publish_seconds": 2.0}))
    worker = apart.worker("w1")
    job = apart.submit(images=300)
    if place == "checkpoint":
        apart.checkpoint_is_stored(job.id)
    else:
        apart.until((apart.disk("w1") / "step-publish").exists)
    proxy.fault = lambda method, path: "hang"
    time.sleep(3)
    worker.terminate()
    worker.wait(90)
    proxy.fault = lambda method, path: None
    apart.behave()
    apart.worker("w2")
    assert apart.end(job).state == "succeeded"
    assert apart.weights() == undisturbed(300)
    assert apart.repository.versions("m") == [1]


def test_an_upload_that_is_gone_is_said_and_never_taken_for_something_else(apart: Apart) -> None:
    apart.worker("w1")
    job = apart.end(apart.submit(dataset="pets", images=100))
    assert job.state == "failed"
    assert job.error is not None
    assert "there is no upload 'pets'" in job.error
