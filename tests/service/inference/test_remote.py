"""Inference on another server: a real second process of this service, killed and started again; and one that lies."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from ganserve.latents import consecutive, latents
from ganserve.repository import Repository
from ganserve.settings import Settings, SettingsError, load
from service.http.errors import DeadlineExceeded, Problem, Unavailable
from service.inference.remote import RemoteEngine, Upstream
from service.protocol import HEADER_LENGTH
from tests.service.conftest import Answer, Serve
from tests.tiny import SIDE, Z, card, publish

WAIT = 120.0


class Backend:
    """A ganserve process as the v2 server, on one port for all its lives."""

    def __init__(self, repository: Repository, data: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("GANSERVE_", "PROMETHEUS_"))},
            "GANSERVE_MODELS": str(repository.root),
            "GANSERVE_DATA": str(data),
            "GANSERVE_DEVICE": "cpu",
            "GANSERVE_TOKEN": "between-servers",
            # Signals are for the one that serves.
            "GANSERVE_WORKERS": "1",
            "GANSERVE_LANES": "1",
            "GANSERVE_WATCH_INTERVAL": "0.05",
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def engine(self) -> str:
        return f"triton://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "service", "--port", str(self.port)]
        self.process = subprocess.Popen(command, env=self.environment, stderr=subprocess.DEVNULL)
        wait_for(self.ready)

    def ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/v2/health/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(WAIT)
            self.process = None


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """One process for all tests here, of the same two models as the fixture ``repository``."""
    folder = tmp_path_factory.mktemp("backend")
    repository = Repository(folder / "models")
    publish(repository, "digits", seed=1)
    publish(repository, "plain", seed=2, conditional=False, channels=3)
    made = Backend(repository, folder)
    made.start()
    yield made
    made.kill()


def ask(client: TestClient, seed: int, **more: Any) -> Answer:
    body = {"model": "digits", "version": 1, "n": 7, "seed": seed, "format": "npz", **more}
    return client.post("/generate", json=body)


TOKEN = SecretStr("between-servers")


def test_a_front_answers_byte_for_byte_as_the_server_that_has_the_network(
    serve: Serve, backend: Backend, repository: Repository
) -> None:
    here, front = serve(), serve(engine=backend.engine, engine_token=TOKEN, batch_rows=3)
    told = front.get("/health/ready").json()
    assert (told["status"], told["provider"]) == ("ready", backend.engine)
    requests: list[dict[str, Any]] = [{"seed": 1}, {"seed": 2, "label": "two"}, {"seed": 3, "n": 100}]
    for request in [*requests, {"model": "plain", "seed": 4}]:
        for form in ("npz", "png"):
            ours, theirs = ask(here, **{"format": form, **request}), ask(front, **{"format": form, **request})
            assert (ours.status_code, theirs.status_code) == (200, 200)
            assert ours.content == theirs.content
    # The protocol itself is spoken by the front as well.
    tensor = {"name": "latent", "shape": [1, Z], "datatype": "FP32", "data": [0.5] * Z}
    both = [side.post("/v2/models/plain/infer", json={"inputs": [tensor]}) for side in (here, front)]
    assert both[0].json() == both[1].json()
    # A version that the other server does not have yet, as after a promotion that has not reached it.
    publish(repository, "digits", seed=77)
    missing = ask(front, 1, version=2)
    assert (missing.status_code, "has no version 2" in missing.json()["detail"]) == (503, True)


def test_a_wrong_token_is_told_as_the_other_servers_refusal(serve: Serve, backend: Backend) -> None:
    front = serve(engine=backend.engine, engine_token=SecretStr("wrong"))
    answer = ask(front, 0)
    assert (answer.status_code, "401: this token is not known here" in answer.json()["detail"]) == (503, True)
    assert "wrong" not in answer.json()["detail"]


def test_a_server_that_hangs_costs_a_504_within_the_deadline_and_comes_back(serve: Serve, backend: Backend) -> None:
    front = serve(engine=backend.engine, engine_token=TOKEN, request_timeout=1.5)
    wait_for(lambda: ask(front, 0).status_code == 200)
    backend.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert ask(front, 1).status_code == 504
        assert time.monotonic() - begun < 20
    finally:
        backend.signal(signal.SIGCONT)
    wait_for(lambda: ask(front, 1).status_code == 200)


def test_a_front_starts_without_the_server_and_says_what_is_missing(serve: Serve) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        engine = f"triton://127.0.0.1:{nobody.getsockname()[1]}"
        front = serve(engine=engine)
        dead = ask(front, 0)
        assert (dead.status_code, dead.headers["retry-after"]) == (503, "1")
        assert dead.headers["content-type"] == "application/problem+json"
        assert f"{engine} cannot be reached" in dead.json()["detail"]
        unready = front.get("/health/ready")
        assert (unready.status_code, engine in unready.json()["status"]) == (503, True)
        assert front.get("/v2/health/ready").status_code == 400
        assert front.get("/health/live").status_code == 200
        tensor = {"name": "latent", "shape": [1, Z], "datatype": "FP32", "data": [0.5] * Z}
        through = front.post("/v2/models/plain/infer", json={"inputs": [tensor]})
        assert (through.status_code, list(through.json())) == (503, ["error"])


def test_a_server_that_is_killed_and_started_again_under_load_costs_503s_and_no_wrong_pixel(
    serve: Serve, backend: Backend
) -> None:
    here, front = serve(), serve(engine=backend.engine, engine_token=TOKEN, request_timeout=20)
    right = {seed: np.load(io.BytesIO(ask(here, seed).content))["images"] for seed in range(8)}
    etag = ask(front, 0).headers["etag"]
    done = threading.Event()
    seen: list[tuple[float, int]] = []
    wrong: list[str] = []

    def load_it(worker: int) -> None:
        turn = worker
        while not done.is_set():
            turn += 1
            answer = ask(front, turn % 8)
            seen.append((time.monotonic(), answer.status_code))
            if answer.status_code != 200:
                if answer.headers.get("retry-after") is None or "inference server" not in answer.json()["detail"]:
                    wrong.append(answer.text)
                time.sleep(0.1)
            elif not np.array_equal(np.load(io.BytesIO(answer.content))["images"], right[turn % 8]):
                wrong.append(f"pixels of seed {turn % 8}")

    def count(status: int, since: float) -> int:
        return sum(code == status and when >= since for when, code in list(seen))

    threads = [threading.Thread(target=load_it, args=(worker,)) for worker in range(4)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: count(200, begun) >= 8)
        backend.kill()
        killed = time.monotonic()
        wait_for(lambda: count(503, killed) >= 4)
        # What the client has already needs no network.
        kept = {"model": "digits", "version": 1, "n": 7, "seed": 0, "format": "npz"}
        assert front.post("/generate", json=kept, headers={"If-None-Match": etag}).status_code == 304
        backend.start()
        back = time.monotonic()
        wait_for(lambda: count(200, back) >= 8)
    finally:
        done.set()
        for thread in threads:
            thread.join(WAIT)
    assert not wrong
    assert {status for _, status in seen} == {200, 503}


# -- without a process: what another server could send


def remote(handler: Callable[[httpx.Request], httpx.Response], **changes: Any) -> RemoteEngine:
    upstream = Upstream("triton://there:8000", transport=httpx.MockTransport(handler), timeout=5, **changes)
    return RemoteEngine(card("digits"), upstream, 256)


def always(answer: httpx.Response) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: answer


def run(engine: RemoteEngine, n: int = 2) -> np.ndarray[Any, Any]:
    latent = latents("philox-normal/v1", consecutive(0, n), Z)
    return engine.run(latent, np.arange(n, dtype=np.int64) % 3)


def reply(
    *, n: int = 2, head: dict[str, Any] | None = None, output: dict[str, Any] | None = None, tail: bytes | None = None
) -> httpx.Response:
    size = n * SIDE * SIDE
    image: dict[str, Any] = {"name": "image", "datatype": "UINT8", "shape": [n, SIDE, SIDE, 1]}
    image |= {"parameters": {"binary_data_size": size}, **(output or {})}
    document = {"model_name": "digits", "model_version": "1", "outputs": [image], **(head or {})}
    content = json.dumps(document).encode()
    body = content + (bytes(range(256)) * size)[:size] if tail is None else content + tail
    return httpx.Response(200, content=body, headers={HEADER_LENGTH: str(len(content))})


def test_a_run_is_one_call_with_binary_tensors_and_the_token() -> None:
    asked: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return reply()

    engine = remote(handler, token="secret")
    images = run(engine)
    assert (images.shape, images.dtype, engine.max_rows) == ((2, SIDE, SIDE, 1), np.uint8, 64)
    (request,) = asked
    assert str(request.url) == "http://there:8000/v2/models/digits/versions/1/infer"
    assert request.headers["authorization"] == "Bearer secret"
    length = int(request.headers[HEADER_LENGTH])
    told = json.loads(request.content[:length])
    assert [(t["name"], t["datatype"], t["shape"]) for t in told["inputs"]] == [
        ("latent", "FP32", [2, Z]),
        ("label", "INT64", [2, 1]),
    ]
    expected = latents("philox-normal/v1", consecutive(0, 2), Z).tobytes() + np.array([0, 1], np.int64).tobytes()
    assert request.content[length:] == expected
    assert "secret" not in repr(engine)


def test_an_answer_that_is_not_what_was_asked_for_is_never_served() -> None:
    lies = [
        reply(n=1),
        reply(head={"model_version": "2"}),
        reply(head={"model_name": "other"}),
        reply(head={"outputs": []}),
        reply(output={"shape": [2, SIDE, SIDE, 3]}),
        reply(output={"shape": [1, 2 * SIDE, SIDE, 1]}),
        reply(output={"datatype": "FP32"}),
        reply(output={"name": "latent"}),
        reply(output={"parameters": {}}),
        reply(output={"parameters": {"binary_data_size": 5}}),
        reply(tail=b""),
        reply(tail=bytes(2 * SIDE * SIDE + 1)),
        httpx.Response(200, json={"outputs": []}),
        httpx.Response(200, content=b"not json", headers={HEADER_LENGTH: "8"}),
        httpx.Response(200, content=b"{}", headers={HEADER_LENGTH: "9"}),
        httpx.Response(200, content=b"[1]", headers={HEADER_LENGTH: "3"}),
        httpx.Response(200, content=b"", headers={HEADER_LENGTH: "x"}),
    ]
    for lie in lies:
        with pytest.raises(Unavailable, match="triton://there:8000 gave no answer for digits version 1"):
            run(remote(always(lie)))


def test_refusals_are_passed_on_with_their_reason_and_when_to_come_again() -> None:
    cases = [
        (httpx.Response(503, json={"error": "full"}, headers={"Retry-After": "7"}), "503: full", "7"),
        (httpx.Response(404, json={"error": "no version 1"}), "404: no version 1", "1"),
        (httpx.Response(500, content=b"<html>"), "500: no reason told", "1"),
        (httpx.Response(400, json=[]), "400: no reason told", "1"),
        (httpx.Response(503, json={"error": "x"}, headers={"Retry-After": "soon"}), "503: x", "1"),
    ]
    for answer, words, retry_after in cases:
        with pytest.raises(Unavailable) as caught:
            run(remote(always(answer)))
        assert words in caught.value.detail
        assert caught.value.headers["Retry-After"] == retry_after


def test_a_kept_connection_that_was_closed_is_tried_once_more() -> None:
    for kind in (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
        calls: list[int] = []

        def handler(request: httpx.Request, kind: Any = kind, calls: list[int] = calls) -> httpx.Response:
            calls.append(1)
            if len(calls) == 1:
                raise kind("closed")
            return reply()

        assert len(run(remote(handler))) == 2
        assert len(calls) == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError("refused"), Unavailable),
        (httpx.ConnectTimeout("silent"), Unavailable),
        (httpx.ReadError("reset"), Unavailable),
        (httpx.ReadTimeout("slow"), DeadlineExceeded),
        (httpx.WriteTimeout("slow"), DeadlineExceeded),
    ],
)
def test_a_server_that_is_not_there_is_503_and_one_that_is_too_slow_504(
    error: Exception, expected: type[Problem]
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(expected, match="triton://there:8000"):
        run(remote(handler))


def test_readiness_is_asked_for_once_a_second_at_most() -> None:
    calls: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request.url.path)
        return httpx.Response(400, json={"error": "starting"})

    engine = remote(handler)
    assert [engine.upstream.unreachable() for _ in range(5)] == [
        "the inference server triton://there:8000 is not ready (400: starting)"
    ] * 5
    assert calls == ["/v2/health/ready"]


@pytest.mark.parametrize("address", ["triton://there:8000", "triton://[::1]:8000", "triton://10.0.0.7:80"])
def test_an_address_of_a_server_is_an_engine(address: str) -> None:
    settings = Settings(engine=address)
    assert (settings.upstream, settings.lane_count) == (address, 8)
    assert Settings().upstream is None


@pytest.mark.parametrize("address", ["triton://there", "there:8000", "http://there:8000", "triton://a@b:1", "tpu"])
def test_anything_else_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("GANSERVE_ENGINE", address)
    with pytest.raises(SettingsError, match="GANSERVE_ENGINE"):
        load()
