"""What is served stays served whatever becomes of its folder; what hangs or is odd delays and breaks nothing else."""

import errno
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from ganserve.card import ModelCard
from ganserve.repository import Repository
from service.inference import follow
from tests.service.conftest import ADMIN, Serve, state_of
from tests.tiny import endless, overwrite, publish

IMAGE = "/generate?model=digits&label=1&seed=1"


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def left_out(client: TestClient) -> dict[str, str]:
    found: dict[str, str] = client.get("/health/ready").json()["left_out"]
    return found


@pytest.fixture
def repository() -> Iterator[Repository]:
    """Where any user of the machine may look, until a test takes that away."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        made = Repository(Path(place) / "models")
        publish(made, "digits", seed=1)
        publish(made, "plain", seed=2, conditional=False, channels=3)
        yield made


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOOK_AGAIN_SECONDS", 0.1)


# -- the folder


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of root, which reads everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@contextmanager
def renamed(path: Path) -> Iterator[None]:
    elsewhere = path.with_name(".elsewhere")
    path.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(path)


@contextmanager
def a_file_in_its_place(path: Path) -> Iterator[None]:
    with renamed(path):
        path.write_text("no folder")
        try:
            yield
        finally:
            path.unlink()


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    path.chmod(0)
    try:
        with nobody():
            yield
    finally:
        path.chmod(0o755)


@pytest.mark.parametrize("happens", [renamed, a_file_in_its_place, unreadable])
@pytest.mark.parametrize("model", ["", "digits"], ids=["the models folder", "one model's"])
def test_what_is_served_stays_served_whatever_becomes_of_its_folder(
    serve: Serve, repository: Repository, happens: Callable[[Path], AbstractContextManager[None]], model: str
) -> None:
    client = serve()
    before = client.get(IMAGE).content
    with happens(repository.root / model):
        wait_for(lambda: (model or "(repository)") in left_out(client))
        for _ in range(3):
            answer = client.get(IMAGE)
            assert (answer.status_code, answer.content) == (200, before)
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["live"]["digits"]) == (200, 1)
        assert client.get("/generate?model=nobody").status_code in (404, 503)
        if model:
            # The others are followed all the while.
            assert client.get("/generate?model=plain").status_code == 200
    assert f'ganserve_left_out_info{{model="{model or "(repository)"}",reason="' in client.get("/metrics").text
    wait_for(lambda: left_out(client) == {})
    assert client.get("/generate?model=plain").status_code == 200


def test_no_model_is_asked_for_to_be_made_while_the_disk_refuses(serve: Serve, repository: Repository) -> None:
    with unreadable(repository.root):
        answer = serve().get("/generate")
    assert (answer.status_code, "the models folder cannot be read" in answer.json()["detail"]) == (503, True)


def test_names_that_there_never_were_are_not_kept_while_the_disk_refuses(serve: Serve, repository: Repository) -> None:
    client = serve()
    with unreadable(repository.root):
        wait_for(lambda: "(repository)" in left_out(client))
        for number in range(20):
            assert client.get(f"/generate?model=nobody-{number}").status_code == 503
        assert not [name for name in left_out(client) if name.startswith("nobody")]
        assert "nobody" not in client.get("/metrics").text
    wait_for(lambda: left_out(client) == {})


def test_a_fault_that_nobody_foresaw_is_told_without_the_place(
    serve: Serve, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()

    def fails(name: str) -> None:
        raise OSError(errno.EPROTO, "Protocol error", str(repository.root / name))

    monkeypatch.setattr(state_of(client).catalogue.repository, "live_pointer", fails)
    (repository.root / "new").mkdir()
    wait_for(lambda: "digits" in left_out(client))
    assert left_out(client)["digits"] == "it cannot be followed (OSError: Protocol error)"


def broken(pointer: Path) -> None:
    pointer.write_text("???")


def beyond(pointer: Path) -> None:
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | {"version": 10**300}))


def no_such_version(pointer: Path) -> None:
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | {"version": 7}))


def removed(pointer: Path) -> None:
    pointer.unlink()


def a_folder(pointer: Path) -> None:
    pointer.unlink()
    pointer.mkdir()


def a_pipe(pointer: Path) -> None:
    pointer.unlink()
    os.mkfifo(pointer)


@pytest.mark.parametrize("breaks", [broken, beyond, no_such_version, removed, a_folder, a_pipe])
def test_what_is_served_stays_served_when_its_pointer_breaks(
    serve: Serve, repository: Repository, breaks: Callable[[Path], None]
) -> None:
    pointer = repository.root / "digits/live.json"
    kept = pointer.read_bytes()
    client = serve()
    breaks(pointer)
    wait_for(lambda: "digits" in left_out(client))
    assert client.get(IMAGE).status_code == 200
    # Of the other one nothing is in memory: readiness is that of the model that is.
    state_of(client).catalogue.withdraw("plain")
    assert client.get("/health/ready").status_code == 200
    index = client.post("/v2/repository/index").json()
    assert next(entry for entry in index if entry["name"] == "digits")["state"] == "READY"
    shutil.rmtree(pointer) if pointer.is_dir() else pointer.unlink(missing_ok=True)
    pointer.write_bytes(kept)
    wait_for(lambda: left_out(client) == {})


@contextmanager
def full_table() -> Iterator[None]:
    """No file can be opened in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_full_descriptor_table_costs_nothing_that_is_in_memory(serve: Serve, repository: Repository) -> None:
    client = serve()
    before = client.get(IMAGE).content
    with full_table():
        # The watcher sees an empty folder.
        wait_for(lambda: "(repository)" in left_out(client))
        answer = client.get(IMAGE)
        unloaded, unknown = client.get("/generate?model=plain"), client.get("/generate?model=nobody")
        ready = client.get("/health/ready")
    assert (answer.status_code, answer.content) == (200, before)
    assert (unloaded.status_code, unknown.status_code) == (503, 503)
    assert "Too many open files" in unloaded.json()["detail"]
    assert ready.status_code == 200
    wait_for(lambda: client.get("/generate?model=plain").status_code == 200)
    wait_for(lambda: left_out(client) == {})


