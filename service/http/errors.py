"""What can go wrong, and how it is told: RFC 9457 problem documents.

Problem
├── BadRequest 400        unreadable: broken JSON, a parameter given twice
├── Unauthorized 401      no credentials, or wrong ones
├── Forbidden 403         the wrong role
├── NotFound 404
├── NotAcceptable 406     no format that the client accepts
├── Conflict 409          the state of things does not allow it
├── Gone 410              there was such a thing, and it was taken away for good
├── PreconditionFailed 412
├── BodyTooLarge 413
├── UnsupportedMedia 415
├── Invalid 422           readable, and wrong: says which field and what would be right
├── Overloaded 429        with the seconds after which to ask again
├── ClientGone 499        hung up; counted, never read
├── Unavailable 503       starting or draining
├── DeadlineExceeded 504  waited too long; nothing was run, or the rest was not
└── NoRoom 507            the disk is full

What the parts below raise of their own becomes one of these in one table, ``PROBLEMS``.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from ganserve.card import (
    ModelCorrupt,
    ModelNotFound,
    RepositoryError,
    VersionLive,
    VersionNotFound,
    VersionRemoved,
)
from ganserve.claim import NoAddress
from ganserve.labels import UnknownLabel
from ganserve.pictures import PictureError, TooManyPixels
from ganserve.store import StoreError, Unfit
from service import jobs, uploads

MEDIA_TYPE = "application/problem+json"
METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")

log = logging.getLogger(__name__)


class Problem(Exception):  # noqa: N818
    """An answer that is not the one asked for.

    Args:
        detail: what was wrong and what would be right.
        headers: further headers of the answer.
        members: further members of the document, such as ``errors``.
    """

    status = 500

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members


class BadRequest(Problem):
    status = 400


class Unauthorized(Problem):
    status = 401


class Forbidden(Problem):
    status = 403


class NotFound(Problem):
    status = 404


class NotAcceptable(Problem):
    status = 406


class Conflict(Problem):
    status = 409


class Gone(Problem):
    status = 410


class PreconditionFailed(Problem):
    status = 412


class BodyTooLarge(Problem):
    status = 413


class UnsupportedMedia(Problem):
    status = 415


class Invalid(Problem):
    status = 422


class Overloaded(Problem):
    status = 429

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


class Unavailable(Problem):
    status = 503

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


class DeadlineExceeded(Problem):
    status = 504


class NoRoom(Problem):
    status = 507


class ClientGone(Problem):
    # Told to nobody; the number is the one that access logs know from nginx.
    status = 499


def document(status: int, detail: str, members: Mapping[str, Any] | None = None) -> bytes:
    """The problem document as bytes."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **(members or {})}
    return json.dumps(body, ensure_ascii=False, default=str).encode()


