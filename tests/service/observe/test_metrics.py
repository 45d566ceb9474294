"""What ``/metrics`` promises to those who build on it, with one process and with several."""

import os
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from ganserve.repository import Repository
from service.jobs import JobRequest, JobStore
from tests.service.conftest import ADMIN, Dummies, Serve, state_of
from tests.service.test_app import environment, start, stop, wait_for
from tests.tiny import publish

__all__ = ["environment"]


def read(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(client: TestClient, name: str, **labels: str) -> float:
    return read(client.get("/metrics").text).get((name, frozenset(labels.items())), 0.0)


def test_a_request_counts_its_wait_its_run_and_its_encoding(client: TestClient) -> None:
    names = ("ganserve_queue_seconds_count", "ganserve_run_rows_count", "ganserve_run_rows_sum")
    before = [value(client, name, model="digits") for name in names]
    encoded = value(client, "ganserve_encode_seconds_count")
    computed = value(client, "ganserve_run_seconds_total", model="digits")
    assert client.get("/generate?n=3&seed=1").status_code == 200
    assert [value(client, name, model="digits") for name in names] == [before[0] + 1, before[1] + 1, before[2] + 3]
    assert value(client, "ganserve_encode_seconds_count") == encoded + 1
    assert value(client, "ganserve_run_seconds_total", model="digits") > computed


def test_a_request_of_many_runs_waits_once(serve: Serve) -> None:
    client = serve(batch_rows=4)
    before = value(client, "ganserve_queue_seconds_count", model="digits")
    client.get("/generate?n=40&seed=1")
    assert value(client, "ganserve_queue_seconds_count", model="digits") == before + 1


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/generate?n=0", "invalid"),
        ("/generate?model=nobody", "not_found"),
        ("/jobs", "unauthorized"),
    ],
)
def test_a_refusal_is_counted_by_its_reason(client: TestClient, path: str, reason: str) -> None:
    before = value(client, "ganserve_rejections_total", reason=reason)
    assert client.get(path).status_code >= 400
    assert value(client, "ganserve_rejections_total", reason=reason) == before + 1


def test_a_missed_deadline_is_counted_and_so_are_the_images_never_made(serve: Serve, dummies: Dummies) -> None:
    client = serve(open_engine=dummies, request_timeout=0.1, batch_rows=4)
    dummies.made[0].gate.clear()
    before = value(client, "ganserve_rejections_total", reason="deadline")
    dropped = value(client, "ganserve_dropped_images_total", reason="deadline")
    assert client.get("/generate?n=1024").status_code == 504
    assert value(client, "ganserve_rejections_total", reason="deadline") == before + 1
    assert value(client, "ganserve_dropped_images_total", reason="deadline") > dropped


def test_what_is_answered_well_is_no_rejection(client: TestClient) -> None:
    def refused() -> float:
        counts = read(client.get("/metrics").text)
        return sum(count for (name, _), count in counts.items() if name == "ganserve_rejections_total")

    before = refused()
    assert client.get("/generate?seed=1").status_code == 200
    assert refused() == before


def test_a_promotion_shows_as_version_and_as_swap(client: TestClient, repository: Repository) -> None:
    swaps = value(client, "ganserve_swaps_total", model="digits")
    publish(repository, "digits", seed=9, live=False)
    assert client.put("/models/digits/live", json={"version": 2}, headers=ADMIN).status_code == 200
    wait_for(lambda: value(client, "ganserve_live_version", model="digits") == 2)
    assert value(client, "ganserve_swaps_total", model="digits") == swaps + 1


def test_jobs_are_counted_by_state_and_looking_makes_no_database(client: TestClient, tmp_path: Path) -> None:
    assert value(client, "ganserve_jobs", state="queued") == 0
    assert not (tmp_path / "var").exists()
    (tmp_path / "var").mkdir()
    store = JobStore(state_of(client).settings.jobs_url)
    try:
        store.submit(JobRequest(model="digits", recipe="cdcgan", dataset="digits", images=20_000))
    finally:
        store.close()
    wait_for(lambda: value(client, "ganserve_jobs", state="queued") == 1)
    assert value(client, "ganserve_jobs", state="failed") == 0
    assert ("ganserve_workers", frozenset()) in read(client.get("/metrics").text)


def test_a_queue_that_cannot_be_read_hides_its_numbers_and_nothing_else(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "folder.sqlite").mkdir()
    client = serve(jobs_db=f"sqlite:///{tmp_path / 'folder.sqlite'}")
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert "ganserve_jobs" not in answer.text
    assert "ganserve_provider_info" in answer.text


def test_a_path_that_nobody_serves_makes_no_series(client: TestClient) -> None:
    # All of them together have one, and whoever reads them has his own.
    client.get("/no-such-path")
    client.get("/metrics")
    before = read(client.get("/metrics").text).keys()
    for index in range(20):
        client.get(f"/no-such-path-{index}")
    assert read(client.get("/metrics").text).keys() == before
    assert "no-such-path" not in client.get("/metrics").text


def test_a_killed_process_leaves_its_counts_and_takes_its_gauges_along(environment: dict[str, str]) -> None:
    process, address = start(environment, "--workers", "2", "--admin-token", "admin-secret", "--lanes", "1")

    def scraped(name: str, **labels: str) -> float:
        return read(httpx.get(f"{address}/metrics").text).get((name, frozenset(labels.items())), 0.0)

    try:
        # Both processes warm the default model.
        wait_for(lambda: scraped("ganserve_loaded_models") == 2, 60)
        for seed in range(8):
            assert httpx.get(f"{address}/generate?label=1&seed={seed}").status_code == 200
        children = [
            child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        assert len(children) == 2
        os.kill(children[0].pid, signal.SIGKILL)
        wait_for(lambda: not children[0].is_running(), 30)
        end = time.monotonic() + 60
        while True:
            try:
                loaded = scraped("ganserve_loaded_models")
                assert loaded <= 2
                alive = {child.pid for child in psutil.Process(process.pid).children()} - {children[0].pid}
                if loaded == 2 and len(alive) >= 2:
                    break
            except httpx.TransportError:
                # A connection that the dead one had accepted.
                pass
            assert time.monotonic() < end
            time.sleep(0.05)
        assert scraped("ganserve_images_total", model="digits", version="1") == 8
        assert scraped("ganserve_live_version", model="digits") == 1
        assert scraped("ganserve_provider_info", provider="CPUExecutionProvider") == 1
        assert scraped("ganserve_queued_images") == 0
    finally:
        stop(process)