# -- what hangs


@pytest.mark.parametrize("file", ["model.onnx", "card.json"])
def test_a_pipe_in_a_files_place_is_refused_at_once(serve: Serve, repository: Repository, file: str) -> None:
    for name in ("first", "second"):
        publish(repository, name, seed=4)
        place = repository.root / name / "1" / file
        place.unlink()
        os.mkfifo(place)
    began = time.monotonic()
    client = serve()
    assert "regular file" in left_out(client)["first"]
    for query in ("model=first", "model=first&version=1"):
        answer = client.get(f"/generate?{query}")
        assert answer.status_code == 503
        assert "regular file" in answer.json()["detail"]
    assert client.put("/models/second/live", json={"version": 1}, headers=ADMIN).status_code == 409
    assert client.get("/generate?model=nobody").status_code == 404
    assert client.get(IMAGE).status_code == 200
    assert time.monotonic() - began < 15


def test_a_graph_without_an_end_is_left_out_at_the_deadline_and_delays_nobody(
    serve: Serve, repository: Repository
) -> None:
    publish(repository, "digits", seed=5, live=False)
    publish(repository, "endless", seed=4)
    overwrite(repository, "endless", 1, endless())
    client = serve(load_timeout=5.0)
    with ThreadPoolExecutor(3) as threads:
        began = time.monotonic()
        hanging = [threads.submit(client.get, "/generate?model=endless") for _ in range(3)]
        time.sleep(0.2)
        assert client.put("/models/digits/live", json={"version": 2}, headers=ADMIN).status_code == 200
        assert client.get(IMAGE).headers["x-model-version"] == "2"
        assert client.get("/generate?model=nobody").status_code == 404
        assert client.get("/generate?model=plain").status_code == 200
        assert not any(asked.done() for asked in hanging), "the promotion waited"
        answers = [asked.result() for asked in hanging]
        assert time.monotonic() - began < 11
    assert [answer.status_code for answer in answers] == [503] * 3
    assert "GANSERVE_LOAD_TIMEOUT" in answers[0].json()["detail"]
    assert "endless" in left_out(client)
    assert "endless" in client.get("/metrics").text
    # The run was told to end: no thread goes on with it.
    wait_for(lambda: not any("load" in thread.name for thread in threading.enumerate()))


def test_a_new_version_that_hangs_leaves_the_old_one_live(serve: Serve, repository: Repository) -> None:
    publish(repository, "digits", seed=5, live=False)
    client = serve(load_timeout=0.5)
    client.get(IMAGE)
    overwrite(repository, "digits", 2, endless())
    repository.promote("digits", 2)
    wait_for(lambda: "1 still is" in left_out(client).get("digits", ""))
    assert client.get(IMAGE).headers["x-model-version"] == "1"


