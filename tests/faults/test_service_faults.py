"""The service may die at any time, alone or with its worker: no job is lost, none runs twice. Real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from service.jobs import DEFAULT_QUEUE_LIMIT, JobRequest, JobStore, JobsUnavailable
from tests.faults.conftest import BOUNDS

Site = Any
Weights = Callable[[int], str]
pytestmark = pytest.mark.slow


def served(site: Site, service: Any, job: str, expected: str) -> dict[str, Any]:
    """The job succeeded with the expected weights; the service tells so and serves its one version."""
    site.end(site.store.get(job))
    ended = service.client.get(f"/jobs/{job}").json()
    assert ended["state"] == "succeeded", ended
    assert ended["result"]["promoted"] is True
    assert site.repository.versions("m") == [1]
    assert site.weights() == expected

    def image() -> bool:
        answer = service.client.post("/generate", json={"model": "m", "n": 1, "seed": 3})
        return bool(answer.status_code == 200 and answer.headers["X-Model-Version"] == "1")

    site.until(image)
    found: dict[str, Any] = ended
    return found


def status(number: signal.Signals, workers: int) -> int:
    """How the service ends on a signal: by it, but for the parent of several processes, which is told to end, has them
    finish, and ends with status 0."""
    return 0 if workers > 1 and number == signal.SIGTERM else -number


BOTH = [(number, workers) for number in (signal.SIGKILL, signal.SIGTERM) for workers in (1, 2)]


@pytest.mark.parametrize(("number", "workers"), BOTH)
def test_a_service_that_ends_while_a_job_runs_finds_it_again(
    site: Site, expected_weights: Weights, number: signal.Signals, workers: int
) -> None:
    site.behave(step_seconds=0.05)
    service = site.service(workers)
    site.worker()
    job = service.post("key", images=600)
    site.reached("train")
    with service.client.stream("GET", f"/jobs/{job}/events") as watched:
        assert next(line for line in watched.iter_lines() if line.startswith("data: "))
        begun = time.monotonic()
        assert service.end(number) == status(number, workers)
    assert time.monotonic() - begun < 20, "an open watch does not hold the service up"
    again = site.service()
    assert again.post("key", images=600) == job, "a repeated post is the same job"
    assert served(site, again, job, expected_weights(600))["attempts"] == 1


@pytest.mark.parametrize(("number", "workers"), BOTH)
def test_service_and_worker_that_end_together_go_on_together(
    site: Site, expected_weights: Weights, number: signal.Signals, workers: int
) -> None:
    site.behave(step_seconds=0.05)
    service, worker = site.service(workers), site.worker()
    job = service.post("key", images=400)
    site.reached("train")
    for process in (service.process, worker):
        os.kill(process.pid, number)
    assert service.process.wait(120) == status(number, workers)
    # The worker with status 0 once its checkpoint is saved.
    assert worker.wait(120) == (-number if number == signal.SIGKILL else 0)
    service = site.service()
    assert service.client.get(f"/jobs/{job}").json()["state"] in ("queued", "running")
    site.worker()
    served(site, service, job, expected_weights(400))


def test_a_job_that_was_accepted_survives_kill_minus_nine_of_the_service_at_once(
    site: Site, expected_weights: Weights
) -> None:
    service = site.service()
    job = service.post("key")
    assert service.end(signal.SIGKILL) == -signal.SIGKILL
    site.worker()
    site.end(site.store.get(job))
    served(site, site.service(), job, expected_weights(200))


def test_the_watch_tells_everything_there_is_to_know_of_a_running_job(site: Site) -> None:
    site.behave(step_seconds=0.05)
    service = site.service()
    site.worker()
    job = service.post("key", images=1500)
    told: list[dict[str, Any]] = []
    with service.client.stream("GET", f"/jobs/{job}/events", timeout=300) as watched:
        told = [json.loads(line[6:]) for line in watched.iter_lines() if line.startswith("data: ")]
    assert told[-1]["state"] == "succeeded"
    progress = [job["progress"] for job in told if "metrics" in job.get("progress", {})]
    expected = {"images", "images_left", "images_total", "images_per_second", "seconds_left", "loss_d", "loss_g"}
    assert expected | {"step", "training_step"} <= progress[0].keys()
    assert service.client.get(f"/jobs/{job}/samples.png").content.startswith(b"\x89PNG")


def test_ten_clients_with_one_key_make_one_job_over_two_replicas(site: Site) -> None:
    replicas = [site.service(), site.service()]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda number: replicas[number % 2].post("key", images=50), range(10)))
    assert len(set(answers)) == 1
    assert [job["id"] for job in replicas[0].client.get("/jobs").json()["jobs"]] == answers[:1]


def test_a_thousand_posts_never_pass_the_bound_and_the_rest_are_told_when_to_come_back(site: Site) -> None:
    service = site.service()
    body = {"model": "m", "recipe": "cgan", "dataset": "digits", "images": 50}

    def post(number: int) -> tuple[int, bool]:
        answer = service.client.post("/jobs", json=body, headers={"Idempotency-Key": f"key {number}"})
        return answer.status_code, "Retry-After" in answer.headers

    with ThreadPoolExecutor(8) as pool:
        answers = Counter(pool.map(post, range(1000)))
    assert answers == {(202, False): DEFAULT_QUEUE_LIMIT, (429, True): 1000 - DEFAULT_QUEUE_LIMIT}
    assert site.store.counts()["queued"] == DEFAULT_QUEUE_LIMIT


def test_what_postgresql_refuses_is_told_with_its_reason_and_a_schema_that_is_gone_is_made_again(
    postgres: Any,
) -> None:
    url = postgres.database()
    request = JobRequest(model="m", recipe="stub", dataset="digits", images=100)
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
    with psycopg.connect(url, autocommit=True) as admin, contextlib.closing(JobStore(url, bounds=BOUNDS)) as store:
        known, _ = store.submit(request)
        for read_only in ("on", "off"):
            admin.execute(f"ALTER DATABASE {admin.info.dbname} SET default_transaction_read_only = {read_only}")
            admin.execute(f"{others} pg_backend_pid()")
            assert store.get(known.id) == known
            if read_only == "on":
                with pytest.raises(JobsUnavailable, match=r"refuses it .*read-only transaction"):
                    store.submit(request)
        assert len(store.page()) == 1
        admin.execute("DROP SCHEMA dbos CASCADE")
        with pytest.raises(JobsUnavailable, match="does not exist"):
            store.page()
        assert store.page() == []
        assert store.submit(request)[1]
        admin.execute("CREATE ROLE poor LOGIN")
        poor = JobStore(url.replace("ganserve@", "poor@"), bounds=BOUNDS)
        with contextlib.closing(poor), pytest.raises(JobsUnavailable, match="permission denied"):
            poor.page()
