"""Who runs what: lanes side by side, and the event loop itself."""

import asyncio
import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from ganserve.latents import consecutive, latents
from tests.engines import DummyEngine
from tests.service.inference.asking import batching, hold, keep, rows, run, until
from tests.tiny import Z, card


@pytest.fixture
def engine() -> DummyEngine:
    return DummyEngine(card("m"), max_rows=8)


class Meeting(DummyEngine):
    """Notes which thread runs how much; when ``meet`` is set, every run waits for a second one beside it."""

    def __init__(self) -> None:
        super().__init__(card("m"), max_rows=8)
        self.meet = False
        self.ran: list[tuple[str, int]] = []
        self.barrier = threading.Barrier(2)

    def run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        self.ran.append((threading.current_thread().name, len(latent)))
        if self.meet:
            self.barrier.wait(10)
        return super().run(latent, label)


def test_a_small_request_that_is_alone_is_shared_by_the_event_loop_and_a_lane() -> None:
    async def check() -> None:
        async with batching(lanes=2, inline=True) as batcher:
            engine = Meeting()
            await batcher.generate(engine, rows(0, 1), keep, timeout=20)
            batcher._runs.pace.cost["m"] = 1e-4
            await until(lambda: batcher._runs.idle == 2)
            engine.meet = True
            images = await batcher.generate(engine, rows(7, 8), keep, timeout=20)
            (loop, half), (lane, rest) = sorted(engine.ran[1:])
            assert (half, rest) == (4, 4)
            assert loop == threading.main_thread().name
            assert lane.startswith("lane")
            latent = latents("philox-normal/v1", consecutive(7, 8), Z)
            assert np.array_equal(images, DummyEngine(card("m")).run(latent, np.zeros(8, np.int64)))
            engine.meet = False
            await until(lambda: batcher._runs.idle == 2)
            # Too little to be worth two runs.
            await batcher.generate(engine, rows(0, 4), keep, timeout=20)
            assert engine.ran[3:] == [(loop, 4)]

    run(check)


class Watched(DummyEngine):
    """Tells which thread ran how many rows."""

    def __init__(self) -> None:
        super().__init__(card("m"), max_rows=8)
        self.seen: list[tuple[bool, int]] = []
        self.seconds = 0.0
        self.broken: int | None = None

    def run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        self.seen.append((threading.current_thread() is threading.main_thread(), len(latent)))
        if label is not None and self.broken in label:
            raise ValueError("broken")
        time.sleep(self.seconds)
        return super().run(latent, label)


def test_the_event_loop_runs_small_requests_together_once_their_pace_is_known_and_lanes_the_rest() -> None:
    async def check() -> None:
        engine = Watched()
        async with batching(inline=True) as batcher:
            await batcher.generate(engine, rows(0, 1), keep, timeout=20)
            assert engine.seen == [(False, 1)]
            batcher._runs.pace.cost["m"] = 1e-4
            # A lane that is not asleep yet would look for work once more.
            await until(lambda: batcher._runs.idle == 1)
            engine.seen.clear()
            small = [batcher.generate(engine, rows(i, 2), keep, timeout=20) for i in range(4)]
            await asyncio.gather(*small)
            assert engine.seen == [(True, 8)]
            engine.seen.clear()
            await batcher.generate(engine, rows(0, 20), keep, timeout=20)
            assert {loop for loop, _ in engine.seen} == {False}
            # What became slow goes back to the lanes, and nothing is stuck on the way.
            engine.seconds = 0.05
            await asyncio.gather(*(batcher.generate(engine, rows(i, 2), keep, timeout=20) for i in range(40)))
            # Those may have shared few runs; of runs with two rows each, these are enough to tell.
            for i in range(8):
                await batcher.generate(engine, rows(i, 2), keep, timeout=20)
            engine.seen.clear()
            await batcher.generate(engine, rows(0, 2), keep, timeout=20)
            assert engine.seen == [(False, 2)]
            assert batcher.queued == 0

    run(check)


