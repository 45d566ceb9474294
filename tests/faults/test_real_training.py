"""The whole way with real training: interrupted, it ends with the model of an undisturbed run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from service.jobs import JobRequest, JobStore

IMAGES = 30_000


@pytest.mark.slow
def test_a_job_interrupted_while_training_publishes_the_weights_of_an_undisturbed_run(
    sqlite_site: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site = sqlite_site
    site.store.close()
    site.store = JobStore(site.database)
    request = JobRequest(
        model="m", recipe="cgan", dataset="digits", images=IMAGES, seed=3, overrides={"width": 0.25}
    )
    first = site.worker("w1", "real_worker.py")
    job, _ = site.store.submit(request)
    site.until(lambda: (site.store.get(job.id).progress or {}).get("images"), 120)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=60) == 0
    assert list(site.data.glob("runs/*/attempt-1/checkpoints/*.pt")), "SIGTERM saved a checkpoint"
    site.worker("w2", "real_worker.py")
    ended = site.end(job, 300)
    assert ended.state == "succeeded", ended.error
    assert (ended.result["version"], ended.result["promoted"]) == (1, True)
    assert site.repository.verify("m", 1).job_id == job.id

    alone = tmp_path_factory.mktemp("alone") / "run"
    command = [
        sys.executable,
        "-m",
        "training.train",
        "--recipe",
        "cgan",
        "--dataset",
        "digits",
        "--seed",
        "3",
    ]
    command += ["--images", str(IMAGES), "--run", str(alone), "--threads", "1", "--set", "width=0.25"]
    command += ["--log-steps", "50", "--events"]
    root = Path(__file__).parent.parent.parent
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=root)
    weights = (site.data / "runs" / job.id / "attempt-2" / "best.safetensors").read_bytes()
    assert weights == (alone / "best.safetensors").read_bytes()
    assert [path.read_bytes() for path in (site.data / "weights").iterdir()] == [weights]


@pytest.mark.slow
def test_a_job_whose_worker_is_killed_five_times_within_seconds_of_training_is_not_given_up(sqlite_site: Any) -> None:
    site = sqlite_site
    site.store.close()
    site.store = JobStore(site.database)
    request = JobRequest(model="m", recipe="cgan", dataset="digits", images=10**8, seed=3, overrides={"width": 0.25})
    job, _ = site.store.submit(request)
    reached = 0

    def trains() -> None:
        # What the attempt before told stays until this one begins.
        site.until(lambda: "images" not in (site.store.get(job.id).progress or {}))
        site.until(lambda: "images" in (site.store.get(job.id).progress or {}))

    for _ in range(5):
        worker = site.worker("w1", "real_worker.py")
        trains()
        time.sleep(3.0)
        worker.kill()
        worker.wait()
        saved = max(int(path.stem.partition("-")[2]) for path in site.data.glob("runs/*/attempt-*/checkpoints/*.pt"))
        assert saved * 64 > reached
        reached = saved * 64
    site.worker("w1", "real_worker.py")
    trains()
    assert site.store.get(job.id).attempts == 6
    site.store.cancel(job.id)