def response(
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """The problem document as an answer; never cached."""
    return Response(
        document(status, detail, members),
        status,
        {"Cache-Control": "no-store", **(headers or {})},
        media_type=MEDIA_TYPE,
    )


# The Open Inference Protocol knows fewer kinds of errors; these are the codes that Triton gives them.
V2_STATUS = {406: 400, 409: 400, 412: 400, 422: 400, 429: 503, 504: 503}


def answer(
    path: str,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """An error as the callers of ``path`` expect it: ``/v2`` has a form of its own."""
    if path == "/v2" or path.startswith("/v2/"):
        told = {"Cache-Control": "no-store", **(headers or {})}
        return JSONResponse({"error": detail}, V2_STATUS.get(status, status), told)
    return response(status, detail, headers, members)


def invalid(error: ValidationError | RequestValidationError, *, fields: Iterable[str] = ()) -> Invalid:
    """A pydantic error as a problem that names each field; ``fields`` are those that would be right."""
    known = sorted(fields)
    found: dict[str, list[str]] = {}
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"] if not _is_branch(part)) or "body"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown field; there are {', '.join(known)}" if known else "unknown field"
        if item["type"] == "model_attributes_type" and where == "body":
            message = "expected a JSON object, sent with Content-Type: application/json"
        messages = found.setdefault(where, [])
        if message not in messages:
            messages.append(message)
    errors = [{"field": where, "message": ", or ".join(messages)} for where, messages in found.items()]
    detail = "; ".join(f"{entry['field']}: {entry['message']}" for entry in errors[:5])
    return Invalid(detail, errors=errors)


def _unreadable(error: RequestValidationError) -> BadRequest | None:
    """The problem of a body that is no JSON at all; None for one that is."""
    broken = next((item for item in error.errors() if item["type"] == "json_invalid"), None)
    return broken and BadRequest(f"the body is not JSON: {broken['ctx']['error']}, at character {broken['loc'][-1]}")


def _is_branch(part: int | str) -> bool:
    """Where several types are possible, pydantic adds the one it tried to the place; clients have no use for it."""
    return isinstance(part, str) and (
        part in ("body", "query", "path", "int", "str", "float", "bool") or "[" in part or "-" in part
    )


def _repository(error: RepositoryError) -> Problem:
    log.error("model repository: %s", error)
    return Problem(str(error))


def _job(error: jobs.InvalidJob) -> Problem:
    split = [reason.partition(": ") for reason in error.reasons]
    return Invalid(str(error), errors=[{"field": field, "message": message} for field, _, message in split])


def _upload(error: uploads.InvalidUpload) -> Problem:
    listed = [problem.model_dump() for problem in error.problems]
    return Invalid(f"the archive is refused and nothing of it is kept: {error}", errors=listed)


def _says(kind: type[Problem]) -> Callable[[Exception], Problem]:
    return lambda error: kind(str(error))


# What each error of the parts below is for those who ask; of several that fit, the nearest of its kinds counts.
PROBLEMS: dict[type[Exception], Callable[[Any], Problem]] = {
    ModelNotFound: _says(NotFound),
    VersionNotFound: _says(NotFound),
    VersionRemoved: _says(Gone),
    VersionLive: _says(Conflict),
    Unfit: lambda error: Unavailable(f"nothing was changed: {error}", retry_after=60),
    StoreError: lambda error: Unavailable(f"{error}: what was asked for may not be done", retry_after=5),
    # Nothing is wrong with the request: the file is, until someone mends it.
    ModelCorrupt: lambda error: Unavailable(str(error), retry_after=60),
    RepositoryError: _repository,
    UnknownLabel: _says(Invalid),
    NoAddress: _says(Invalid),
    PictureError: lambda error: Invalid(f"the picture {error}"),
    TooManyPixels: lambda error: BodyTooLarge(f"the picture {error}"),
    jobs.UnknownJob: _says(NotFound),
    jobs.InvalidJob: _job,
    jobs.KeyReused: _says(Conflict),
    jobs.JobFinished: _says(Conflict),
    jobs.QueueFull: lambda error: Overloaded(str(error), error.retry_after),
    jobs.JobsUnavailable: lambda error: Unavailable(str(error), retry_after=5),
    uploads.UnknownDataset: _says(NotFound),
    uploads.InvalidName: _says(Invalid),
    uploads.InvalidUpload: _upload,
    uploads.NameTaken: _says(Conflict),
    uploads.TooLarge: _says(BodyTooLarge),
    uploads.DiskFull: _says(NoRoom),
    ClientDisconnect: lambda error: ClientGone("the client has hung up"),
    RequestValidationError: lambda error: _unreadable(error) or invalid(error),
    Problem: lambda error: error,
}


def told(path: str, error: Exception) -> Response | None:
    """An error as the callers of ``path`` are told it; None for one that nobody foresaw."""
    makes = next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), None)
    made = makes(error) if makes is not None else _disk(path, error)
    if made is None:
        return None
    return answer(path, made.status, made.detail, made.headers, made.members)