def test_a_disk_that_hangs_for_one_model_holds_up_no_other(
    serve: Serve, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(repository, "digits", seed=5, live=False)
    publish(repository, "stuck", seed=4)
    gate, verify = threading.Event(), Repository.verify

    def hangs(self: Repository, name: str, version: int) -> ModelCard:
        if name == "stuck":
            gate.wait(60)
        return verify(self, name, version)

    monkeypatch.setattr(Repository, "verify", hangs)
    try:
        client = serve(load_timeout=1.0)
        assert "takes longer" in left_out(client)["stuck"]
        began = time.monotonic()
        # Another process moves the pointer; the watcher finds it, beside the look that hangs.
        repository.promote("digits", 2)
        wait_for(lambda: client.get(IMAGE).headers["x-model-version"] == "2", 5)
        assert client.get("/generate?model=nobody").status_code == 404
        assert client.get("/generate?model=stuck").status_code == 503
        assert time.monotonic() - began < 5
    finally:
        gate.set()
    wait_for(lambda: client.get("/generate?model=stuck").status_code == 200)


@contextmanager
def service(repository: Repository, data: Path, default: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of its own, and its address; a version may take ten minutes to load there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("GANSERVE_", "PROMETHEUS_"))},
        "GANSERVE_MODELS": str(repository.root),
        "GANSERVE_DATA": str(data),
        "GANSERVE_DEFAULT_MODEL": default,
        "GANSERVE_DEVICE": "cpu",
        "GANSERVE_LOAD_TIMEOUT": "600",
    }
    command = [sys.executable, "-m", "service", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def ended_within(process: "subprocess.Popen[str]", seconds: float) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(seconds)


def test_sigterm_does_not_wait_for_a_request_whose_model_does_not_end_loading(
    repository: Repository, tmp_path: Path
) -> None:
    publish(repository, "endless", seed=4)
    overwrite(repository, "endless", 1, endless())

    def status(path: str) -> int:
        try:
            return httpx.get(f"{address}{path}", timeout=60).status_code
        except httpx.TransportError:
            return 0

    with service(repository, tmp_path, "digits") as (process, address), ThreadPoolExecutor(1) as thread:
        wait_for(lambda: status("/health/ready") == 200, 60)
        asked = thread.submit(status, "/generate?model=endless")
        time.sleep(0.5)
        assert not asked.done()
        ended_within(process, 15)
        assert asked.result() == 503


def test_sigterm_does_not_wait_for_a_start_whose_model_does_not_end_loading(
    repository: Repository, tmp_path: Path
) -> None:
    overwrite(repository, "digits", 1, endless())
    with service(repository, tmp_path, "digits") as (process, _):
        assert process.stderr is not None
        while "Waiting for application startup" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(1)
        ended_within(process, 15)


# -- odd files


def card_of(folder: Path, **changes: Any) -> None:
    path = folder / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"latent_recipe": "philox-normal/v99"}, "philox-normal/v99"),
        ({"conditional": True, "classes": []}, "expected classes"),
        ({"classes": {"zero": {"name": "0"}}}, "classes"),
        ({"image": {"height": 8, "width": 8, "channels": 1, "frames": 16, "depth": "u2"}, "z": "many"}, "z"),
        ({"image": {"height": 9, "width": 8, "channels": 1}}, "its card says"),
        ({"version": 2}, "version 2"),
        ({"z": 10**9}, "latent vectors of more than 65536"),
        ({"z": 10**400}, "latent vectors of more than 65536"),
        ({"sha256": "?"}, "sha256"),
    ],
)
def test_a_card_that_cannot_be_served_is_left_out_with_the_reason_and_never_a_500(
    serve: Serve, repository: Repository, change: dict[str, Any], told: str
) -> None:
    publish(repository, "odd", seed=4)
    card_of(repository.root / "odd/1", **change)
    client = serve()
    for query in ("model=odd", "model=odd&version=1"):
        answer = client.get(f"/generate?{query}")
        assert answer.status_code == 503
        assert told in answer.json()["detail"]
    assert client.put("/models/odd/live", json={"version": 1}, headers=ADMIN).status_code == 409
    assert "odd" in left_out(client)
    assert client.get("/v2/models/odd/ready").status_code == 400
    assert client.get("/models").status_code == 200
    assert client.get(IMAGE).status_code == 200


def test_what_loading_refused_stays_left_out_when_the_folder_is_looked_at_again(
    serve: Serve, repository: Repository
) -> None:
    publish(repository, "odd", seed=4)
    card_of(repository.root / "odd/1", image={"height": 9, "width": 8, "channels": 1})
    client = serve()
    assert client.get("/generate?model=odd").status_code == 503
    publish(repository, "later", seed=5)
    wait_for(lambda: "later" in client.get("/health/ready").json()["live"])
    assert "its card says" in left_out(client)["odd"]


def test_a_card_with_words_of_the_future_is_served(serve: Serve, repository: Repository) -> None:
    publish(repository, "newer", seed=4)
    card_of(repository.root / "newer/1", schema=9, watermark={"key": "k"})
    assert serve().get("/generate?model=newer").status_code == 200


def test_an_engine_that_fails_in_an_unforeseen_way_is_told_of_its_file(serve: Serve) -> None:
    def opener(card: ModelCard, content: bytes) -> Any:
        raise MemoryError("no room")

    answer = serve(open_engine=opener).get("/generate?model=plain")
    assert answer.status_code == 503
    assert "plain version 1: it cannot be opened (MemoryError: no room)" in answer.json()["detail"]


def test_a_file_that_is_more_than_a_graph_can_be_is_not_read(serve: Serve, repository: Repository) -> None:
    publish(repository, "vast", seed=4)
    with (repository.root / "vast/1/model.onnx").open("r+b") as file:
        file.truncate(1 << 40)
    answer = serve().get("/generate?model=vast")
    assert answer.status_code == 503
    assert "bytes" in answer.json()["detail"]
