import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from ganserve.card import ModelUnreadable
from service.inference import patience
from service.inference.patience import Patience


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), 20)

    asyncio.run(bounded())


def threads(key: str) -> int:
    """Those that are at work on pieces of such a key."""
    return sum(thread.name.startswith("patience") and key in thread.name.split()[1] for thread in threading.enumerate())


def test_what_work_gives_or_raises_reaches_all_who_asked_for_it_and_it_runs_once() -> None:
    ran: list[int] = []

    def work() -> int:
        ran.append(1)
        time.sleep(0.05)
        return 7

    def fail() -> int:
        raise KeyError("no")

    async def test() -> None:
        patient = Patience(10)
        assert await asyncio.gather(*(patient.run("a", "it", work) for _ in range(5))) == [7] * 5
        assert len(ran) == 1
        assert await patient.run("a", "it", work) == 7
        assert len(ran) == 2
        with pytest.raises(KeyError):
            await patient.run("b", "it", fail)

    run(test)


def test_work_that_hangs_is_waited_for_until_its_deadline_and_then_not_at_all() -> None:
    gate = threading.Event()

    async def test() -> None:
        patient = Patience(0.2)
        began = time.monotonic()
        with pytest.raises(ModelUnreadable, match=r"reading it takes longer than 0\.2 s"):
            await patient.run("a", "reading it", gate.wait)
        assert time.monotonic() - began >= 0.2
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(ModelUnreadable, match="takes longer"):
                await patient.run("a", "reading it", gate.wait)
            assert await patient.run("b", "other", lambda: 1) == 1
        assert time.monotonic() - began < 2
        assert threads("a") == 1
        gate.set()

    run(test)


def test_a_result_that_comes_late_is_told_all_the_same() -> None:
    gate = threading.Event()

    async def test() -> None:
        told: list[bool] = []
        patient = Patience(0.05)
        with pytest.raises(ModelUnreadable):
            await patient.run("a", "it", gate.wait, lambda done: told.append(done.result()))
        gate.set()
        while not told:
            await asyncio.sleep(0.005)
        assert told == [True]

    run(test)


def test_the_end_gives_up_what_is_waited_for() -> None:
    gate = threading.Event()

    async def test() -> None:
        patient = Patience(60)
        waiting = asyncio.create_task(patient.run("a", "reading it", gate.wait))
        await asyncio.sleep(0.02)
        patient.end()
        with pytest.raises(ModelUnreadable, match="the service is stopping"):
            await waiting
        gate.set()

    run(test)


def test_more_work_than_there_may_be_threads_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "MOST", 3)
    lock, at_work, most = threading.Lock(), [0], [0]

    def work() -> int:
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        time.sleep(0.002)
        with lock:
            at_work[0] -= 1
        return 1

    async def test() -> None:
        patient = Patience(10)
        assert sum(await asyncio.gather(*(patient.run(key, "it", work) for key in range(40)))) == 40
        assert most[0] <= 3

    run(test)


def test_a_disk_that_hangs_collects_a_bounded_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "MOST", 3)
    gate = threading.Event()
    ran: list[int] = []

    async def test() -> None:
        patient = Patience(0.1)
        for _ in range(2):
            asked = (patient.run(("hangs", key), "it", gate.wait) for key in range(20))
            told = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(error, ModelUnreadable) for error in told)
        assert threads("hangs") == 3
        gate.set()

        async def refused() -> BaseException | None:
            more = patient.run("more", "it", lambda: ran.append(1))
            return (await asyncio.gather(more, return_exceptions=True))[0]

        while await refused() is not None:
            await asyncio.sleep(0.01)
        assert ran == [1]

    run(test)
