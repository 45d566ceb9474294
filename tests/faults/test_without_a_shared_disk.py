"""Workers that share a queue and an object store, but no disk: what one began another ends, nothing is made twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganserve.bucket import BucketStore
from ganserve.repository import Repository
from ganserve.runs import StoredRuns
from tests import stores
from tests.faults.conftest import HERE, Site, undisturbed


class Apart(Site):
    """Every worker has a folder of its own; the queue is the tests'."""

    def __init__(self, root: Path, database: str, url: str) -> None:
        super().__init__(root, database)
        self.url = url
        self.repository = Repository(f"{url}/models")
        self.stored = StoredRuns(BucketStore(f"{url}/store"))
        self.slow: dict[str, float] = {}

    def behave(self, **seconds: float) -> None:
        self.slow = seconds

    def disk(self, name: str) -> Path:
        return self.data / f"disk-{name}"

    def worker(self, name: str = "w1", script: str = "stub_worker.py") -> subprocess.Popen[bytes]:
        self.disk(name).mkdir(exist_ok=True)
        (self.disk(name) / "behaviour.json").write_text(json.dumps(self.slow))
        environment = {
            **os.environ,
            "PYTHONPATH": str(HERE.parent.parent),
            "GANSERVE_MODELS": f"{self.url}/models",
            "GANSERVE_STORE": f"{self.url}/store",
        }
        with (self.data / f"{name}.log").open("ab") as log:
            command = [sys.executable, str(HERE / script), str(self.disk(name)), self.database, name]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.processes.append(process)
        return process

    def began(self, name: str) -> list[int]:
        """The steps at which attempts of a worker began."""
        return [int(path.read_text()) for path in self.disk(name).glob("runs/*/attempt-*/begun")]

    def checkpoint_is_stored(self, job: str) -> None:
        self.until(lambda: self.stored.furthest(job)[0])


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


def test_a_store_that_is_away_delays_a_job_and_costs_it_nothing(
    tmp_path: Path, bucket: str, proxy: stores.Proxy, apart: Apart
) -> None:
    apart.behave(step_seconds=0.05)
    worker = apart.worker("w1")
    job = apart.submit(images=300)
    apart.checkpoint_is_stored(job.id)
    proxy.fault = lambda method, path: "cut"
    apart.until(lambda: "does not answer" in (apart.data / "w1.log").read_text())
    proxy.fault = lambda method, path: None
    assert apart.end(job).state == "succeeded"
    assert worker.poll() is None
    assert apart.weights() == undisturbed(300)


def test_an_upload_that_is_gone_is_said_and_never_taken_for_something_else(apart: Apart) -> None:
    apart.worker("w1")
    job = apart.end(apart.submit(dataset="pets", images=100))
    assert job.state == "failed"
    assert job.error is not None
    assert "there is no upload 'pets'" in job.error
