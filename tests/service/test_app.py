"""The application as a whole: limits, life cycle, what every answer carries."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from ganserve.repository import Repository
from service.state import Phase
from tests.service.conftest import Dummies, Serve, front_of, state_of

PROBLEM = "application/problem+json"


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def test_a_full_queue_is_429_with_retry_after(serve: Serve, dummies: Dummies) -> None:
    client = serve(open_engine=dummies, max_queued_images=64, batch_rows=8)
    engine = dummies.made[0]
    engine.gate.clear()
    with ThreadPoolExecutor(4) as threads:
        running = []
        for lane in range(2):
            running.append(threads.submit(client.get, "/generate?n=4&seed=1"))
            wait_for(lambda: len(engine.batches) > lane)  # noqa: B023
        waiting = threads.submit(client.get, "/generate?n=64&seed=1")
        wait_for(lambda: state_of(client).batcher.queued == 64)
        refused = client.get("/generate?n=1&seed=1")
        assert refused.status_code == 429
        assert refused.headers["content-type"] == PROBLEM
        assert int(refused.headers["retry-after"]) >= 1
        engine.gate.set()
        assert [job.result().status_code for job in (*running, waiting)] == [200, 200, 200]
    assert client.get("/generate?n=1&seed=1").status_code == 200


def test_past_the_deadline_is_504(serve: Serve, dummies: Dummies) -> None:
    client = serve(open_engine=dummies, request_timeout=0.1)
    dummies.made[0].gate.clear()
    answer = client.get("/generate?n=1")
    assert answer.status_code == 504
    assert "0.1 s" in answer.json()["detail"]


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.DRAINING])
def test_while_starting_or_draining_requests_are_503_and_probes_say_why(client: TestClient, phase: Phase) -> None:
    state_of(client).phase = phase
    for path in ("/generate?seed=1", "/images/digits/1/0/1.png"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert phase.value in answer.json()["detail"]
        assert "retry-after" in answer.headers
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, phase.value)
    assert client.get("/health/live").status_code == 200


def test_a_failing_run_is_500_without_its_inside_and_the_next_is_fine(serve: Serve, dummies: Dummies) -> None:
    client = serve(open_engine=dummies)
    dummies.made[0].failure = RuntimeError("a secret of the inside")
    answer = client.get("/generate?seed=1", headers={"X-Request-Id": "abc-1"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == PROBLEM
    assert "secret" not in answer.text
    assert "abc-1" in answer.json()["detail"]
    dummies.made[0].failure = None
    assert client.get("/generate?seed=1").status_code == 200


def test_a_client_that_hangs_up_frees_its_place(serve: Serve, dummies: Dummies) -> None:
    client = serve(open_engine=dummies)
    engine = dummies.made[0]
    engine.gate.clear()
    app = front_of(client)
    hung_up = asyncio.Event()

    async def call() -> int:
        async def receive() -> dict[str, Any]:
            if not asked:
                asked.append(1)
                return {"type": "http.request", "body": b"", "more_body": False}
            await hung_up.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            answers.append(message)

        asked: list[int] = []
        answers: list[MutableMapping[str, Any]] = []
        scope = {
            "type": "http", "method": "GET", "path": "/generate", "raw_path": b"/generate", "query_string": b"n=500",
            "headers": [], "http_version": "1.1", "scheme": "http", "server": ("test", 80), "client": ("test", 1),
            "root_path": "", "app": app,
        }  # fmt: skip
        task = asyncio.ensure_future(app(scope, receive, send))
        while app.state.batcher.queued < 400:
            await asyncio.sleep(0.005)
        hung_up.set()
        await task
        return int(str(answers[0]["status"]))

    assert client.portal is not None
    assert client.portal.call(call) == 499
    assert app.state.batcher.queued == 0


def test_a_request_id_is_kept_or_made(client: TestClient) -> None:
    assert client.get("/health/live", headers={"X-Request-Id": "mine.1"}).headers["x-request-id"] == "mine.1"
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    assert client.get("/health/live", headers={"traceparent": trace}).headers["x-request-id"] == "a" * 32
    made = client.get("/health/live", headers={"X-Request-Id": "not\tgood"}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", made)


def test_the_documentation_names_every_call(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/generate", "/images/{model}/{version}/{label}/{seed}.png", "/models/{name}/live"} <= paths.keys()
    assert {"get", "post"} <= paths["/generate"].keys()
    assert client.get("/docs").status_code == 200


def test_the_service_never_imports_torch() -> None:
    code = "import sys, service.app, service.__main__; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.fixture
def environment(repository: Repository, tmp_path: Path) -> dict[str, str]:
    ours = {"GANSERVE_MODELS": str(repository.root), "GANSERVE_DATA": str(tmp_path / "var"), "GANSERVE_DEVICE": "cpu"}
    return {k: v for k, v in os.environ.items() if not k.startswith(("GANSERVE_", "PROMETHEUS_"))} | ours


def test_a_start_does_not_wait_for_libraries_that_it_may_never_need(environment: dict[str, str]) -> None:
    # Those of the queue and of another server's models.
    code = """