def test_the_event_loop_lets_nothing_overtake_what_waits_for_the_lanes() -> None:
    async def check() -> None:
        async with batching(inline=True) as batcher:
            engine = Watched()
            engine.seconds = 0.05
            await batcher.generate(engine, rows(0, 8), keep, timeout=20)
            large = [asyncio.create_task(batcher.generate(engine, rows(i, 8), keep, timeout=20)) for i in range(3)]
            small = asyncio.create_task(batcher.generate(engine, rows(9, 1), keep, timeout=20))
            await asyncio.gather(*large, small)
            assert [n for _, n in engine.seen] == [8, 8, 8, 8, 1]

    run(check)


def test_on_the_event_loop_too_a_run_that_fails_fails_only_the_request_that_broke_it() -> None:
    async def check() -> None:
        engine = Watched()
        async with batching(inline=True) as batcher:
            await batcher.generate(engine, rows(0, 1), keep, timeout=20)
            batcher._runs.pace.cost["m"] = 1e-4
            engine.broken = 5
            asked = [batcher.generate(engine, rows(i, 2, label=i), keep, timeout=20) for i in (4, 5, 6)]
            first, second, third = await asyncio.gather(*asked, return_exceptions=True)
            assert isinstance(second, ValueError)
            assert isinstance(first, np.ndarray)
            assert isinstance(third, np.ndarray)
            assert (await batcher.generate(engine, rows(1, 2), keep, timeout=20)).shape[0] == 2

    run(check)


def test_on_the_event_loop_too_the_window_holds_and_the_cancelled_cost_no_run() -> None:
    async def check() -> None:
        engine = Watched()
        async with batching(inline=True, delay=0.1) as batcher:
            await batcher.generate(engine, rows(0, 1), keep, timeout=20)
            batcher._runs.pace.cost["m"] = 1e-4
            # A lane that is not asleep yet would keep an eye on the window too.
            await until(lambda: batcher._runs.idle == 1)
            engine.seen.clear()
            began = time.monotonic()
            tasks = [
                asyncio.create_task(batcher.generate(engine, rows(i, 2), keep, timeout=20)) for i in range(3)
            ]
            await asyncio.sleep(0.01)
            tasks[1].cancel()
            await asyncio.gather(tasks[0], tasks[2])
            assert time.monotonic() - began >= 0.09
            assert engine.seen == [(True, 4)]
            assert batcher.queued == 0

    run(check)


def test_while_the_event_loop_has_small_requests_to_run_one_lane_works_beside_it_and_then_all() -> None:
    async def check() -> None:
        async with batching(lanes=2, inline=True) as batcher:
            engine = Meeting()
            await batcher.generate(engine, rows(0, 1), keep, timeout=20)
            batcher._runs.pace.cost["m"] = 1e-4
            await until(lambda: batcher._runs.idle == 2)
            await batcher.generate(engine, rows(0, 2), keep, timeout=20)
            batcher._runs.inline_until = time.monotonic() + 0.5
            engine.gate.clear()
            large = asyncio.create_task(batcher.generate(engine, rows(0, 64), keep, timeout=20))
            await until(lambda: batcher._runs.in_lanes == 1)
            await asyncio.sleep(0.1)
            assert batcher._runs.in_lanes == 1
            await until(lambda: batcher._runs.in_lanes == 2)
            engine.gate.set()
            await large

    run(check)


def test_two_models_do_not_block_each_other() -> None:
    async def check() -> None:
        slow, quick = DummyEngine(card("slow"), 8), DummyEngine(card("quick"), 8)
        async with batching(lanes=2) as batcher:
            held = await hold(batcher, slow)
            images = await batcher.generate(quick, rows(0, 20), keep, timeout=20)
            assert len(images) == 20
            assert not held.done()
            slow.gate.set()
            await held

    run(check)


def test_a_lone_large_request_is_spread_over_idle_lanes(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching(lanes=2) as batcher:
            await asyncio.sleep(0.05)
            engine.gate.clear()
            task = asyncio.create_task(batcher.generate(engine, rows(0, 8), keep, timeout=20))
            await until(lambda: len(engine.batches) == 2)
            assert engine.batches == [4, 4]
            engine.gate.set()
            await task

    run(check)
