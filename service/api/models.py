"""``/models``: cards, samples, and the live pointer."""

from __future__ import annotations

import asyncio
from types import EllipsisType
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ganserve import charts, marks
from ganserve.card import LivePointer, ModelCard, ModelCorrupt, ModelUnreadable, PointerMoved, RepositoryError
from ganserve.store import Away, Unreadable
from service import report
from service.http.answers import ALONE, REVALIDATE, etag, holds, matches
from service.http.errors import Conflict, NotFound, PreconditionFailed, Unavailable
from service.http.openapi import ADMIN, KNOWN, Sample, told
from service.inference.catalogue import Catalogue
from service.state import Guarded, of, require_admin, require_user

router = APIRouter(prefix="/models", tags=["models"], route_class=Guarded)

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


class VersionCard(ModelCard):
    """A card, with what was measured after its version was published."""

    measures: list[dict[str, Any]] | None = Field(
        default=None, exclude_if=lambda value: value is None, description="later measurements, oldest first; if any"
    )


class Promotion(BaseModel):
    """Which version is to be live."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1, le=2**31, strict=True)


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
    try:
        versions = repository.versions(name)
    except RepositoryError as error:
        versions, reason = [], reason or str(error)
    return ModelSummary(
        name=name,
        live=pointer.version if pointer else None,
        previous=pointer.previous if pointer else None,
        versions=versions,
        default=name == catalogue.default,
        left_out=reason,
        card=card,
    )


def _pointer_tag(pointer: LivePointer | None) -> str:
    return etag(pointer.model_dump_json() if pointer else "none")


# Plain functions: they read the disk, so they belong on a thread.
@router.get(
    "",
    summary="All models",
    dependencies=[Depends(require_user)],
    openapi_extra=told((401,), Sample(200, "all of them", "/models")),
)
def models(request: Request) -> list[ModelSummary]:
    """Sorted by name."""
    catalogue = of(request).catalogue
    return [_summary(catalogue, name) for name in catalogue.repository.names()]


@router.get(
    "/{name}",
    summary="One model",
    dependencies=[Depends(require_user)],
    openapi_extra=told(
        (401, 404, 503),
        Sample(200, "one", "/models/mnist-projgan"),
        Sample(404, "no such model", "/models/nothing"),
    ),
)
def model(request: Request, response: Response, name: str) -> ModelSummary:
    """Its versions and the live version's card; the entity tag is the live pointer's, for ``If-Match`` of PUT."""
    catalogue = of(request).catalogue
    catalogue.repository.versions(name)
    response.headers["ETag"] = _pointer_tag(catalogue.repository.live_pointer(name))
    return _summary(catalogue, name)


@router.get(
    "/{name}/{version}",
    summary="One version's card",
    dependencies=[Depends(require_user)],
    openapi_extra=told(
        (401, 404, 410, 422, 503),
        Sample(200, "one version", "/models/mnist-projgan/1"),
        Sample(404, "no such version", "/models/mnist-projgan/999"),
        Sample(422, "versions are numbers", "/models/mnist-projgan/one"),
    ),
)
def version(request: Request, name: str, version: Version) -> VersionCard:
    """What it is, how it was made, how good it is; ``measures`` where it was measured again since."""
    repository = of(request).catalogue.repository
    card = repository.card(name, version)
    return VersionCard(**card.model_dump(), measures=repository.measures(name, version) or None)


@router.get(
    "/{name}/{version}/samples.png",
    summary="Samples of one version",
    dependencies=[Depends(require_user)],
    response_class=Response,
    responses={200: {"description": "The sheet", "content": {"image/png": {}}}},
    openapi_extra=told(
        (304, 401, 404, 410, 422, 503),
        Sample(200, "a row a class", "/models/mnist-projgan/1/samples.png", file="samples.png"),
        Sample(304, "the client has it", "/models/mnist-projgan/1/samples.png", headers=KNOWN),
        Sample(404, "no such version", "/models/mnist-projgan/999/samples.png"),
        Sample(422, "versions are numbers", "/models/mnist-projgan/one/samples.png"),
    ),
)
def samples(request: Request, name: str, version: Version) -> Response:
    """One row a class, fixed seeds."""
    found = of(request).catalogue.repository.samples(name, version)
    if found is None:
        raise NotFound(f"{name} version {version} has no samples.png")
    # Of versions from before there were marks, the file has none.
    content = marks.insert(found)
    headers = {"Cache-Control": "max-age=86400", "ETag": etag(content), **ALONE}
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="image/png")


@router.get(
    "/{name}/{version}/report",
    summary="Report of one version",
    dependencies=[Depends(require_user)],
    response_class=Response,
    responses={200: {"description": "The page", "content": {"text/html": {}}}},
    openapi_extra=told(
        (304, 401, 404, 410, 422, 503),
        Sample(200, "figures, curves, samples", "/models/mnist-projgan/1/report", file="report.html"),
        Sample(304, "the client has it", "/models/mnist-projgan/1/report", headers=KNOWN),
        Sample(404, "no such version", "/models/mnist-projgan/999/report"),
        Sample(422, "versions are numbers", "/models/mnist-projgan/one/report"),
    ),
)
def version_report(request: Request, name: str, version: Version) -> Response:
    """Figures, measurements, curves where they are kept, and samples, as one page that needs nothing else."""
    repository = of(request).catalogue.repository
    card = repository.card(name, version)
    sheet = repository.samples(name, version)
    curves = charts.read(repository.logged(name, version) or b"")
    content = report.page(card, repository.measures(name, version), curves, sheet)
    headers = {**report.HEADERS, "Cache-Control": REVALIDATE, "ETag": etag(content)}
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="text/html; charset=utf-8")


@router.delete(
    "/{name}/{version}",
    status_code=204,
    summary="Remove a version for good",
    dependencies=[Depends(require_admin)],
    openapi_extra=told(
        (*ADMIN, 404, 409, 410, 422, 503),
        Sample(404, "no such version", "/models/mnist-projgan/999"),
        Sample(422, "versions are numbers", "/models/mnist-projgan/one"),
    ),
)
async def remove(request: Request, name: str, version: Version) -> Response:
    """Take away its files, card, samples and measurements. The live version stays; the number is never used again."""
    catalogue = of(request).catalogue
    await asyncio.to_thread(catalogue.repository.remove, name, version)
    await catalogue.follow(name)
    return Response(status_code=204)


@router.put(
    "/{name}/live",
    summary="Promote or roll back",
    dependencies=[Depends(require_admin)],
    openapi_extra=told(
        (*ADMIN, 400, 404, 409, 410, 412, 413, 415, 422, 503),
        Sample(200, "version 1 answers from now on", "/models/mnist-projgan/live", '{"version": 1}'),
        Sample(400, "broken JSON", "/models/mnist-projgan/live", '{"version": 1'),
        Sample(404, "no such version", "/models/mnist-projgan/live", '{"version": 999}'),
        Sample(415, "packed", "/models/mnist-projgan/live", '{"version": 1}', headers=("Content-Encoding: gzip",)),
        Sample(
            412,
            "somebody was faster",
            "/models/mnist-projgan/live",
            '{"version": 1}',
            headers=('If-Match: "another"',),
        ),
        Sample(422, "versions are numbers", "/models/mnist-projgan/live", '{"version": "one"}'),
    ),
)
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
    catalogue = of(request).catalogue
    repository = catalogue.repository
    expected: LivePointer | EllipsisType | None = ...
    if if_match is not None:
        expected = await asyncio.to_thread(repository.live_pointer, name)
        if not holds(if_match, _pointer_tag(expected)):
            raise PreconditionFailed(f"the live version of {name} has changed: read /models/{name} again")
    try:
        try:
            await catalogue.engine(name, body.version)
        except ModelUnreadable as error:
            if isinstance(error.__cause__, Unreadable) and not isinstance(error.__cause__, Away):
                # What stands there is no file that anyone could read, and asking again changes nothing.
                raise
            # Nothing is known against the version: the store or the disk may answer again.
            raise Unavailable(f"nothing was changed: {error}", retry_after=5) from error
        promoted = await asyncio.to_thread(repository.promote, name, body.version, expected)
    except PointerMoved as error:
        raise PreconditionFailed(str(error)) from error
    except ModelCorrupt as error:
        raise Conflict(f"nothing was changed: {error}") from error
    await catalogue.follow(name)
    response.headers["ETag"] = _pointer_tag(promoted)
    return promoted
