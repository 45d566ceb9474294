"""A real Prometheus scrapes the service by the file that is shipped, and answers every question of the dashboard."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml

from tests.service.conftest import Serve
from tests.service.test_deploy import EXPRESSIONS, ROOT

SECONDS = 60
# Nothing of these has happened here, so there is nothing to tell.
EMPTY = ("ganserve_dropped_images_total", "ganserve_run_failures_total", "ganserve_swaps_total")

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus is installed")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


@pytest.fixture
def service(serve: Serve) -> Iterator[str]:
    client = serve()
    server = uvicorn.Server(uvicorn.Config(client.app, port=0, log_level="error", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def prometheus(service: str, tmp_path: Path) -> Iterator[str]:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    config["global"]["scrape_interval"] = "1s"
    # No names of containers here: the rest of the job is as it is shipped.
    for job in config["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [service]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=error",
        ],
        env={"GOMAXPROCS": "1"},
        executable=shutil.which("prometheus"),
    )
    yield f"http://{address}/api/v1"
    process.terminate()
    process.wait(SECONDS)


def ask(client: httpx.Client, path: str, **parameters: str) -> Any:
    answer = client.get(path, params=parameters)
    document = answer.json()
    assert (answer.status_code, document["status"]) == (200, "success"), (parameters, document)
    assert not document.get("warnings")
    return document["data"]


def scrapes(client: httpx.Client) -> int:
    try:
        # 503 until it has read its own storage.
        if client.get("/query", params={"query": "1"}).status_code == 503:
            return 0
        found = ask(client, "/query", query="max(count_over_time(ganserve_images_total[1m]))")["result"]
    except httpx.TransportError:
        # It has not opened its door yet.
        return 0
    return int(found[0]["value"][1]) if found else 0


def test_prometheus_scrapes_and_answers_every_expression_of_the_dashboard(service: str, prometheus: str) -> None:
    end = time.monotonic() + SECONDS
    with (
        httpx.Client(base_url=prometheus, timeout=SECONDS) as client,
        httpx.Client(base_url=f"http://{service}", timeout=SECONDS) as user,
    ):
        while scrapes(client) < 3:
            assert time.monotonic() < end, "Prometheus has not scraped the service three times"
            for seed in range(3):
                assert user.get(f"/generate?n=4&seed={seed}").status_code == 200
            user.get("/generate?label=99")
            time.sleep(0.5)
        target = ask(client, "/targets")["activeTargets"][0]
        assert (target["health"], target["lastError"]) == ("up", "")
        for expression in EXPRESSIONS:
            asked = expression.replace("$instance", ".*").replace("$__rate_interval", "1m")
            found = ask(client, "/query", query=asked)["result"]
            assert bool(found) or any(name in expression for name in EMPTY), expression
