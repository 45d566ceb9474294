"""The way of answers from threads to event loops."""

import asyncio
import threading
from typing import Any

import pytest

from service.inference.answers import Outbox


def test_answers_that_come_together_wake_the_event_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> tuple[int, list[int]]:
        loop = asyncio.get_running_loop()
        outbox, wakes = Outbox(loop), 0
        wake = loop.call_soon_threadsafe

        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal wakes
            wakes += 1
            return wake(*arguments, **named)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(8)]

        def lane() -> None:
            for index, future in enumerate(futures):
                outbox.put(future, index, None)
            outbox.put(futures[0], 99, None)

        # The loop is busy meanwhile, so it cannot take one before the last is there.
        thread = threading.Thread(target=lane)
        thread.start()
        thread.join()
        return wakes, await asyncio.gather(*futures)

    assert asyncio.run(main()) == (1, list(range(8)))


def test_no_answer_is_lost_between_lanes_and_loop() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        outbox, rounds = Outbox(loop), 2000
        futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(rounds)]

        def lane(start: int) -> None:
            for index in range(start, rounds, 2):
                outbox.put(futures[index], 1, None)

        threads = [threading.Thread(target=lane, args=(start,)) for start in range(2)]
        for thread in threads:
            thread.start()
        answered = sum(await asyncio.wait_for(asyncio.gather(*futures), 60))
        for thread in threads:
            thread.join()
        return answered

    assert asyncio.run(main()) == 2000


def test_an_answer_to_a_loop_that_has_gone_harms_nobody() -> None:
    loop = asyncio.new_event_loop()
    outbox, future = Outbox(loop), loop.create_future()
    loop.close()
    outbox.put(future, 1, None)
    assert not future.done()
