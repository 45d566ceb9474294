"""What the batcher promises, against an engine without a network."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ganserve.latents import consecutive, latents
from service.http.errors import ClientGone, DeadlineExceeded, Overloaded, Unavailable
from service.inference import batching as batching_module
from service.inference.batching import Batcher, Rows, _Outbox
from service.inference.cores import Cores
from tests.engines import DummyEngine
from tests.tiny import Z, card


def rows(seed: int, n: int, label: int = 0) -> Rows:
    return Rows(consecutive(seed, n), np.full(n, label, np.int64))


def keep(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images


@asynccontextmanager
async def batching(
    *,
    lanes: int = 1,
    limit: int = 4096,
    total: int = 8192,
    delay: float = 0.0,
    inline: bool = False,
    cores: Cores | None = None,
) -> AsyncIterator[Batcher]:
    batcher = Batcher(lanes=lanes, limit=limit, total=total, delay=delay, inline=inline, cores=cores)
    try:
        yield batcher
    finally:
        await asyncio.to_thread(batcher.close)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), 20)

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


@pytest.fixture
def engine() -> DummyEngine:
    return DummyEngine(card("m"), max_rows=8)


async def hold(batcher: Batcher, engine: DummyEngine) -> "asyncio.Task[NDArray[np.uint8]]":
    """Occupy one lane with a request of one image."""
    engine.gate.clear()
    before = len(engine.batches)
    task = asyncio.create_task(batcher.generate(engine, rows(999, 1), keep, timeout=20))
    await until(lambda: len(engine.batches) > before)
    return task


def test_requests_that_wait_together_share_a_run(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching() as batcher:
            held = await hold(batcher, engine)
            waiting = [
                asyncio.create_task(batcher.generate(engine, rows(i, 2), keep, timeout=20)) for i in range(4)
            ]
            await until(lambda: batcher.queued == 8)
            engine.gate.set()
            await asyncio.gather(held, *waiting)
            assert engine.batches == [1, 8]

    run(check)


@pytest.mark.parametrize("inline", [False, True])
def test_each_request_gets_its_own_rows_in_order(engine: DummyEngine, inline: bool) -> None:
    async def check() -> None:
        async with batching(lanes=3, inline=inline) as batcher:
            # From the first on, the pace is known.
            await batcher.generate(engine, rows(0, 1), keep, timeout=20)
            sizes = [1, 7, 8, 9, 100, 3, 64, 2]
            answers = await asyncio.gather(
                *(
                    batcher.generate(engine, rows(1000 * i, n, label=i), keep, timeout=20)
                    for i, n in enumerate(sizes)
                )
            )
            reference = DummyEngine(card("m"))
            for i, (n, images) in enumerate(zip(sizes, answers, strict=True)):
                latent = latents("philox-normal/v1", consecutive(1000 * i, n), Z)
                assert np.array_equal(images, reference.run(latent, np.full(n, i)))
            assert max(engine.batches) <= 8

    run(check)


def test_given_latents_and_seeds_share_a_run(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching() as batcher:
            held = await hold(batcher, engine)
            latent = latents("philox-normal/v1", consecutive(5, 2), Z)
            by_seed = asyncio.create_task(batcher.generate(engine, rows(5, 2), keep, timeout=20))
            given = Rows(None, np.zeros(2, np.int64), latent)
            by_latent = asyncio.create_task(batcher.generate(engine, given, keep, timeout=20))
            await until(lambda: batcher.queued == 4)
            engine.gate.set()
            assert np.array_equal(await by_seed, await by_latent)
            await held
            assert engine.batches == [1, 4]

    run(check)


def test_a_small_request_does_not_wait_behind_a_strangers_thousand_images(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching() as batcher:
            held = await hold(batcher, engine)
            big = asyncio.create_task(batcher.generate(engine, rows(0, 1000), keep, timeout=20))
            await until(lambda: batcher.queued == 1000)
            done_after: list[int] = []
            small = asyncio.create_task(
                batcher.generate(
                    engine, rows(5000, 1), lambda images: done_after.append(sum(engine.batches)), timeout=20
                )
            )
            await until(lambda: batcher.queued == 1001)
            engine.gate.set()
            await asyncio.gather(held, big, small)
            # The run that was on, one chunk of the stranger's, and the chunk that it is in.
            assert done_after[0] <= 1 + 8 + 8

    run(check)


def test_of_large_requests_of_one_size_one_is_done_before_the_next_begins(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching() as batcher:
            held = await hold(batcher, engine)
            left: list[int] = []

            def finish(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
                left.append(batcher.queued)
                return images

            asking = [
                asyncio.create_task(batcher.generate(engine, rows(1000 * i, 20), finish, timeout=20))
                for i in range(4)
            ]
            await until(lambda: batcher.queued == 80)
            engine.gate.set()
            await asyncio.gather(held, *asking)
            # Chunks of 8: the last one of a request takes some rows of the next along.
            assert [-(-rows_left // 20) for rows_left in left] == [3, 2, 1, 0]

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
        async with batching(lanes=2, inline=True, cores=Cores(2)) as batcher:
            engine = Meeting()
            await batcher.generate(engine, rows(0, 1), keep, timeout=20)
            batcher._cost["m"] = 1e-4
            await until(lambda: batcher._idle == 2)
            engine.meet = True
            images = await batcher.generate(engine, rows(7, 8), keep, timeout=20)
            (loop, half), (lane, rest) = sorted(engine.ran[1:])
            assert (half, rest) == (4, 4)
            assert loop == threading.main_thread().name
            assert lane.startswith("lane")
            latent = latents("philox-normal/v1", consecutive(7, 8), Z)
            assert np.array_equal(images, DummyEngine(card("m")).run(latent, np.zeros(8, np.int64)))
            engine.meet = False
            await until(lambda: batcher._idle == 2)
            # Too little to be worth two runs.
            await batcher.generate(engine, rows(0, 4), keep, timeout=20)
            assert engine.ran[3:] == [(loop, 4)]

    run(check)


def test_where_other_processes_have_the_cores_a_request_is_not_spread() -> None:
    async def check() -> None:
        running = [0, 1]
        async with batching(lanes=2, inline=True, cores=Cores(2, running)) as batcher:
            engine = Meeting()
            await batcher.generate(engine, rows(0, 1), keep, timeout=20)
            batcher._cost["m"] = 1e-4
            await until(lambda: batcher._idle == 2)
            await batcher.generate(engine, rows(0, 8), keep, timeout=20)
            assert engine.ran[1:] == [(threading.main_thread().name, 8)]
            await batcher.generate(engine, rows(0, 800), keep, timeout=20)
            assert len({name for name, _ in engine.ran[2:]}) == 1, "one lane had all of it"
            await until(lambda: running == [0, 1])

    run(check)


def test_when_a_core_falls_free_a_lane_that_held_back_joins_in() -> None:
    async def check() -> None:
        running = [0, 1]
        async with batching(lanes=2, cores=Cores(2, running)) as batcher:
            engine = Meeting()
            engine.gate.clear()
            large = asyncio.create_task(batcher.generate(engine, rows(0, 64), keep, timeout=20))
            await until(lambda: len(engine.ran) == 1 and batcher._idle == 1)
            second = asyncio.create_task(batcher.generate(engine, rows(0, 64), keep, timeout=20))
            await until(lambda: batcher._held_back)
            running[1] = 0
            engine.gate.set()
            await asyncio.gather(large, second)
            assert {name for name, _ in engine.ran} == {"lane-0", "lane-1"}
            await until(lambda: running == [0, 0])

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


def test_a_full_queue_refuses_at_once_and_says_when_to_ask_again(engine: DummyEngine) -> None:
    async def check() -> None:
        other = DummyEngine(card("other"), 8)
        async with batching(limit=10, total=15) as batcher:
            held = await hold(batcher, engine)
            waiting = asyncio.create_task(batcher.generate(engine, rows(0, 10), keep, timeout=20))
            await until(lambda: batcher.queued == 10)
            with pytest.raises(
                Overloaded, match="10 images wait for m already, and at most 10 may"
            ) as refused:
                await batcher.generate(engine, rows(0, 1), keep, timeout=20)
            assert int(refused.value.headers["Retry-After"]) >= 1
            with pytest.raises(Overloaded, match="at most 15 may"):
                await batcher.generate(other, rows(0, 6), keep, timeout=20)
            engine.gate.set()
            await asyncio.gather(held, waiting, batcher.generate(other, rows(0, 5), keep, timeout=20))
            assert batcher.queued == 0

    run(check)


def test_retry_after_is_what_the_waiting_rows_will_take_at_the_measured_rate(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching(limit=100) as batcher:
            held = await hold(batcher, engine)
            waiting = asyncio.create_task(batcher.generate(engine, rows(0, 100), keep, timeout=50))
            await until(lambda: batcher.queued == 100)
            batcher._cost["m"] = 0.1
            with pytest.raises(Overloaded) as refused:
                await batcher.generate(engine, rows(0, 1), keep, timeout=50)
            assert refused.value.headers["Retry-After"] == "10"
            with pytest.raises(Overloaded, match="too long for the 5 s"):
                await batcher.generate(DummyEngine(card("x")), rows(0, 1), keep, timeout=5)
            engine.gate.set()
            await asyncio.gather(held, waiting)

    run(check)


class Clock:
    """The module ``time``, but for a ``perf_counter`` that goes on when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def perf_counter(self) -> float:
        return self.now


