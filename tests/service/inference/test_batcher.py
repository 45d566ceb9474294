"""What the batcher promises, against an engine without a network."""

import asyncio
import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from ganserve.latents import consecutive, latents
from service.http.errors import ClientGone, DeadlineExceeded, Overloaded, Unavailable
from service.inference import runs
from service.inference.batcher import Batcher
from service.inference.rows import Rows
from tests.engines import DummyEngine
from tests.service.inference.asking import batching, hold, keep, rows, run, until
from tests.tiny import Z, card


@pytest.fixture
def engine() -> DummyEngine:
    return DummyEngine(card("m"), max_rows=8)


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
            batcher._runs.pace.cost["m"] = 0.1
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
    monkeypatch.setattr(runs, "time", clock)

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
            assert batcher._runs.pace.speed == pytest.approx(0.25, abs=0.03)

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
                    assert not isinstance(answer, BaseException), answer
                    assert len(answer) == 1 + index % 20
            await until(lambda: batcher.queued == 0)
            assert len(batcher._runs.queue) == 0

    run(check)


def test_what_would_start_late_in_its_time_is_refused_at_once(engine: DummyEngine) -> None:
    async def check() -> None:
        async with batching() as batcher:
            held = await hold(batcher, engine)
            waiting = asyncio.create_task(batcher.generate(engine, rows(0, 100), keep, timeout=50))
            await until(lambda: batcher.queued == 100)
            batcher._runs.pace.cost["m"] = 0.1
            with pytest.raises(Overloaded):
                await batcher.generate(engine, rows(0, 1), keep, timeout=15)
            admitted = asyncio.create_task(batcher.generate(engine, rows(0, 1), keep, timeout=40))
            await until(lambda: batcher.queued == 101)
            engine.gate.set()
            await asyncio.gather(held, waiting, admitted)

    run(check)
