"""What can go wrong, and how it is told: RFC 9457 problem documents.

Problem
├── BadRequest 400        unreadable: broken JSON, a parameter given twice
├── Unauthorized 401      no credentials, or wrong ones
├── Forbidden 403         the wrong role
├── NotFound 404
├── NotAcceptable 406     no format that the client accepts
├── Conflict 409          the state of things does not allow it
├── PreconditionFailed 412
├── BodyTooLarge 413
├── UnsupportedMedia 415
├── Invalid 422           readable, and wrong: says which field and what would be right
├── Overloaded 429        with the seconds after which to ask again
├── ClientGone 499        hung up; counted, never read
├── Unavailable 503       starting or draining
└── DeadlineExceeded 504  waited too long; nothing was run, or the rest was not
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from ganserve.card import ModelCorrupt, ModelNotFound, RepositoryError, VersionNotFound

MEDIA_TYPE = "application/problem+json"

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
        messages = found.setdefault(where, [])
        if message not in messages:
            messages.append(message)
    errors = [{"field": where, "message": ", or ".join(messages)} for where, messages in found.items()]
    detail = "; ".join(f"{entry['field']}: {entry['message']}" for entry in errors[:5])
    return Invalid(detail, errors=errors)


def _is_branch(part: int | str) -> bool:
    """Where several types are possible, pydantic adds the one it tried to the place; clients have no use for it."""
    return isinstance(part, str) and (
        part in ("body", "query", "path", "int", "str", "float", "bool") or "[" in part or "-" in part
    )


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem document."""

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return answer(request.url.path, error.status, error.detail, error.headers, error.members)

    async def repository(request: Request, error: Exception) -> Response:
        if isinstance(error, ModelNotFound | VersionNotFound):
            return answer(request.url.path, 404, str(error))
        if isinstance(error, ModelCorrupt):
            # Nothing is wrong with the request: the file is, until someone mends it.
            return answer(request.url.path, 503, str(error), {"Retry-After": "60"})
        log.error("model repository: %s", error)
        return answer(request.url.path, 500, str(error))

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        made = invalid(error)
        return answer(request.url.path, made.status, made.detail, made.headers, made.members)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail, headers = str(error.detail), dict(error.headers or {})
        if error.status_code == 404 and error.detail == "Not Found":
            detail = f"nothing is at {request.url.path}; /docs lists what there is"
        elif error.status_code == 405:
            # The framework knows the methods of one of the routes at this path only.
            allowed = ", ".join(sorted(_methods(request))) or headers.pop("Allow", "")
            headers["Allow"] = allowed
            detail = f"{request.method} is not possible here; {allowed} is"
        return answer(request.url.path, error.status_code, detail, headers)

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(RepositoryError, repository)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)


def _methods(request: Request) -> set[str]:
    found: set[str] = set()
    for entry in request.app.routes:
        # An included router stands among the routes as one entry.
        router = getattr(entry, "original_router", None)
        for route in [entry] if router is None else router.routes:
            if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
                found |= route.methods or set()
    # See service.http.middleware.Head.
    return found | {"HEAD"} if "GET" in found else found
