"""What tests of the batcher ask, and how they wait."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray

from ganserve.latents import consecutive
from service.inference.batcher import Batcher
from service.inference.rows import Rows
from tests.engines import DummyEngine


def rows(seed: int, n: int, label: int = 0) -> Rows:
    return Rows(consecutive(seed, n), np.full(n, label, np.int64))


def keep(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images


@asynccontextmanager
async def batching(
    *, lanes: int = 1, limit: int = 4096, total: int = 8192, delay: float = 0.0, inline: bool = False
) -> AsyncIterator[Batcher]:
    batcher = Batcher(lanes=lanes, limit=limit, total=total, delay=delay, inline=inline)
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


async def hold(batcher: Batcher, engine: DummyEngine) -> "asyncio.Task[NDArray[np.uint8]]":
    """Occupy one lane with a request of one image."""
    engine.gate.clear()
    before = len(engine.batches)
    task = asyncio.create_task(batcher.generate(engine, rows(999, 1), keep, timeout=20))
    await until(lambda: len(engine.batches) > before)
    return task
