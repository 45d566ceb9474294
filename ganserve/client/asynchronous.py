"""The client for asyncio: the same calls, to be awaited; many may be under way at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar, cast

import httpx

from ganserve import errors
from ganserve.asked import Asked, Label, scaling
from ganserve.client import calls, generating
from ganserve.client.answers import Dataset, Job, Model
from ganserve.client.exchange import Ask, Flow, Patience, Place, Reply, checked
from ganserve.images import Images
from ganserve.progress import Bar, wanted
from ganserve.verdict import Verdict

T = TypeVar("T")


class AsyncClient:
    """A connection to a service, for asyncio; every call raises what ``ganserve.errors`` names.

    >>> async def threes():
    ...     async with AsyncClient() as client:
    ...         return await client.generate(label=3, n=16, seed=42)
    >>> asyncio.run(threes()).images.shape
    (16, 28, 28, 1)

    Args:
        url: the service's address, also with a path prefix; unset: ``GANSERVE_URL``, else http://127.0.0.1:8000.
        token: bearer token; unset: ``GANSERVE_TOKEN``, else none.
        timeout: seconds until a server that says nothing is given up.
        deadline: seconds that one request may take: 429 and 503 are waited out by ``Retry-After`` within it.
        transport: another way to carry requests than the network.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = 60.0,
        deadline: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._place = Place.of(url, token, timeout, deadline)
        self._http = httpx.AsyncClient(transport=transport, **self._place.options())
        self._known = generating.Known()
        self.jobs = AsyncJobs(self)

    async def generate(
        self,
        label: Label | Iterable[Label] | None = None,
        n: int | None = None,
        seed: int | None = None,
        *,
        seeds: Iterable[int] | None = None,
        model: str | None = None,
        version: int | None = None,
        truncation: float | None = None,
        progress: bool | None = False,
    ) -> Images:
        """Images of one version; a large ``n`` is fetched in pieces, all of the version that the first one had.

        Args:
            label: class name, index, or a list that is taken in turn; None: the classes in turn.
            n: how many; None: as many as labels or seeds are listed, else 1.
            seed: of image 0; image ``i`` has ``(seed + i) mod 2**53``. None: the server draws one.
            seeds: of each image.
            model, version: None: the server's default model, the live version.
            truncation: above 0, up to 1, in whole hundredths: scales latents, for less variety and more typical images.
            progress: show a bar; None: where somebody watches.
        """
        asked = Asked.of(label, n, seed, seeds, model, version, truncation)
        with Bar("generate", asked.n, "images", shown=wanted(progress)) as bar:
            return await self._run(generating.generate(self._known, asked, bar.to))

    def stream(
        self,
        n: int | None = None,
        *,
        batch: int = 512,
        model: str | None = None,
        version: int | None = None,
        seed: int = 0,
        offset: int = 0,
        balanced: bool = True,
        truncation: float | None = None,
    ) -> AsyncIterator[Images]:
        """The rows of a synthetic data set in batches, in constant memory; ``offset`` goes on where a reader left off.

        Args:
            n: rows; None: without end.
            seed: of row 0; row ``i`` is the image of ``seed + i``.
            balanced: the classes in turn; False: each row's class is drawn from its seed.
        """
        rows = generating.Rows(self._known, n, batch, model, version, seed, offset, balanced, scaling(truncation))
        return self._batches(rows)

    async def _batches(self, rows: generating.Rows) -> AsyncIterator[Images]:
        while not rows.ended:
            yield await self._run(rows.following())

    async def models(self) -> list[Model]:
        """All models, by name."""
        return await self._run(calls.models())

    async def model(self, name: str) -> Model:
        """One model with its versions and the live version's card."""
        return await self._run(calls.model(name))

    async def card(self, name: str, version: int) -> Mapping[str, Any]:
        """What a version is, how it was made, how good it is."""
        return await self._run(calls.card(name, version))

    async def promote(self, name: str, version: int) -> Model:
        """Make a version live, also an earlier one; the model as it is then. Needs the admin token."""
        return await self._run(calls.promote(name, version))

    async def verify(self, picture: bytes | str | Path, *, address: str | None = None) -> Verdict:
        """Whether a picture is what stands at the address that it carries; true for a match.

        Args:
            picture: a PNG or WebP, or where it lies.
            address: in place of the one that it carries: a path as ``addresses`` has them, or a query as ``/generate``
                takes it, such as ``model=mnist-projgan&version=5&label=3&seed=42&n=16``.
        """
        return await self._run(calls.verify(await asyncio.to_thread(calls.picture_of, picture), address))

    async def upload(self, name: str, source: str | Path, *, progress: bool | None = None) -> Dataset:
        """Send a ZIP or a folder of class folders, ``CLASS/IMAGE``, to train on. Needs the admin token.

        Args:
            progress: show a bar; None: where somebody watches.
        """
        archive = await asyncio.to_thread(calls.archive_of, source)
        with archive, Bar(f"upload {name}", archive.size, "bytes", shown=wanted(progress)) as bar:
            return await self._run(calls.upload(name, archive, bar.to))

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncClient({self._place.name!r})"

    async def _run(self, flow: Flow[T]) -> T:
        try:
            ask = next(flow)
            while True:
                ask = flow.send(await self._answer(ask))
        except StopIteration as end:
            return cast(T, end.value)

    async def _answer(self, ask: Ask) -> Reply:
        """The answer that stands; passing refusals are waited out."""
        patience = self._place.patience(ask)
        while True:
            parts = []
            async with self._open(ask, patience) as response:
                async for part in response.aiter_bytes():
                    patience.check()
                    parts.append(part)
            reply = Reply(response.status_code, response.headers, b"".join(parts))
            pause = patience.pause(reply)
            if pause is None:
                return reply
            await asyncio.sleep(pause)

    async def _parts(self, ask: Ask) -> AsyncGenerator[bytes, None]:
        """The parts of an answer as they come; refusals as :meth:`_answer`."""
        patience = self._place.patience(ask)
        while True:
            async with self._open(ask, patience) as response:
                if response.status_code == 200:
                    async for part in response.aiter_bytes():
                        yield part
                    return
                reply = Reply(response.status_code, response.headers, await response.aread())
            pause = patience.pause(reply)
            if pause is None:
                checked(reply)
                return
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _open(self, ask: Ask, patience: Patience) -> AsyncIterator[httpx.Response]:
        """A response whose body is still to be read."""
        content = None if ask.body is None else _off_loop(iter(ask.body()))
        with self._place.translated():
            request = self._http.build_request(content=content, **self._place.request(ask))
            try:
                async with asyncio.timeout(patience.left):
                    response = await self._http.send(request, stream=True)
            except TimeoutError:
                raise patience.over() from None
            try:
                yield response
            finally:
                await response.aclose()


