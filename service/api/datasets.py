"""``/datasets``: a user's own labelled images, as ZIPs of class folders. Every call needs the admin token."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from service.http.answers import ALONE
from service.http.errors import ClientGone, Conflict, NotFound, UnsupportedMedia
from service.http.openapi import ADMIN, Sample, told
from service.jobs import JobStore
from service.schema import refuse_unknown
from service.state import Guarded, Kept, Store, of, prefix, require_admin
from service.uploads import RESERVED, TooLarge, Upload

# What clients call a ZIP, with what curl says when it is told nothing.
ZIP_TYPES = frozenset(
    {
        "application/zip",
        "application/x-zip-compressed",
        "application/x-zip",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
    }
)

router = APIRouter(prefix="/datasets", tags=["datasets"], dependencies=[Depends(require_admin)], route_class=Guarded)


class DatasetList(BaseModel):
    """What a job can be trained on without the network."""

    uploads: list[Upload]
    built_in: list[str]


_BODY = {"required": True, "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}


@router.put(
    "/{name}",
    status_code=201,
    summary="Upload a data set",
    openapi_extra=told(
        (*ADMIN, 409, 413, 415, 422, 507),
        Sample(201, "a ZIP of class folders", "/datasets/letters", "@letters.zip", kind="application/zip"),
        Sample(409, "the name is taken", "/datasets/letters", "@letters.zip", kind="application/zip"),
        Sample(415, "not a ZIP", "/datasets/letters-2", "cats", kind="text/plain"),
        Sample(422, "not a ZIP of class folders", "/datasets/letters-2", "cats", kind="application/zip"),
        requestBody=_BODY,
    ),
)
async def put(
    name: str,
    request: Request,
    response: Response,
    uploads: Kept,
    skip: Annotated[
        Literal["invalid"] | None,
        Query(description="`invalid` leaves out pictures that cannot be decoded, a tenth of them at most"),
    ] = None,
) -> Upload:
    """Take a ZIP of class folders (``<class>/<image>``) as the body; keep all of it, or nothing.

    Folders around the classes, and ``train/`` ``test/`` ``val/`` above them, are understood, and so is
    ``metadata.csv``; what is no picture is passed over. The answer reports on the set.

    curl -T pets.zip -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/zip" .../datasets/pets
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower() or "application/zip"
    if kind not in ZIP_TYPES:
        raise UnsupportedMedia(f"{kind} is not taken: send the ZIP itself as the body, as application/zip")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        told = {"Accept-Encoding": "identity"}
        raise UnsupportedMedia(f"a body in {coding} is not taken: send the ZIP itself as it is", headers=told)
    refuse_unknown(request.scope["query_string"], "skip")
    uploads.check_name(name)
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > uploads.limits.archive_bytes:
        raise TooLarge(f"the archive is larger than {uploads.limits.archive_bytes} bytes")
    with uploads.staging() as staging:
        try:
            archive = await uploads.receive(request.stream(), staging)
        except ClientDisconnect:
            raise ClientGone("the client hung up: nothing of the archive is kept") from None
        upload = await run_in_threadpool(uploads.keep, name, archive, staging, skip_invalid=skip == "invalid")
    response.headers["Location"] = f"{prefix(request)}/datasets/{name}"
    return upload


@router.get("", summary="List data sets", openapi_extra=told(ADMIN, Sample(200, "all of them", "/datasets")))
def page(uploads: Kept) -> DatasetList:
    """Uploads and what is built in."""
    return DatasetList(uploads=uploads.list(), built_in=sorted(RESERVED))


@router.get(
    "/{name}",
    summary="One uploaded data set",
    openapi_extra=told(
        (*ADMIN, 404),
        Sample(200, "one", "/datasets/letters"),
        Sample(404, "not uploaded", "/datasets/nothing"),
    ),
)
def get(name: str, uploads: Kept) -> Upload:
    """Its classes, with how many images each has, and the report on it."""
    return uploads.get(name)


@router.get(
    "/{name}/samples.png",
    summary="Samples of an uploaded data set",
    response_class=Response,
    responses={200: {"description": "The sheet", "content": {"image/png": {}}}},
    openapi_extra=told(
        (*ADMIN, 404),
        Sample(404, "not uploaded", "/datasets/nothing/samples.png"),
    ),
)
def samples(name: str, uploads: Kept) -> Response:
    """One picture a class, in the order of the classes, ten a row."""
    content = uploads.samples(name)
    if content is None:
        raise NotFound(f"{name} has no samples.png: it was kept before there were any")
    return Response(content, headers={"Cache-Control": "no-store", **ALONE}, media_type="image/png")


@router.delete(
    "/{name}",
    status_code=204,
    summary="Delete an uploaded data set",
    openapi_extra=told(
        (*ADMIN, 404, 409, 503),
        Sample(204, "away", "/datasets/letters"),
        Sample(404, "not uploaded", "/datasets/nothing"),
    ),
)
async def delete(name: str, uploads: Kept, store: Store, request: Request) -> Response:
    """Remove it with its samples, caches and judges, unless a job that has not ended needs it."""
    await run_in_threadpool(uploads.get, name)
    if job := await of(request).queue(_needed_by, name, store):
        raise Conflict(f"job {job} is to be trained on {name!r}: cancel it, or wait until it has ended")
    await run_in_threadpool(uploads.delete, name)
    return Response(status_code=204)


def _needed_by(name: str, store: JobStore) -> str | None:
    for state in ("running", "queued"):
        for job in store.page(state=state, limit=1000):
            if job.request.get("dataset") == name:
                return job.id
    return None
