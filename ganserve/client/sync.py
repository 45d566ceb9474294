"""The client for ordinary programs: requests are carried one after another."""

from __future__ import annotations

import time
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
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


class Client:
    """A connection to a service; every call raises what ``ganserve.errors`` names.

    >>> client = Client()
    >>> images = client.generate(label=3, n=16, seed=42)
    >>> images.images.shape, images.class_names[images.labels[0]], images.seeds[:2].tolist()
    ((16, 28, 28, 1), '3', [42, 43])

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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._place = Place.of(url, token, timeout, deadline)
        self._http = httpx.Client(transport=transport, **self._place.options())
        # For those who never close it, as in Client().models().
        self._closing = weakref.finalize(self, self._http.close)
        self._known = generating.Known()
        self.jobs = Jobs(self)

    def generate(
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

        >>> Client().generate(label=["3", 7], n=4, seed=0).labels.tolist()
        [3, 7, 3, 7]
        >>> Client().generate(seeds=[5, 99], model="mnist-projgan", version=1).addresses
        ['/images/mnist-projgan/1/0/5.png', '/images/mnist-projgan/1/1/99.png']

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
            return self._run(generating.generate(self._known, asked, bar.to))

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
    ) -> Iterator[Images]:
        """The rows of a synthetic data set in batches, in constant memory; ``offset`` goes on where a reader left off.

        >>> [len(images) for images in Client().stream(n=100, batch=40)]
        [40, 40, 20]

        Args:
            n: rows; None: without end.
            seed: of row 0; row ``i`` is the image of ``seed + i``.
            balanced: the classes in turn; False: each row's class is drawn from its seed.
        """
        rows = generating.Rows(self._known, n, batch, model, version, seed, offset, balanced, scaling(truncation))
        return self._batches(rows)

    def _batches(self, rows: generating.Rows) -> Iterator[Images]:
        while not rows.ended:
            yield self._run(rows.following())

    def models(self) -> list[Model]:
        """All models, by name.

        >>> [model.name for model in Client().models() if model.default]
        ['mnist-projgan']
        """
        return self._run(calls.models())

    def model(self, name: str) -> Model:
        """One model with its versions and the live version's card.

        >>> Client().model("mnist-projgan").class_names[:3]
        ('0', '1', '2')
        """
        return self._run(calls.model(name))

    def card(self, name: str, version: int) -> Mapping[str, Any]:
        """What a version is, how it was made, how good it is.

        >>> Client().card("mnist-projgan", 1)["latent_recipe"]
        'philox-normal/v1'
        """
        return self._run(calls.card(name, version))

    def promote(self, name: str, version: int) -> Model:
        """Make a version live, also an earlier one; the model as it is then. Needs the admin token."""
        return self._run(calls.promote(name, version))

    def verify(self, picture: bytes | str | Path, *, address: str | None = None) -> Verdict:
        """Whether a picture is what stands at the address that it carries; true for a match.

        Args:
            picture: a PNG or WebP, or where it lies.
            address: in place of the one that it carries: a path as ``addresses`` has them, or a query as ``/generate``
                takes it, such as ``model=mnist-projgan&version=5&label=3&seed=42&n=16``.
        """
        return self._run(calls.verify(calls.picture_of(picture), address))

    def upload(self, name: str, source: str | Path, *, progress: bool | None = None) -> Dataset:
        """Send a ZIP or a folder of class folders, ``CLASS/IMAGE``, to train on. Needs the admin token.

        Args:
            progress: show a bar; None: where somebody watches.
        """
        archive = calls.archive_of(source)
        with archive, Bar(f"upload {name}", archive.size, "bytes", shown=wanted(progress)) as bar:
            return self._run(calls.upload(name, archive, bar.to))

    def close(self) -> None:
        """Let go of the connections."""
        self._closing()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._place.name!r})"

    def _run(self, flow: Flow[T]) -> T:
        try:
            ask = next(flow)
            while True:
                ask = flow.send(self._answer(ask))
        except StopIteration as end:
            return cast(T, end.value)

    def _answer(self, ask: Ask) -> Reply:
        """The answer that stands; passing refusals are waited out."""
        patience = self._place.patience(ask)
        while True:
            parts = []
            with self._open(ask, patience) as response:
                for part in response.iter_bytes():
                    patience.check()
                    parts.append(part)
            reply = Reply(response.status_code, response.headers, b"".join(parts))
            pause = patience.pause(reply)
            if pause is None:
                return reply
            time.sleep(pause)

    def _parts(self, ask: Ask) -> Generator[bytes, None, None]:
        """The parts of an answer as they come; refusals as :meth:`_answer`."""
        patience = self._place.patience(ask)
        while True:
            with self._open(ask, patience) as response:
                if response.status_code == 200:
                    yield from response.iter_bytes()
                    return
                reply = Reply(response.status_code, response.headers, response.read())
            pause = patience.pause(reply)
            if pause is None:
                checked(reply)
                return
            time.sleep(pause)

    @contextmanager
    def _open(self, ask: Ask, patience: Patience) -> Iterator[httpx.Response]:
        """A response whose body is still to be read."""
        with self._place.translated(), closing(patience.wait(lambda: _sent(self._http, self._place, ask))) as response:
            yield response


def _sent(http: httpx.Client, place: Place, ask: Ask) -> httpx.Response:
    content = None if ask.body is None else iter(ask.body())
    return http.send(http.build_request(content=content, **place.request(ask)), stream=True)


class Jobs:
    """Retraining, as ``client.jobs``. Every call needs the admin token.

    >>> client = Client(token=admin_token)
    >>> job = client.jobs.submit("pets", "cgan", "digits", 20000, overrides={"batch": 64})
    >>> job.state, client.jobs.cancel(job).state
    ('queued', 'cancelled')
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def submit(
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
        return self._client._run(calls.submit(request, key))

    def list(self, state: str | None = None, *, limit: int = 20, offset: int = 0) -> list[Job]:
        """Jobs, newest first; those in ``state`` only, where it is given."""
        return self._client._run(calls.jobs(state, limit, offset))

    def get(self, job: Job | str) -> Job:
        """A job as it stands now."""
        return self._client._run(calls.job(job))

    def cancel(self, job: Job | str, *, keep: bool = False) -> Job:
        """Stop a job; a running one ends within about a second.

        With ``keep`` one that trains ends its training early, and goes on with the best snapshot so far.
        """
        return self._client._run(calls.cancel(job, keep))

    def events(self, job: Job | str, *, timeout: float | None = None) -> Iterator[Job]:
        """The job at once, at each change, and a last time when it has ended; a lost connection is made again.

        Raises:
            errors.TimedOut: it has not ended within ``timeout`` seconds.
        """
        watch = calls.Watch(job, timeout, self._client._place.deadline)
        while True:
            lost: errors.GanserveError | None = None
            try:
                with closing(self._client._parts(watch.ask())) as parts:
                    for part in parts:
                        yield from watch.feed(part)
            except (errors.Unreachable, errors.TimedOut) as error:
                lost = error
            if watch.ended:
                return
            watch.lost(lost)
            time.sleep(watch.pause())

    def wait(self, job: Job | str, *, timeout: float | None = None, progress: bool | None = None) -> Job:
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
            for last in self.events(job, timeout=timeout):
                done, total, note = calls.bar_of(last)
                bar.to(done, total=total, note=note)
        return calls.succeeded(last)
