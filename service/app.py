"""``create_app(settings)``: the parts, their start and end, and the front door before them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import FastAPI

from ganserve.archives import Limits
from ganserve.bucket import BucketStore
from ganserve.kept import KeptSets
from ganserve.place import open_store
from ganserve.repository import Repository
from ganserve.runs import StoredRuns
from ganserve.settings import Settings, load
from service.api import datasets, generate, health, images, jobs, models, morph, page, synthetic, v2, verify
from service.front import Front
from service.http import errors, openapi
from service.http.auth import Auth
from service.inference.batcher import Batcher
from service.inference.catalogue import Catalogue
from service.inference.engine import CPU, Placement
from service.inference.shelf import Opener
from service.jobs import JobStore
from service.observe import tracing
from service.observe.statistics import Statistics
from service.processes import shared
from service.state import Phase, State
from service.uploads import Uploads

# In the order of the documentation. Synthetic data sets come before the uploads, whose names theirs would be one of.
ROUTERS = tuple(
    resource.router
    for resource in (generate, images, verify, morph, synthetic, models, jobs, datasets, health, v2, page)
)
TAGS = ("images", "models", "jobs", "datasets", "v2", "health")

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None, *, open_engine: Opener | None = None) -> Front:
    """The application; ``open_engine`` puts other engines in the place of onnxruntime's.

    Raises:
        SettingsError: a setting in the environment cannot be used.
        DeviceUnavailable: CUDA was asked for and is not there.
    """
    settings = settings or load()
    state = _state(settings, open_engine)
    app = FastAPI(
        title="ganserve",
        summary="Labelled, reproducible images from small GANs",
        version=_version(),
        lifespan=_lifespan(state),
        # Theirs would load scripts from elsewhere; see api/page.py.
        docs_url=None,
        redoc_url=None,
        # Theirs would send a client to whatever host it has named; see http/errors.py.
        redirect_slashes=False,
        openapi_tags=[{"name": name} for name in TAGS],
    )
    # The framework's own bag of names gives way to an object whose parts are known.
    app.state = state  # type: ignore[assignment]
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = lambda: openapi.document(app, prefix=settings.root_path)  # type: ignore[method-assign]
    return Front(app, state, generate.HOT, prefix=settings.root_path)


def _state(settings: Settings, open_engine: Opener | None) -> State:
    limits = Limits(
        archive_bytes=settings.max_upload_bytes,
        pixels=settings.max_upload_pixels,
        seconds=settings.max_upload_seconds,
    )
    shared = BucketStore(settings.kept) if isinstance(settings.kept, str) else None
    if shared is None:
        uploads = Uploads(Path(settings.kept) / "datasets", limits)
    else:
        uploads = Uploads(settings.data / "datasets", limits, KeptSets(shared))
    return State(
        settings=settings,
        auth=Auth.of(settings.token, settings.admin_token),
        catalogue=_catalogue(settings, open_engine),
        jobs=JobStore(settings.jobs_url, check_dataset=uploads.untrainable),
        uploads=uploads,
        runs=StoredRuns(shared) if shared is not None else None,
        telemetry=tracing.telemetry(settings.otlp_endpoint, _version()),
    )


def _catalogue(settings: Settings, open_engine: Opener | None) -> Catalogue:
    upstream = None
    if settings.upstream is not None:
        # Imported where it is used: with its HTTP client it takes a while, and few services have one.
        from service.inference.remote import RemoteEngine, Upstream

        token = settings.engine_token.get_secret_value() if settings.engine_token else None
        upstream = there = Upstream(settings.upstream, timeout=settings.request_timeout, token=token)
        # The file was compared with its card all the same; the other server reads its own copy.
        open_engine = open_engine or (lambda card, content: RemoteEngine(card, there, settings.batch_rows))
    return Catalogue(
        Repository(settings.models, open_store(settings.models, data=settings.data, cache_bytes=settings.cache_bytes)),
        default=settings.default_model,
        placement=Placement(
            "cpu" if upstream else settings.device,
            settings.batch_rows,
            settings.threads,
            timeout=settings.load_timeout,
            allow_inexact=settings.allow_inexact,
        ),
        max_loaded=settings.max_loaded_models,
        watch_interval=settings.watch_interval,
        open_engine=open_engine,
        upstream=upstream,
        unloaded=shared.place("unloaded"),
    )


def _batcher(settings: Settings, catalogue: Catalogue) -> Batcher:
    here = catalogue.upstream is None and catalogue.provider == CPU
    return Batcher(
        # A CPU, or another server, takes a run on each lane. A GPU takes one at a time: a second lane prepares the next
        # and encodes the last one meanwhile.
        lanes=settings.lane_count if catalogue.upstream or catalogue.provider == CPU else 2,
        limit=settings.model_share,
        total=settings.queue_share,
        delay=settings.batch_delay_ms / 1000,
        statistics=Statistics(shared.place("statistics")),
        inline=settings.processes > 1 and here,
    )


def _lifespan(state: State) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[dict[str, Any]]]:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        state.batcher = _batcher(state.settings, state.catalogue)
        with _drain_on_signal(state):
            try:
                await state.catalogue.start()
                for name, reason in state.unwritable.items():
                    log.warning("the folder of %s cannot be written (%s): what changes it is refused", name, reason)
                state.phase = Phase.READY
                # For the process that is compared with its siblings by it.
                yield {"catalogue": state.catalogue}
            finally:
                state.phase = Phase.DRAINING
                await state.catalogue.stop()
                await asyncio.to_thread(state.batcher.close)
                if state.catalogue.upstream is not None:
                    state.catalogue.upstream.close()
                await asyncio.to_thread(state.jobs.close)
                if state.telemetry is not None:
                    await asyncio.to_thread(state.telemetry.close)

    return lifespan


@contextlib.contextmanager
def _drain_on_signal(state: State) -> Iterator[None]:
    """Turn new requests away from the moment the server is told to stop, before it acts on that itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        state.phase = Phase.DRAINING
        state.catalogue.drain()
        then = before[number]
        if callable(then):
            then(number, frame)

    # Where nobody else handles a signal, its default (to end the process) is right already.
    taken = [number for number, handler in before.items() if callable(handler)]
    for number in taken:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def _version() -> str:
    try:
        return version("ganserve")
    except PackageNotFoundError:
        return "0"
