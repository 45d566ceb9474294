"""``/datasets``: a user's own labelled images, as ZIPs of class folders. Every call needs the admin token."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Annotated, NoReturn

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from service.api.jobs import Store, as_problem
from service.http.auth import require_admin
from service.http.errors import BodyTooLarge, Conflict, Invalid, NotFound, Problem, UnsupportedMedia
from service.jobs import JobsError, JobStore
from service.uploads import (
    RESERVED,
    InvalidName,
    InvalidUpload,
    NameTaken,
    TooLarge,
    UnknownDataset,
    Upload,
    UploadError,
    Uploads,
)

# What clients call a ZIP, with what curl says when it is told nothing.
ZIP_TYPES = frozenset(
    {
        "application/zip",
        "application/x-zip-compressed",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
    }
)

router = APIRouter(prefix="/datasets", tags=["datasets"], dependencies=[Depends(require_admin)])


class DiskFull(Problem):
    """There is no room for the upload."""

    status = 507


class DatasetList(BaseModel):
    """What a job can be trained on without the network."""

    uploads: list[Upload]
    built_in: list[str]


def uploads_of(request: Request) -> Uploads:
    """The uploads below the data folder."""
    found = getattr(request.app.state, "uploads", None)
    return (
        found if isinstance(found, Uploads) else Uploads(Path(request.app.state.settings.data) / "datasets")
    )


Kept = Annotated[Uploads, Depends(uploads_of)]


def _refuse(error: UploadError) -> NoReturn:
    if isinstance(error, InvalidUpload):
        listed = [problem.model_dump() for problem in error.problems]
        raise Invalid(f"the archive is refused and nothing of it is kept: {error}", errors=listed) from error
    problems: dict[type[UploadError], type[Problem]] = {
        InvalidName: Invalid,
        TooLarge: BodyTooLarge,
        NameTaken: Conflict,
        UnknownDataset: NotFound,
    }
    raise problems[type(error)](str(error)) from error


@router.put(
    "/{name}",
    status_code=201,
    summary="Upload a data set",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def put(name: str, request: Request, response: Response, uploads: Kept) -> Upload:
    """Take a ZIP of class folders (``<class>/<image>``) as the body; keep all of it, or nothing.

    curl -T pets.zip -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/zip" .../datasets/pets
    """
    kind = request.headers.get("content-type", "application/zip").partition(";")[0].strip().lower()
    if kind not in ZIP_TYPES:
        raise UnsupportedMedia(f"{kind} is not taken: send the ZIP itself as the body, as application/zip")
    try:
        uploads.check_name(name)
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > uploads.limits.archive_bytes:
            raise TooLarge(f"the archive is larger than {uploads.limits.archive_bytes} bytes")
        with uploads.staging() as staging:
            archive = await uploads.receive(request.stream(), staging)
            upload = await run_in_threadpool(uploads.keep, name, archive, staging)
    except UploadError as error:
        _refuse(error)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DiskFull("the disk is full: nothing of the archive is kept") from error
    response.headers["Location"] = f"/datasets/{name}"
    return upload


@router.get("", summary="List data sets")
def page(uploads: Kept) -> DatasetList:
    """Uploads and what is built in."""
    return DatasetList(uploads=uploads.list(), built_in=sorted(RESERVED))


@router.get("/{name}", summary="One uploaded data set")
def get(name: str, uploads: Kept) -> Upload:
    """Its classes, with how many images each has."""
    try:
        return uploads.get(name)
    except UploadError as error:
        _refuse(error)


@router.delete("/{name}", status_code=204, summary="Delete an uploaded data set")
def delete(name: str, uploads: Kept, store: Store) -> Response:
    """Remove it, unless a job that has not ended needs it."""
    try:
        uploads.get(name)
        if job := _needed_by(name, store):
            raise Conflict(f"job {job} is to be trained on {name!r}: cancel it, or wait until it has ended")
        uploads.delete(name)
    except JobsError as error:
        raise as_problem(error) from error
    except UploadError as error:
        _refuse(error)
    return Response(status_code=204)


def _needed_by(name: str, store: JobStore) -> str | None:
    for state in ("running", "queued"):
        for job in store.page(state=state, limit=1000):
            if job.request["dataset"] == name:
                return job.id
    return None
