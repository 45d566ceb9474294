"""``/datasets/synthetic``: as many labelled images as asked for, in constant memory, from any row on."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ganserve.latents import MAX_SEED
from ganserve.settings import Settings
from service.api import check_ready
from service.api.generate import ENCODERS, describe, matches
from service.datasets.synthetic import LAYOUT, Format, Images, Span, Writer, writer
from service.http.auth import require_user
from service.http.errors import DeadlineExceeded, Invalid, Overloaded, Problem
from service.inference.batcher import Batcher
from service.inference.catalogue import Catalogue
from service.inference.engine import Engine
from service.inference.rows import Rows

router = APIRouter(tags=["datasets"])

MEDIA: dict[Format, str] = {
    "tar": "application/x-tar",
    "parquet": "application/vnd.apache.parquet",
    "npz": "application/x-npz",
    "zip": "application/zip",
}
# Small, so that a stream is fair to others and has its first bytes out at once.
CHUNK_ROWS = 64
CHUNK_BYTES = 1 << 20
RETRY_SECONDS = (0.02, 0.5)


class Missing(Problem):
    """A part that is installed apart is not there."""

    status = 501


class SyntheticQuery(BaseModel):
    """Which rows, and how they are written."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, max_length=200, description="a model's name; the default one without it")
    version: int | None = Field(None, ge=1, description="the live one without it")
    seed: int = Field(0, ge=0, lt=MAX_SEED, description="seed of row 0; row i has seed + i")
    n: int | None = Field(
        None, ge=1, description="how many rows; 60000 without it, or the most that this server gives"
    )
    offset: int = Field(0, ge=0, lt=MAX_SEED, description="the first row; the rows before it are left out")
    balanced: bool = Field(
        True, description="the classes in turn; false: each row's class is drawn from its seed"
    )
    format: Format = Field("tar", description="tar: WebDataset; parquet: Hugging Face; npz; zip: class folders")


class Stream(StreamingResponse):
    """A streamed answer whose work ends with the client: hanging up closes the generator at once."""

    def __init__(
        self, first: bytes, rest: AsyncGenerator[bytes, None], headers: dict[str, str], media_type: str
    ) -> None:
        async def whole() -> AsyncGenerator[bytes, None]:
            yield first
            async for part in rest:
                yield part

        super().__init__(whole(), headers=headers, media_type=media_type)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end or until the client has gone. A failure on the way breaks the connection off."""
        async with aclosing(self._rest):
            sending = asyncio.ensure_future(self.stream_response(send))
            leaving = asyncio.ensure_future(self.listen_for_disconnect(receive))
            try:
                await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, leaving):
                    task.cancel()
                results = await asyncio.gather(sending, leaving, return_exceptions=True)
        if isinstance(results[0], Exception) and not isinstance(results[0], OSError):
            raise results[0]


@router.get(
    "/datasets/synthetic",
    summary="A data set of generated images",
    response_class=Response,
    dependencies=[Depends(require_user)],
    responses={
        200: {
            "description": "Rows offset to offset + n, as they are made",
            "content": {media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA.values()},
        }
    },
)
async def synthetic(request: Request, asked: Annotated[SyntheticQuery, Query()]) -> Response:
    """Row ``i`` is the image of seed ``seed + i``, whichever rows are asked for with it.

    So the rest of a download that broke off after row k is ``offset=k``, and shards are ranges: ``offset=0&n=10000``,
    ``offset=10000&n=10000``, and so on hold together what one answer of all rows would.
    """
    check_ready(request)
    state = request.app.state
    settings: Settings = state.settings
    catalogue: Catalogue = state.catalogue
    most = settings.max_dataset_images
    n = min(60_000, most) if asked.n is None else asked.n
    if n > most:
        raise Invalid(
            f"{n} images are too many for one answer: at most {most}; ask for the rest with offset={most}"
        )
    if asked.offset + n > MAX_SEED:
        raise Invalid("offset + n passes 2**53, after which the seeds would come again: lower offset")
    card = await catalogue.card(asked.model, asked.version)
    span = Span(card, asked.seed, asked.offset, n, asked.balanced)
    headers = {
        **describe(
            card,
            _etag(span, asked.format, catalogue.provider),
            versioned=asked.version is not None,
            private=state.auth.user is not None,
        ),
        "X-Seed": str(span.seed),
        "X-Offset": str(span.offset),
        "X-Images": str(n),
        "Content-Disposition": f'attachment; filename="{_file_name(span)}.{asked.format}"',
        "Accept-Ranges": "none",
    }
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    batcher: Batcher = state.batcher
    try:
        # In a thread, as pyarrow takes a moment to be imported.
        made = await batcher.work(partial(writer, asked.format, span))
    except ImportError as error:
        raise Missing(
            f"parquet is not installed on this server: pip install 'ganserve[parquet]', or take format=tar ({error})"
        ) from None
    if made.length is not None:
        headers["Content-Length"] = str(made.length)
    engine = await catalogue.engine(card.name, card.version)
    body = _body(batcher, engine, made, span, settings)
    # The first rows are waited for, so that a server that cannot give them says so with a status.
    first = await anext(body)

    return Stream(first, body, headers, MEDIA[asked.format])


def _etag(span: Span, form: Format, provider: str) -> str:
    card = span.card
    parts = [
        LAYOUT, ENCODERS, _writer_version(form), provider, card.sha256, card.name, card.version, form,
        span.seed, span.offset, span.n, span.balanced, *card.classes,
    ]  # fmt: skip
    return f'"{hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()}"'


def _writer_version(form: Format) -> str:
    if form != "parquet":
        return ""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pyarrow")
    except PackageNotFoundError:
        return ""


def _file_name(span: Span) -> str:
    card = span.card
    return f"{card.name}-{card.version}-seed{span.seed}-{span.offset:09d}-{span.offset + span.n - 1:09d}"


async def _body(
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
            chunk = _chunk(batcher, engine, Rows(seeds, labels), prepare, timeout, patient=patient)
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
