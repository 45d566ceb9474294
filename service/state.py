"""The state of the application: one object, made once, that every call finds through :func:`of`."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import anyio
from anyio import CapacityLimiter
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from ganserve import files
from ganserve.runs import StoredRuns
from ganserve.settings import Settings
from service.http.auth import Auth
from service.http.errors import BadRequest, Unavailable
from service.http.revalidation import Revalidation
from service.inference.batcher import Batcher
from service.inference.catalogue import Catalogue
from service.job import State as JobState
from service.jobs import JobsError, JobStore, JobsUnavailable
from service.observe.tracing import Telemetry
from service.plan import Bounds
from service.uploads import Uploads

QUEUE_LOOK_SECONDS = 1.0
# Calls of the queue at one time, and how long each is waited for: more than a slow database takes.
QUEUE_THREADS, QUEUE_SECONDS = 8, 30.0

T = TypeVar("T")

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Counts = tuple[dict[str, int] | None, int | None]


class Phase(Enum):
    """Where a process is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass
class State:
    """What the calls work with.

    Attributes:
        batcher: there from the application's start on.
        jobs: the retraining queue; connects at its first use.
        runs: what trainings put into an object store, where there is one.
        most: what one request may ask for.
        remembered: the answers 304 that are given from memory.
    """

    settings: Settings
    auth: Auth
    catalogue: Catalogue
    jobs: JobStore
    uploads: Uploads
    runs: StoredRuns | None = None
    telemetry: Telemetry | None = None
    phase: Phase = Phase.STARTING
    batcher: Batcher = field(init=False)
    most: Bounds = field(init=False)
    remembered: Revalidation = field(init=False)
    _counted: tuple[float, Counts] | None = None
    _looking: threading.Lock = field(default_factory=threading.Lock)
    _threads: CapacityLimiter = field(default_factory=partial(CapacityLimiter, QUEUE_THREADS))

    def __post_init__(self) -> None:
        self.most = Bounds.of(self.settings)
        self.remembered = Revalidation(self.catalogue, self.auth, lambda: self.phase is Phase.READY)

    @property
    def unwritable(self) -> dict[str, str]:
        """Folders that cannot be written, by their settings, and why: a replica may well be meant to read only."""
        places = {
            "GANSERVE_DATA": self.settings.data,
            "GANSERVE_STORE": self.settings.store,
            "GANSERVE_MODELS": self.settings.models,
        }
        folders = {name: place.absolute() for name, place in places.items() if isinstance(place, Path)}
        return {name: reason for name, folder in folders.items() if (reason := files.unwritable(folder))}

    async def queue(self, call: Callable[..., T], *arguments: Any) -> T:
        """What a call of the queue returns, made on a thread: a database that hangs holds a few of them.

        Raises:
            JobsUnavailable: it takes too long. It goes on all the same.
        """
        loop, borrower = asyncio.get_running_loop(), object()
        answer: asyncio.Future[T] = loop.create_future()
        work = partial(contextvars.copy_context().run, call, *arguments)

        def told(result: Any, error: BaseException | None) -> None:
            self._threads.release_on_behalf_of(borrower)
            if not answer.done():
                answer.set_result(result) if error is None else answer.set_exception(error)

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:  # The queue has such of its own; it is raised where it is waited for.
                error = raised
            with contextlib.suppress(RuntimeError):  # of a loop that has ended
                loop.call_soon_threadsafe(told, result, error)

        try:
            with anyio.fail_after(QUEUE_SECONDS):
                # Held until the thread ends, not until nobody waits for it.
                await self._threads.acquire_on_behalf_of(borrower)
                threading.Thread(target=run, daemon=True, name="queue").start()
                return await answer
        except TimeoutError:
            raise JobsUnavailable(
                f"the queue's database does not answer within {QUEUE_SECONDS:g} s: try again shortly; what was asked "
                "for may be done"
            ) from None

    def queue_counts(self) -> Counts:
        """Jobs by state and how many workers live; None for what cannot be told just now. At most one look a second,
        and one at a time."""
        if self._counted is not None and time.monotonic() - self._counted[0] < QUEUE_LOOK_SECONDS:
            return self._counted[1]
        if not self._looking.acquire(blocking=False):
            lately = self._counted is not None and time.monotonic() - self._counted[0] < QUEUE_SECONDS
            return self._counted[1] if self._counted is not None and lately else (None, None)
        try:
            return self._look()
        finally:
            self._looking.release()

    def _look(self) -> Counts:
        if self.settings.jobs_db is None and not (self.settings.data / "jobs.sqlite").exists():
            # Nothing was ever asked for, and looking shall not make the file.
            return dict.fromkeys(get_args(JobState), 0), 0
        try:
            counts: Counts = (self.jobs.counts(), len(self.jobs.workers()))
        except JobsError:
            counts = (None, None)
        self._counted = (time.monotonic(), counts)
        return counts


def of(request: Request) -> State:
    """The state of the application that a request came to."""
    state: State = request.app.state
    return state


def prefix(request: Request) -> str:
    """What the addresses in answers begin with: the path under which a proxy offers the service."""
    return of(request).settings.root_path.rstrip("/")


def check_ready(request: Request) -> None:
    """Raises Unavailable while the process starts or drains."""
    phase = of(request).phase
    if phase is not Phase.READY:
        raise Unavailable(f"the service is {phase.value}: ask another replica, or again in a moment")


def admit(request: Request) -> None:
    """Raises Unauthorized without the token that is asked for, Unavailable while starting or draining."""
    app = of(request)
    if app.auth.user is not None:
        app.auth.check_user(_authorization(request))
    if app.phase is not Phase.READY:
        check_ready(request)


def _authorization(request: Request) -> str | None:
    """Raises BadRequest where there are two: a proxy may have checked the other one."""
    given = request.headers.getlist("authorization")
    if len(given) > 1:
        raise BadRequest(f"the header Authorization is given {len(given)} times: send it once")
    return given[0] if given else None


# What follows is for routes to depend on: coroutines, because a plain function costs a thread hop a request.


async def require_user(request: Request) -> None:
    """Dependency of the calls that generate."""
    of(request).auth.check_user(_authorization(request))


async def require_admin(request: Request) -> None:
    """Dependency of the admin calls."""
    of(request).auth.check_admin(_authorization(request))


class Guarded(APIRoute):
    """A route that asks for its token before it reads a body; the framework reads the body first."""

    def get_route_handler(self) -> Handler:
        """The framework's, behind the checks of this route."""
        handle = super().get_route_handler()
        checks = [one.dependency for one in self.dependencies if one.dependency in (require_user, require_admin)]

        async def checked(request: Request) -> Response:
            for check in checks:
                await check(request)
            return await handle(request)

        return checked


async def _jobs(request: Request) -> JobStore:
    return of(request).jobs


async def _uploads(request: Request) -> Uploads:
    return of(request).uploads


Store = Annotated[JobStore, Depends(_jobs)]
Kept = Annotated[Uploads, Depends(_uploads)]