def test_the_rate_counts_what_lanes_do_between_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(batching_module, "time", clock)

    class Slow(DummyEngine):
        def run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
            clock.now += 0.01
            return super().run(latent, label)

    def encode(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        clock.now += 0.03
        return images

    async def check() -> None:
        engine = Slow(card("m"), max_rows=8)
        async with batching() as batcher:
            # All wait at once, and one lane takes them one by one.
            await asyncio.gather(*(batcher.generate(engine, rows(9 * i, 8), encode, timeout=50) for i in range(200)))
            # Ten milliseconds of runs, thirty of encoding: a quarter of what the runs alone would promise.
            assert batcher._pace == pytest.approx(0.25, abs=0.03)

    run(check)


def test_past_the_deadline_nothing_of_a_request_is_run(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching() as batcher:
            held = await hold(batcher, engine)
            with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"):
                await batcher.generate(engine, rows(0, 5), keep, timeout=0.05)
            assert batcher.queued == 0
            engine.gate.set()
            await held
            assert engine.batches == [1]

    run(check)


def test_a_cancelled_request_leaves_the_queue_before_it_costs_a_run(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching() as batcher:
            held = await hold(batcher, engine)
            task = asyncio.create_task(batcher.generate(engine, rows(0, 5), keep, timeout=20))
            await until(lambda: batcher.queued == 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert batcher.queued == 0
            engine.gate.set()
            await held
            assert engine.batches == [1]

    run(check)


def test_a_client_that_hangs_up_stops_its_work(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching() as batcher:
            held = await hold(batcher, engine)
            gone = asyncio.Event()

            async def disconnected() -> None:
                await gone.wait()

            task = asyncio.create_task(
                batcher.generate(engine, rows(0, 500), keep, timeout=20, disconnected=disconnected)
            )
            await until(lambda: batcher.queued == 500)
            gone.set()
            with pytest.raises(ClientGone):
                await task
            assert batcher.queued == 0
            engine.gate.set()
            await held
            assert engine.batches == [1]

    run(check)


def test_a_run_that_fails_fails_only_the_request_that_broke_it() -> None:
    class Fragile(DummyEngine):
        def run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
            images = super().run(latent, label)
            if label is not None and (label == 13).any():
                raise RuntimeError("unlucky")
            return images

    async def check() -> None:
        engine = Fragile(card("m"), 8)
        async with batching() as batcher:
            held = await hold(batcher, engine)
            good, bad, fine = (
                asyncio.create_task(batcher.generate(engine, rows(i, 2, label), keep, timeout=20))
                for i, label in enumerate((1, 13, 2))
            )
            await until(lambda: batcher.queued == 6)
            engine.gate.set()
            await held
            assert len(await good) == len(await fine) == 2
            with pytest.raises(RuntimeError, match="unlucky"):
                await bad
            assert len(await batcher.generate(engine, rows(0, 3), keep, timeout=20)) == 3

    run(check)


def test_an_encoder_that_fails_does_not_end_the_lane(engine: DummyEngine) -> None:
    def broken(images: NDArray[np.uint8]) -> bytes:
        raise ValueError("no")

    async def check() -> None:
        async with batching() as batcher:
            with pytest.raises(ValueError, match="no"):
                await batcher.generate(engine, rows(0, 1), broken, timeout=20)
            assert len(await batcher.generate(engine, rows(0, 3), keep, timeout=20)) == 3

    run(check)


def test_large_results_are_encoded_outside_the_lanes(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching(limit=5000) as batcher:
            names = []
            for n in (1, 5000):
                name = await batcher.generate(
                    engine, rows(0, n), lambda images: threading.current_thread().name, timeout=20
                )
                names.append(name.split("-")[0].split("_")[0])
            assert names == ["lane", "encode"]

    run(check)


def test_the_window_is_anchored_at_the_first_waiting_row(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching(delay=0.1) as batcher:
            began = time.monotonic()
            first = asyncio.create_task(batcher.generate(engine, rows(0, 1), keep, timeout=20))
            await asyncio.sleep(0.03)
            second = asyncio.create_task(batcher.generate(engine, rows(1, 1), keep, timeout=20))
            await asyncio.gather(first, second)
            assert 0.09 < time.monotonic() - began < 1
            assert engine.batches == [2]
            began = time.monotonic()
            await batcher.generate(engine, rows(0, 8), keep, timeout=20)
            assert time.monotonic() - began < 0.09, "a full chunk does not wait"

    run(check)


def test_closing_refuses_what_waits_and_finishes_what_runs(engine: DummyEngine) -> None:
    async def check() -> None:
        batcher = Batcher(lanes=1, limit=100, total=100)
        held = await hold(batcher, engine)
        waiting = asyncio.create_task(batcher.generate(engine, rows(0, 5), keep, timeout=20))
        await until(lambda: batcher.queued == 5)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        with pytest.raises(Unavailable):
            await waiting
        engine.gate.set()
        await closing
        assert len(await held) == 1
        with pytest.raises(Unavailable):
            await batcher.generate(engine, rows(0, 1), keep, timeout=20)

    run(check)


def test_the_queues_are_empty_after_a_storm_of_cancellations(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching(lanes=2) as batcher:
            tasks = [
                asyncio.create_task(batcher.generate(engine, rows(i, 1 + i % 20), keep, timeout=20))
                for i in range(200)
            ]
            await asyncio.sleep(0.005)
            for task in tasks[::2]:
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            for index, answer in enumerate(answers):
                if not isinstance(answer, asyncio.CancelledError):
                    assert len(answer) == 1 + index % 20
            await until(lambda: batcher.queued == 0)
            assert not batcher._queues

    run(check)


def test_what_would_start_late_in_its_time_is_refused_at_once(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching() as batcher:
            held = await hold(batcher, engine)
            waiting = asyncio.create_task(batcher.generate(engine, rows(0, 100), keep, timeout=50))
            await until(lambda: batcher.queued == 100)
            batcher._cost["m"] = 0.1
            with pytest.raises(Overloaded):
                await batcher.generate(engine, rows(0, 1), keep, timeout=15)
            admitted = asyncio.create_task(batcher.generate(engine, rows(0, 1), keep, timeout=40))
            await until(lambda: batcher.queued == 101)
            engine.gate.set()
            await asyncio.gather(held, waiting, admitted)

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
            batcher._cost["m"] = 1e-4
            # A lane that is not asleep yet would look for work once more.
            await until(lambda: batcher._idle == 1)
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
            batcher._cost["m"] = 1e-4
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
            batcher._cost["m"] = 1e-4
            # A lane that is not asleep yet would keep an eye on the window too.
            await until(lambda: batcher._idle == 1)
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


def test_answers_that_come_together_wake_the_event_loop_once() -> None:
    async def main() -> tuple[int, list[int]]:
        loop = asyncio.get_running_loop()
        outbox, wakes = _Outbox(loop), 0
        wake = loop.call_soon_threadsafe

        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal wakes
            wakes += 1
            return wake(*arguments, **named)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
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
        outbox, rounds = _Outbox(loop), 2000
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
    outbox, future = _Outbox(loop), loop.create_future()
    loop.close()
    outbox.put(future, 1, None)
    assert not future.done()
