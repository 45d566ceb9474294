"""The application's state: who may come in, and when."""

import asyncio
import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from pydantic import SecretStr
from starlette.concurrency import run_in_threadpool

from ganserve.repository import Repository
from ganserve.settings import Settings
from service import state
from service.http.auth import Auth
from service.http.errors import Unauthorized, Unavailable
from service.inference.catalogue import Catalogue
from service.jobs import JobStore, JobsUnavailable
from service.state import Phase, State
from service.uploads import Uploads


@pytest.fixture
def made(tmp_path: Path) -> State:
    settings = Settings(data=tmp_path, models=tmp_path / "models")
    return State(
        settings=settings,
        auth=Auth.of(SecretStr("user"), SecretStr("admin")),
        catalogue=Catalogue(Repository(settings.models)),
        jobs=JobStore(settings.jobs_url),
        uploads=Uploads(tmp_path / "datasets"),
    )


def request(made: State, **headers: str) -> Request:
    app = FastAPI()
    app.state = made  # type: ignore[assignment]
    told = [(key.encode(), value.encode()) for key, value in headers.items()]
    return Request({"type": "http", "app": app, "headers": told})


def test_a_request_finds_the_state_of_its_application(made: State) -> None:
    assert state.of(request(made)) is made


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.DRAINING])
def test_only_a_ready_process_lets_in(made: State, phase: Phase) -> None:
    made.phase = phase
    with pytest.raises(Unavailable, match=phase.value):
        state.admit(request(made, authorization="Bearer user"))
    made.phase = Phase.READY
    state.admit(request(made, authorization="Bearer user"))


def test_who_may_not_come_in_is_not_told_the_phase(made: State) -> None:
    with pytest.raises(Unauthorized):
        state.admit(request(made))


def test_a_queue_that_nobody_used_is_counted_without_making_its_file(made: State, tmp_path: Path) -> None:
    counts, workers = made.queue_counts()
    assert counts == dict.fromkeys(("queued", "running", "succeeded", "failed", "cancelled"), 0)
    assert workers == 0
    assert list(tmp_path.iterdir()) == []


def test_a_queue_that_cannot_be_reached_is_unknown_and_asked_again_after_a_second(
    made: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://nobody@127.0.0.1:1/jobs"
    made = dataclasses.replace(made, settings=made.settings.model_copy(update={"jobs_db": url}), jobs=JobStore(url))
    assert made.queue_counts() == (None, None)
    monkeypatch.setattr(made.jobs, "counts", lambda: {"queued": 1})
    monkeypatch.setattr(made.jobs, "workers", lambda: ["w"])
    assert made.queue_counts() == (None, None)
    monkeypatch.setattr(state, "QUEUE_LOOK_SECONDS", 0.0)
    assert made.queue_counts() == ({"queued": 1}, 1)


def test_a_queue_that_hangs_holds_a_few_threads_and_is_told_as_such(
    made: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "QUEUE_SECONDS", 0.3)
    answer, begun = threading.Event(), []

    def hang() -> None:
        begun.append(1)
        answer.wait(20)

    async def ask() -> Sequence[object]:
        asked = [made.queue(hang) for _ in range(60)]
        waiting = asyncio.gather(*asked, return_exceptions=True)
        # Far fewer than the threads that everything else runs on.
        async with asyncio.timeout(5):
            assert await run_in_threadpool(lambda: 5) == 5
        return await waiting

    async def ask_again_and_again() -> list[object]:
        return [error for _ in range(3) for error in await ask()]

    told = asyncio.run(ask_again_and_again())
    answer.set()
    assert all(isinstance(error, JobsUnavailable) and "may be done" in str(error) for error in told)
    assert len(begun) == state.QUEUE_THREADS


def test_whatever_a_call_of_the_queue_raises_reaches_who_asked_and_holds_no_thread(made: State) -> None:
    class Cancelled(BaseException):
        pass

    def call() -> None:
        raise Cancelled

    async def ask() -> None:
        with pytest.raises(Cancelled):
            await made.queue(call)

    async def ask_often() -> None:
        for _ in range(2 * state.QUEUE_THREADS):
            async with asyncio.timeout(5):
                await ask()

    asyncio.run(ask_often())


def test_counting_a_queue_that_hangs_holds_one_thread(made: State, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, begun = threading.Event(), threading.Event()

    def hang() -> dict[str, int]:
        begun.set()
        answer.wait(20)
        return {}

    (made.settings.data / "jobs.sqlite").touch()
    monkeypatch.setattr(made.jobs, "counts", hang)
    first = threading.Thread(target=made.queue_counts)
    first.start()
    assert begun.wait(10)
    assert made.queue_counts() == (None, None)
    answer.set()
    first.join(10)
