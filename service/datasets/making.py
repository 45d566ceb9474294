"""A data set as it is made: its rows go through the same queue as everybody's, some ahead of the client, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any

from ganserve.settings import Settings
from service.datasets.formats import Images, Writer
from service.datasets.span import Span
from service.http.errors import DeadlineExceeded, Overloaded
from service.inference.batcher import Batcher
from service.inference.engine import Engine
from service.inference.rows import Rows

# Small, so that a stream is fair to others and has its first bytes out at once.
CHUNK_ROWS = 64
CHUNK_BYTES = 1 << 20
RETRY_SECONDS = (0.02, 0.5)


async def written(
    batcher: Batcher, engine: Engine, made: Writer, span: Span, settings: Settings
) -> AsyncGenerator[bytes, None]:
    """The file, in parts that are never empty."""
    # What is dear or sequential runs beside the lanes, never on the event loop.
    async with aclosing(_chunks(batcher, engine, made, span, settings)) as chunks:
        first = await anext(chunks)
        async for part in _off_loop(batcher, made.head()):
            yield part
        part = await batcher.work(partial(made.add, first))
        if part:
            yield part
        async for prepared in chunks:
            part = await batcher.work(partial(made.add, prepared))
            if part:
                yield part
    async for part in _off_loop(batcher, made.tail()):
        yield part


async def _off_loop(batcher: Batcher, parts: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    step: Callable[[], bytes | None] = partial(next, parts, None)
    while (part := await batcher.work(step)) is not None:
        yield part


async def _chunks(
    batcher: Batcher, engine: Engine, made: Writer, span: Span, settings: Settings
) -> AsyncGenerator[Any, None]:
    """Prepared rows in their order. At most one chunk a lane, and one, is ahead of the client."""
    shape = engine.card.image
    size = shape.height * shape.width * shape.channels
    rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES // size, settings.image_limit // 4))
    ahead = batcher.lanes + 1
    timeout = settings.request_timeout
    under_way: deque[asyncio.Task[Any]] = deque()
    try:
        for start in range(span.offset, span.offset + span.n, rows):
            seeds, labels = span.rows(start, min(rows, span.offset + span.n - start))
            prepare: Callable[[Images], Any] = partial(made.prepare, start)
            patient = start > span.offset
            wanted = Rows(seeds, labels, None, span.truncation)
            chunk = _chunk(batcher, engine, wanted, prepare, timeout, patient=patient)
            under_way.append(asyncio.ensure_future(chunk))
            if len(under_way) == ahead or not patient:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _chunk(
    batcher: Batcher,
    engine: Engine,
    rows: Rows,
    prepare: Callable[[Images], Any],
    timeout: float,
    *,
    patient: bool,
) -> Any:
    """One chunk; a patient one lets others go first while the queue is half full, and comes again when refused."""
    pause, longest = RETRY_SECONDS
    while True:
        while patient and 2 * batcher.queued > min(batcher.limit, batcher.total):
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
        try:
            return await batcher.generate(engine, rows, prepare, timeout=timeout)
        except (Overloaded, DeadlineExceeded):
            if not patient:
                raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