import asyncio, sys
from service.app import create_app
from ganserve.settings import load

app = create_app(load([]))
async def start():
    async with app.app.router.lifespan_context(app):
        assert app.state.catalogue.servable
asyncio.run(start())
sys.exit(", ".join(sorted({"sqlalchemy", "dbos", "httpx"} & sys.modules.keys())) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def start(environment: dict[str, str], *flags: str) -> tuple["subprocess.Popen[str]", str]:
    """A process on a free port, and its address."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "service", "--port", str(port), *flags]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            return httpx.get(f"{address}/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    wait_for(ready, 60)
    return process, address


def stop(process: "subprocess.Popen[str]") -> str:
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    return errors


def test_a_process_prints_the_admin_token_that_it_made_once_and_stops_cleanly(environment: dict[str, str]) -> None:
    process, address = start(environment)
    refused = httpx.put(f"{address}/models/digits/live", json={"version": 1}).status_code
    image = httpx.get(f"{address}/generate?label=1&n=4&seed=1")
    errors = stop(process)
    assert (refused, image.status_code) == (401, 200)
    assert len(re.findall(r"admin token for this run: [\w-]{32}\n", errors)) == 1
    assert process.returncode in (0, -signal.SIGTERM)


def test_several_processes_share_the_port_the_token_and_the_metrics(environment: dict[str, str]) -> None:
    process, address = start(environment, "--workers", "2", "--admin-token", "admin-secret", "--lanes", "1")
    try:
        for seed in range(6):
            # A new connection each, so that both processes get some.
            assert httpx.get(f"{address}/generate?label=1&seed={seed}").status_code == 200
        text = httpx.get(f"{address}/metrics").text
        images = re.search(r'ganserve_images_total\{model="digits",version="1"\} (\S+)', text)
        assert images is not None
        assert float(images[1]) == 6
    finally:
        errors = stop(process)
    assert "admin-secret" not in errors


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("PORT", "many", "GANSERVE_PORT"), ("DEVICE", "tpu", "GANSERVE_DEVICE")],
)
def test_a_process_with_bad_settings_ends_with_2_and_names_them(
    environment: dict[str, str], name: str, value: str, words: str
) -> None:
    command = [sys.executable, "-m", "service"]
    run = subprocess.run(
        command, env=environment | {f"GANSERVE_{name}": value}, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2
    assert words in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("package", ["service", "training"])
def test_onnxruntime_reports_its_use_to_nobody_and_leaves_nothing_at_home(tmp_path: Path, package: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))} | {"HOME": str(tmp_path)}
    program = f"import {package}, onnxruntime; print(onnxruntime.get_available_providers())"
    made = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert "CPUExecutionProvider" in made.stdout
    assert list(tmp_path.rglob("*")) == []
