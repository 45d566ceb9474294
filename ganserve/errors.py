"""Every way in which a call can fail, for those who call: clients, the local generator, the commands.

GanserveError
├── Unreachable          no connection, or it broke off
├── TimedOut             no whole answer in time
├── BadAnswer            what answered is no service of this kind
├── JobFailed            a job that was waited for has failed or was cancelled
└── Problem              refused; tells status, title, detail, errors and retry_after (RFC 9457)
    ├── Unauthorized     401  no token, or one that is not known
    ├── Forbidden        403  the user's token where the admin's is needed
    ├── NotFound         404  no such model, version, job or data set
    ├── Conflict         409, 412  the state of things forbids it
    ├── TooLarge         413
    ├── Invalid          400, 415, 422  wrong values: ``errors`` names each field
    ├── Overloaded       429  too much waits
    ├── Unavailable      503  starting, stopping, or a model that cannot be loaded
    └── DeadlineExceeded 504  the server gave the request up
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

LONGEST_TEXT = 200


class GanserveError(Exception):
    """Anything that a call can raise; the message is one sentence that says what would be right, where it is known."""


class Unreachable(GanserveError):  # noqa: N818
    """Nobody answers at the address, or the connection broke off."""


class TimedOut(GanserveError):  # noqa: N818
    """No whole answer within the time that was given."""


class BadAnswer(GanserveError):  # noqa: N818
    """What came is not what this service answers; is the address right?"""


class JobFailed(GanserveError):  # noqa: N818
    """A job that was waited for has failed or was cancelled; ``job`` is its last state."""

    def __init__(self, message: str, job: Any) -> None:
        super().__init__(message)
        self.job = job


class Problem(GanserveError):  # noqa: N818
    """A request that was refused.

    Attributes:
        status: HTTP's number; of the class where it was refused without a server.
        title: HTTP's words for it.
        detail: what was wrong and what would be right.
        errors: what is wrong by field or file, where it can be told.
        retry_after: seconds after which to ask again, where that helps.
    """

    status: int = 500

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        title: str | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status or type(self).status
        self.title = title or _phrase(self.status)
        self.detail = detail
        self.errors = [dict(error) for error in errors]
        self.retry_after = retry_after


class Unauthorized(Problem):
    """No token was sent, or one that is not known."""

    status = 401


class Forbidden(Problem):
    """The token may not do this."""

    status = 403


class NotFound(Problem):
    """No such model, version, job or data set."""

    status = 404


class Conflict(Problem):
    """The state of things forbids it."""

    status = 409


class TooLarge(Problem):
    """More bytes than are taken."""

    status = 413


class Invalid(Problem):
    """Values that cannot be used."""

    status = 422


class Overloaded(Problem):
    """Too much waits already."""

    status = 429


class Unavailable(Problem):
    """Starting, stopping, or a model that cannot be loaded."""

    status = 503


class DeadlineExceeded(Problem):
    """The server gave the request up."""

    status = 504


_KINDS: Mapping[int, type[Problem]] = {
    **{kind.status: kind for kind in Problem.__subclasses__()},
    400: Invalid,
    412: Conflict,
    415: Invalid,
}


def problem(status: int, content: bytes, retry_after: float | None = None) -> Problem:
    """The error that an answer of 4xx or 5xx tells, whether its body is a problem document or anything else."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        told = {}
    detail, title, listed = told.get("detail"), told.get("title"), told.get("errors")
    return _KINDS.get(status, Problem)(
        detail if isinstance(detail, str) else _words(status, content),
        status=status,
        title=title if isinstance(title, str) else None,
        errors=[error for error in listed if isinstance(error, dict)] if isinstance(listed, list) else (),
        retry_after=retry_after,
    )


def seconds(headers: Mapping[str, str]) -> float | None:
    """The seconds that ``Retry-After`` tells, as a number or, as proxies may, as a date; None where it tells none.

    A date counts from the answer's own ``Date``, so that clocks need not agree.
    """
    told = headers.get("Retry-After", "").strip()
    if told.isascii() and told.isdigit():
        return float(told)
    try:
        until = parsedate_to_datetime(told).timestamp()
        since = parsedate_to_datetime(headers["Date"]).timestamp() if "Date" in headers else time.time()
    except (ValueError, OverflowError):
        return None
    return max(0.0, until - since)


def _words(status: int, content: bytes) -> str:
    text = " ".join(content[:LONGEST_TEXT].decode("utf-8", "replace").split())
    return f"{status} {_phrase(status)}" + (f": {text}" if text else "")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