def _disk(path: str, error: Exception) -> Problem | None:
    """What a disk refuses, by the setting that names the folder; None for other errors.

    Only admin calls write, and images are served all the same: a replica that may only read is meant to be.
    """
    if not isinstance(error, OSError):
        return None
    setting = "GANSERVE_DATA" if path.startswith(("/datasets", "/jobs")) else "GANSERVE_MODELS"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoom(f"the disk of {setting} is full: make room, or name another folder")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return Unavailable(
            f"the folder of {setting} cannot be written ({error.strerror}): make it writable for the user that runs "
            "the service, or name another folder; images are served all the same",
            retry_after=60,
        )
    if error.errno in _IN_THE_WAY:
        place = f" of {PurePath(os.fsdecode(error.filename2 or error.filename)).name!r}" if error.filename else ""
        return Unavailable(
            f"something else is in the place{place} in the folder of {setting} ({error.strerror}): move it away",
            retry_after=60,
        )
    if error.errno in (*_NO_ANSWER, *_NOT_HERE):
        return Unavailable(f"the disk of {setting} does not do it ({error.strerror}): ask again, or look after it", 5)
    return None


# Where a file should be there is a folder, or the other way round, or a link that leads nowhere.
_IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENXIO)
_NO_ANSWER = (errno.EIO, errno.ESTALE, errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT)
# What this file system, or a limit on this process, does not allow.
_NOT_HERE = (errno.EFBIG, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.ENAMETOOLONG)


class Unanswered(Response):
    """Sends nothing, so that who stands before the application answers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing."""


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem document; what nobody foresaw passes through it, unanswered."""

    async def known(request: Request, error: Exception) -> Response:
        made = told(request.url.path, error)
        if made is None:
            raise error
        return made

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail, headers = str(error.detail), dict(error.headers or {})
        if isinstance(error.__cause__, ClientDisconnect | Problem):
            # The framework takes whatever comes of reading a body for a body that is wrong.
            return await known(request, error.__cause__)
        if error.status_code == 404 and error.detail == "Not Found":
            if (other := _moved(request)) is not None:
                return Response(status_code=307, headers={"Location": other})
            if (request.method, request.scope["path"]) == ("OPTIONS", "*"):
                return Response(status_code=204, headers={"Allow": ", ".join((*METHODS, "OPTIONS"))})
            detail = f"nothing is at {request.url.path}; /docs lists what there is"
        elif error.status_code == 405:
            # The framework knows the methods of one of the routes at this path only.
            methods = _methods(request)
            headers["Allow"] = ", ".join(sorted({*methods, "OPTIONS"}))
            if request.method == "OPTIONS":
                # What is possible here was the question.
                return Response(status_code=204, headers=headers)
            detail = f"{request.method} is not possible here; {', '.join(sorted(methods))} is"
        return answer(request.url.path, error.status_code, detail, headers)

    async def unforeseen(request: Request, error: Exception) -> Response:
        return Unanswered()

    for kind in (*PROBLEMS, OSError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(HTTPException, http)
    # The framework raises it again in any case, to the middleware that logs it and answers with its request id.
    app.add_exception_handler(Exception, unforeseen)


def _moved(request: Request) -> str | None:
    """Where the same path without its slash at the end is, or with one; never by what the client calls this host."""
    path = request.scope["path"]
    other = path[:-1] if path.endswith("/") else f"{path}/"
    inside = {**request.scope, "path": other}
    if path == "/" or not any(route.matches(inside)[0] is Match.FULL for route in request.app.routes):
        return None
    query = request.scope["query_string"].decode("latin-1")
    # Two slashes at the beginning would name a host.
    place = request.scope.get("root_path", "") + "/" + quote(other.lstrip("/"))
    return f"{place}?{query}" if query else place


def _methods(request: Request) -> set[str]:
    found = {
        method
        for method in METHODS
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    }
    # See service.http.middleware.Head.
    return found | {"HEAD"} if "GET" in found else found
