"""``/models``: cards, samples, and the live pointer."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ganserve.card import LivePointer, ModelCard, ModelCorrupt, RepositoryError
from service.api.generate import matches
from service.http.auth import require_admin, require_user
from service.http.errors import Conflict, NotFound, PreconditionFailed
from service.inference.catalogue import Catalogue

router = APIRouter(prefix="/models", tags=["models"])

Version = Annotated[int, Path(ge=1, le=2**31)]


class ModelSummary(BaseModel):
    """A model with its versions; ``card`` is the live version's."""

    name: str
    live: int | None
    previous: int | None
    versions: list[int]
    default: bool
    left_out: str | None = Field(description="why it is not served, where it is not")
    card: ModelCard | None


class Promotion(BaseModel):
    """Which version is to be live."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1, le=2**31, strict=True)


def _catalogue(request: Request) -> Catalogue:
    catalogue: Catalogue = request.app.state.catalogue
    return catalogue


def _summary(catalogue: Catalogue, name: str) -> ModelSummary:
    repository = catalogue.repository
    reason = "unloaded" if name in catalogue.withdrawn else catalogue.left_out.get(name)
    pointer = catalogue.pointers.get(name)
    card = None
    if pointer is not None:
        try:
            card = repository.card(name, pointer.version)
        except RepositoryError as error:
            reason = reason or str(error)
    return ModelSummary(
        name=name,
        live=pointer.version if pointer else None,
        previous=pointer.previous if pointer else None,
        versions=repository.versions(name),
        default=name == catalogue.default,
        left_out=reason,
        card=card,
    )


def _pointer_tag(pointer: LivePointer | None) -> str:
    return _tag((pointer.model_dump_json() if pointer else "none").encode())


def _tag(content: bytes) -> str:
    return f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


# Plain functions: they read the disk, so they belong on a thread.
@router.get("", summary="All models", dependencies=[Depends(require_user)])
def models(request: Request) -> list[ModelSummary]:
    """Sorted by name."""
    catalogue = _catalogue(request)
    return [_summary(catalogue, name) for name in catalogue.repository.names()]


@router.get("/{name}", summary="One model", dependencies=[Depends(require_user)])
def model(request: Request, response: Response, name: str) -> ModelSummary:
    """Its versions and the live version's card; the entity tag is the live pointer's, for ``If-Match`` of PUT."""
    catalogue = _catalogue(request)
    summary = _summary(catalogue, name)
    response.headers["ETag"] = _pointer_tag(catalogue.repository.live_pointer(name))
    return summary


@router.get("/{name}/{version}", summary="One version's card", dependencies=[Depends(require_user)])
def version(request: Request, name: str, version: Version) -> ModelCard:
    """What it is, how it was made, how good it is."""
    return _catalogue(request).repository.card(name, version)


@router.get(
    "/{name}/{version}/samples.png",
    summary="Samples of one version",
    dependencies=[Depends(require_user)],
    response_class=Response,
    responses={200: {"description": "The sheet", "content": {"image/png": {}}}},
)
def samples(request: Request, name: str, version: Version) -> Response:
    """One row a class, fixed seeds."""
    try:
        content = _catalogue(request).repository.samples_path(name, version).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{name} version {version} has no samples.png") from None
    headers = {"Cache-Control": "max-age=86400", "ETag": _tag(content)}
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="image/png")


@router.put("/{name}/live", summary="Promote or roll back", dependencies=[Depends(require_admin)])
async def promote(
    request: Request,
    response: Response,
    name: str,
    body: Promotion,
    if_match: Annotated[str | None, Header()] = None,
) -> LivePointer:
    """Make a version live; requests under way finish on the old one. It is loaded and run once before it is.

    With ``If-Match``, the tag that GET gave: 412 if somebody else has moved the pointer since.
    """
    catalogue = _catalogue(request)
    repository = catalogue.repository
    if if_match is not None and if_match.strip() != "*":
        tag = _pointer_tag(await asyncio.to_thread(repository.live_pointer, name))
        if tag not in (part.strip() for part in if_match.split(",")):
            raise PreconditionFailed(f"the live version of {name} has changed: read /models/{name} again")
    try:
        await catalogue.engine(name, body.version)
        pointer = await asyncio.to_thread(repository.promote, name, body.version)
    except ModelCorrupt as error:
        raise Conflict(f"nothing was changed: {error}") from error
    await catalogue.follow(name)
    response.headers["ETag"] = _pointer_tag(pointer)
    return pointer
