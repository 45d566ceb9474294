"""``create_app(settings)``: lifespan, routers, error handlers; nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from pydantic import SecretStr

from service import errors
from service.api import datasets, generate, health, images, jobs, models
from service.batching import Batcher
from service.catalogue import Catalogue
from service.middleware import BodyLimit, Observe
from service.repository import Repository
from service.settings import Settings

PAGE = Path(__file__).parent / "page"


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Without an admin token in the settings, one is made that nobody knows."""
    settings = settings or Settings()
    if settings.admin_token is None:
        settings = settings.model_copy(update={"admin_token": SecretStr(secrets.token_urlsafe(24))})

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        catalogue = Catalogue(settings, Repository(settings.models))
        cpu = catalogue.provider == "CPUExecutionProvider"
        app.state.catalogue = catalogue
        app.state.batcher = Batcher(
            lanes=settings.lanes if cpu else 1,
            chunk=settings.chunk if cpu else 256,
            max_rows=settings.max_queued_images,
            max_rows_per_model=settings.max_queued_images_per_model,
            delay=settings.batch_delay_ms / 1000,
        )
        await catalogue.start()
        watcher = asyncio.create_task(catalogue.watch())
        app.state.ready = True
        try:
            yield
        finally:
            app.state.ready = False
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
            await asyncio.to_thread(app.state.batcher.close)

    app = FastAPI(
        title="ganserve",
        summary="Labelled, reproducible images from small GANs",
        version=_version(),
        lifespan=lifespan,
        openapi_tags=[{"name": "images"}, {"name": "models"}, {"name": "jobs"}, {"name": "datasets"}, {"name": "health"}],
    )
    app.state.settings = settings
    app.state.ready = app.state.draining = False
    errors.install(app)
    for module in (generate, images, models, jobs, datasets, health):
        app.include_router(module.router)
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, exempt=("/datasets/",))
    app.add_middleware(Observe, access_log=settings.access_log)
    return app


def _version() -> str:
    try:
        return version("ganserve")
    except PackageNotFoundError:
        return "0"
