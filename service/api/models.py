"""``/models``: cards, samples, and the live pointer."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from service.auth import require_admin, require_user
from service.catalogue import Catalogue
from service.errors import Problem
from service.repository import LivePointer, ModelCard, ModelCorrupt, Repository, RepositoryError

router = APIRouter(prefix="/models", tags=["models"])

Version = Annotated[int, Path(ge=1)]


class ModelSummary(BaseModel):
    """A model with its versions; ``card`` is the live version's."""

    name: str
    live: int | None
    versions: list[int]
    default: bool
    left_out: str | None = None
    card: ModelCard | None = None


class Promotion(BaseModel):
    """Which version is to be live."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1, strict=True)


def _summary(request: Request, name: str) -> ModelSummary:
    catalogue: Catalogue = request.app.state.catalogue
    repository = catalogue.repository
    reason = catalogue.left_out.get(name)
    live = catalogue.live.get(name)
    card = None
    try:
        card = repository.card(name, live) if live else None
    except RepositoryError as error:
        reason = reason or str(error)
    return ModelSummary(
        name=name,
        live=live,
        versions=repository.versions(name),
        default=name == request.app.state.settings.default_model,
        left_out=reason,
        card=card,
    )


@router.get("", summary="All models", dependencies=[Depends(require_user)])
def models(request: Request) -> list[ModelSummary]:
    """Sorted by name."""
    repository: Repository = request.app.state.catalogue.repository
    return [_summary(request, name) for name in repository.names()]


@router.get("/{name}", summary="One model", dependencies=[Depends(require_user)])
def model(request: Request, name: str) -> ModelSummary:
    """Its versions and the live version's card."""
    return _summary(request, name)


@router.get("/{name}/{version}", summary="One version's card", dependencies=[Depends(require_user)])
def version(request: Request, name: str, version: Version) -> ModelCard:
    """What it is, how it was made, how good it is."""
    repository: Repository = request.app.state.catalogue.repository
    return repository.card(name, version)


@router.get(
    "/{name}/{version}/samples.png",
    summary="Samples of one version",
    dependencies=[Depends(require_user)],
    response_class=FileResponse,
)
def samples(request: Request, name: str, version: Version) -> FileResponse:
    """One row a class, fixed seeds."""
    path = request.app.state.catalogue.repository.samples_path(name, version)
    if not path.is_file():
        raise Problem(404, f"{name} version {version} has no samples.png")
    return FileResponse(path, media_type="image/png", headers={"Cache-Control": "public, max-age=86400"})


@router.put("/{name}/live", summary="Promote or roll back", dependencies=[Depends(require_admin)])
async def promote(request: Request, name: str, body: Promotion) -> LivePointer:
    """Make a version live; requests in flight finish on the old one."""
    catalogue: Catalogue = request.app.state.catalogue
    try:
        pointer = await asyncio.to_thread(catalogue.repository.promote, name, body.version)
    except ModelCorrupt as error:
        raise Problem(409, f"nothing was changed: {error}") from error
    await catalogue.refresh()
    return pointer