class AsyncJobs:
    """Retraining, as ``client.jobs``. Every call needs the admin token."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def submit(
        self,
        model: str,
        recipe: str,
        dataset: str,
        images: int,
        *,
        seed: int | None = None,
        init: Literal["scratch", "live"] = "scratch",
        promote: Literal["if_better", "always", "never"] = "if_better",
        overrides: Mapping[str, float | int | str] | None = None,
        key: str | None = None,
    ) -> Job:
        """Ask for a retraining; returns at once.

        Args:
            model: a new name makes a new model.
            dataset: an uploaded one, ``digits``, or a Hugging Face data set.
            images: budget, in images seen.
            init: ``live`` starts from the live version's weights.
            promote: when the result goes live.
            overrides: numbers of the recipe, within its bounds.
            key: the same key never makes two jobs; None: one of its own for this call.
        """
        request = calls.job_request(model, recipe, dataset, images, seed, init, promote, overrides)
        return await self._client._run(calls.submit(request, key))

    async def list(self, state: str | None = None, *, limit: int = 20, offset: int = 0) -> list[Job]:
        """Jobs, newest first; those in ``state`` only, where it is given."""
        return await self._client._run(calls.jobs(state, limit, offset))

    async def get(self, job: Job | str) -> Job:
        """A job as it stands now."""
        return await self._client._run(calls.job(job))

    async def cancel(self, job: Job | str, *, keep: bool = False) -> Job:
        """Stop a job; a running one ends within about a second.

        With ``keep`` one that trains ends its training early, and goes on with the best snapshot so far.
        """
        return await self._client._run(calls.cancel(job, keep))

    async def events(self, job: Job | str, *, timeout: float | None = None) -> AsyncGenerator[Job, None]:
        """The job at once, at each change, and a last time when it has ended; a lost connection is made again.

        Raises:
            errors.TimedOut: it has not ended within ``timeout`` seconds.
        """
        watch = calls.Watch(job, timeout, self._client._place.deadline)
        while True:
            lost: errors.GanserveError | None = None
            try:
                async with aclosing(self._client._parts(watch.ask())) as parts:
                    async for part in parts:
                        for found in watch.feed(part):
                            yield found
            except (errors.Unreachable, errors.TimedOut) as error:
                lost = error
            if watch.ended:
                return
            watch.lost(lost)
            await asyncio.sleep(watch.pause())

    async def wait(self, job: Job | str, *, timeout: float | None = None, progress: bool | None = None) -> Job:
        """The job when it has succeeded.

        Args:
            timeout: seconds; None: for as long as it takes.
            progress: show a bar; None: where somebody watches.

        Raises:
            errors.JobFailed: it has failed or was cancelled.
            errors.TimedOut: it has not ended in time; it goes on.
        """
        last: Job | None = None
        with Bar(f"job {calls.job_id(job)[:8]}", None, "images", shown=wanted(progress)) as bar:
            async for last in self.events(job, timeout=timeout):
                done, total, note = calls.bar_of(last)
                bar.to(done, total=total, note=note)
        return calls.succeeded(last)


async def _off_loop(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Read a file's parts without holding the event loop up."""
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        yield part
