"""The live pointer is followed, and a swap costs no request."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastapi.testclient import TestClient

from ganserve.repository import Repository
from ganserve.store import FolderStore
from service.inference.watch import Watcher
from tests.service.conftest import Serve, state_of
from tests.tiny import publish


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def live(client: TestClient) -> str:
    return str(client.get("/generate?label=1&seed=1").headers["x-model-version"])


def test_a_moved_pointer_is_noticed_and_a_quiet_folder_is_not(repository: Repository) -> None:
    calls = threading.Semaphore(0)
    publish(repository, "digits", seed=5, live=False)
    watcher = Watcher(repository.store, calls.release, interval=0.01)
    watcher.start()
    try:
        assert not calls.acquire(timeout=0.1)
        repository.promote("digits", 2)
        assert calls.acquire(timeout=5)
    finally:
        watcher.stop()


def test_a_failing_listener_does_not_end_the_watch(repository: Repository) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("not now")

    watcher = Watcher(repository.store, fail, interval=0.01)
    watcher.start()
    try:
        for expected in (1, 2):
            publish(repository, f"more{expected}", live=False)
            wait_for(lambda: len(calls) >= expected)  # noqa: B023
            calls[:] = calls[:expected]
    finally:
        watcher.stop()


def test_a_folder_that_is_not_there_has_an_empty_signature(tmp_path: Path) -> None:
    assert FolderStore(tmp_path / "none").signature() == frozenset()


def test_a_version_that_another_process_promotes_goes_live(serve: Serve, repository: Repository) -> None:
    client = serve()
    assert live(client) == "1"
    publish(repository, "digits", seed=5)
    wait_for(lambda: live(client) == "2")
    repository.rollback("digits")
    wait_for(lambda: live(client) == "1")


def test_swaps_fail_no_request_and_no_answer_mixes_versions(serve: Serve, repository: Repository) -> None:
    publish(repository, "digits", seed=5, live=False)
    client = serve()
    expected = {
        version: client.get(f"/generate?n=40&seed=3&format=npz&version={version}").content for version in ("1", "2")
    }
    ended = threading.Event()
    seen: set[str] = set()

    def ask() -> int:
        count = 0
        while not ended.is_set():
            answer = client.get("/generate?n=40&seed=3&format=npz")
            assert answer.status_code == 200, answer.text
            version = answer.headers["x-model-version"]
            assert answer.content == expected[version]
            seen.add(version)
            count += 1
        return count

    with ThreadPoolExecutor(3) as threads:
        askers = [threads.submit(ask) for _ in range(3)]
        for turn in range(6):
            version = 2 - turn % 2
            repository.promote("digits", version)
            wait_for(lambda: state_of(client).catalogue.live["digits"] == version)  # noqa: B023
            time.sleep(0.05)
        ended.set()
        assert all(asker.result() > 0 for asker in askers)
    assert seen == {"1", "2"}


def test_a_promoted_version_that_cannot_run_leaves_the_old_one_live(serve: Serve, repository: Repository) -> None:
    publish(repository, "digits", seed=5, live=False)
    client = serve()
    repository.promote("digits", 2)
    wait_for(lambda: live(client) == "2")
    repository.promote("digits", 1)
    wait_for(lambda: live(client) == "1")
    pointer = repository.root / "digits" / "live.json"
    repository.model_path("digits", 2).write_bytes(b"broken")
    pointer.write_text(
        pointer.read_text().replace('"version": 1', '"version": 2').replace('"version":1', '"version":2')
    )
    assert repository.live("digits") == 2
    wait_for(lambda: "digits" in client.get("/health/ready").json()["left_out"])
    assert live(client) == "1"


def test_one_load_serves_all_who_ask_at_once(serve: Serve) -> None:
    opened: list[str] = []

    def slow(card: object, content: bytes) -> object:
        from tests.engines import DummyEngine

        opened.append(card.name)  # type: ignore[attr-defined]
        time.sleep(0.1)
        return DummyEngine(card)  # type: ignore[arg-type]

    client = serve(open_engine=slow)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.get("/generate?model=plain&seed=1").status_code, range(8)))
    assert answers == [200] * 8
    assert opened.count("plain") == 1


def test_the_least_used_models_leave_memory(serve: Serve, repository: Repository) -> None:
    for name in ("third", "fourth"):
        publish(repository, name)
    client = serve(max_loaded_models=2)
    for name in ("plain", "digits", "third", "fourth"):
        assert client.get(f"/generate?model={name}").status_code == 200
    assert client.get("/health/ready").json()["loaded"] == ["third:1", "fourth:1"]
