"""``create_app(settings)``: lifespan, routers, error handlers; nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp, Receive, Scope, Send

from ganserve.repository import Repository
from ganserve.settings import Settings, load
from service.api import Direct, Phase, include_routers, page
from service.http import errors, reference
from service.http.auth import Auth
from service.http.middleware import BodyLimit, Head, Observe
from service.http.revalidation import Revalidation
from service.inference import cores
from service.inference.batching import Batcher
from service.inference.catalogue import Catalogue
from service.inference.engine import CPU
from service.inference.shelf import Opener
from service.observe import tracing

if TYPE_CHECKING:
    from service.inference.remote import Upstream


class Service(FastAPI):
    """The application, and before it the answers and the calls that need none of its dispatch."""

    # Unset where every request is traced or logged.
    remembered: Revalidation | None = None
    direct: Direct
    observed: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 304 from memory, take the hot calls directly, and the rest as every application does."""
        if self.remembered is not None and scope["type"] == "http" and scope["method"] == "GET":
            began = time.perf_counter()
            if (found := self.remembered.find(scope)) is not None:
                messages, counter = found
                for message in messages:
                    await send(message)
                counter.count(time.perf_counter() - began)
                return
        if self.direct.takes(scope):
            await self.observed(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings | None = None, *, open_engine: Opener | None = None) -> FastAPI:
    """The application; ``open_engine`` puts other engines in the place of onnxruntime's.

    Raises:
        SettingsError: a setting in the environment cannot be used.
        DeviceUnavailable: CUDA was asked for and is not there.
    """
    settings = settings or load()
    telemetry = tracing.telemetry(settings.otlp_endpoint, _version())
    upstream: Upstream | None = None
    if settings.upstream is not None:
        from service.inference.remote import Upstream

        token = settings.engine_token.get_secret_value() if settings.engine_token else None
        upstream = Upstream(settings.upstream, timeout=settings.request_timeout, token=token)
    catalogue = Catalogue(
        Repository(settings.models),
        default=settings.default_model,
        device="cpu" if upstream else settings.device,
        max_rows=settings.batch_rows,
        threads=settings.threads,
        max_loaded=settings.max_loaded_models,
        watch_interval=settings.watch_interval,
        load_timeout=settings.load_timeout,
        open_engine=open_engine or (_remote(upstream, settings) if upstream else None),
        upstream=upstream,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.batcher = Batcher(
            # A CPU, or another server, takes a run on each lane. A GPU takes one at a time: a second lane prepares
            # the next and encodes the last one meanwhile.
            lanes=settings.lane_count if upstream or catalogue.provider == CPU else 2,
            limit=settings.max_queued_images,
            total=settings.queue_limit,
            delay=settings.batch_delay_ms / 1000,
            inline=settings.workers > 1 and upstream is None and catalogue.provider == CPU,
            cores=cores.mine(max(settings.lanes or 1, settings.cores // settings.threads))
            if upstream is None and catalogue.provider == CPU
            else None,
        )
        with _drain_on_signal(app):
            try:
                await catalogue.start()
                app.state.phase = Phase.READY
                yield
            finally:
                app.state.phase = Phase.DRAINING
                await catalogue.stop()
                await asyncio.to_thread(app.state.batcher.close)
                if upstream is not None:
                    upstream.close()
                if jobs := getattr(app.state, "jobs", None):
                    await asyncio.to_thread(jobs.close)
                if telemetry is not None:
                    await asyncio.to_thread(telemetry.close)

    app = Service(
        title="ganserve",
        summary="Labelled, reproducible images from small GANs",
        version=_version(),
        lifespan=lifespan,
        redoc_url=None,
        openapi_tags=[{"name": name} for name in ("images", "models", "jobs", "datasets", "v2", "health")],
    )
    app.state.settings = settings
    app.state.telemetry = telemetry
    app.state.auth = Auth.of(settings.token, settings.admin_token)
    app.state.catalogue = catalogue
    app.state.phase = Phase.STARTING
    app.state.revalidation = Revalidation(app.state)
    if telemetry is None and not settings.access_log:
        app.remembered = app.state.revalidation
    errors.install(app)
    include_routers(app)
    app.include_router(page.router)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.direct = Direct(app)
    app.observed = Observe(BodyLimit(app.direct, settings.max_body_bytes, ()), settings.access_log, telemetry)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, exempt=("/datasets/",))
    app.add_middleware(Head)
    app.add_middleware(Observe, access_log=settings.access_log, telemetry=telemetry)
    return app


def _remote(upstream: Upstream, settings: Settings) -> Opener:
    from service.inference.remote import RemoteEngine

    # The file was compared with its card all the same; the other server reads its own copy.
    return lambda card, content: RemoteEngine(card, upstream, settings.batch_rows)


@contextlib.contextmanager
def _drain_on_signal(app: FastAPI) -> Any:
    """Turn new requests away from the moment the server is told to stop, before it acts on that itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        app.state.phase = Phase.DRAINING
        app.state.catalogue.drain()
        then = before[signal.Signals(number)]
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


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        app.openapi_schema = reference.complete(schema)
    return app.openapi_schema


def _version() -> str:
    try:
        return version("ganserve")
    except PackageNotFoundError:
        return "0"
