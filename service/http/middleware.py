"""Pure ASGI middleware: HEAD wherever there is GET, the limit on bodies, and what is observed of every request."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http import errors
from service.observe import metrics, tracing

# In a scope: the client has hung up within its answer. In its ``state``: the server has answered 408 by itself.
GONE, LATE = "ganserve.gone", "ganserve.late"
STOPPING = {"Retry-After": "1", "Connection": "close"}
NOSNIFF = (b"x-content-type-options", b"nosniff")

log = logging.getLogger(__name__)
access = logging.getLogger("ganserve.access")


class Head:
    """Answer HEAD as GET would be answered, without the body.

    The answer is made all the same, so that its length is the true one; a stream is ended before its first part.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass HEAD on as GET; send what starts the answer and nothing else."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return self.app(scope, receive, send)
        return self._headed(scope, receive, send)

    async def _headed(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A copy: the server and the metrics shall go on to see HEAD.
        inner = {**scope, "method": "GET"}

        async def headers_only(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
            else:
                raise _HeadersSent

        try:
            await self.app(inner, receive, headers_only)
        except _HeadersSent:
            await send({"type": "http.response.body"})
        finally:
            if "route" in inner:
                scope["route"] = inner["route"]


class _HeadersSent(Exception):  # noqa: N818  never leaves this module
    pass


class BodyLimit:
    """Answer 413 to a body over the limit, told by its length or found while reading.

    Args:
        exempt: how paths begin that have no limit here.
        own: limits of paths that have their own.
    """

    def __init__(self, app: ASGIApp, limit: int, exempt: Sequence[str], own: Mapping[str, int]) -> None:
        self.app, self.limit, self.exempt, self.own = app, limit, tuple(exempt), own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on with a counted ``receive``."""
        if scope["type"] != "http" or scope["path"].startswith(self.exempt):
            await self.app(scope, receive, send)
            return
        told = next((value for key, value in scope["headers"] if key == b"content-length"), b"0")
        limit = self.own.get(scope["path"], self.limit)
        if told.isdigit() and int(told) > limit:
            await self._refuse(limit, scope, receive, send)
            return
        seen = 0
        started = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except _TooLarge:
            if not started:
                await self._refuse(limit, scope, receive, send)

    @staticmethod
    async def _refuse(limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        answer = errors.answer(
            scope["path"],
            413,
            f"the body is too large: at most {limit} bytes",
            {"Connection": "close"},
        )
        await answer(scope, receive, send)


class _TooLarge(Exception):  # noqa: N818  never leaves this module
    pass


class Observe:
    """Request id (the caller's, or its traceparent's, or a new one), trace, counters, a JSON line if asked for.

    Also the last resort: what nothing else caught is logged with its request id and answered with 500.
    """

    def __init__(
        self, app: ASGIApp, access_log: bool, telemetry: tracing.Telemetry | None = None
    ) -> None:
        self.app, self.access_log, self.telemetry = app, access_log, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on with a watched ``send``."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        trace = tracing.begin(scope["headers"], scope["method"], self.telemetry)
        request_id = trace.request_id.encode()
        status = 500
        begun = False

        async def watched(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                begun = True
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id), NOSNIFF]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientDisconnect:
            status = errors.ClientGone.status
        except asyncio.CancelledError:
            # The server stops, and its time for what was under way is over. Raised on, it would be logged as a failure.
            if not begun:
                await errors.answer(scope["path"], 503, "the service is stopping", STOPPING)(scope, receive, watched)
        except Exception:
            log.exception("request %s failed", trace.request_id)
            if begun:
                raise
            detail = f"the server failed at this; its log knows more under {trace.request_id}"
            await errors.answer(scope["path"], 500, detail)(scope, receive, watched)
        finally:
            if GONE in scope:
                status = errors.ClientGone.status
            if status == errors.ClientGone.status and LATE in scope.get("state", ()):
                status = 408
            seconds = time.perf_counter() - started
            found = scope.get("route")
            # The template, not the path: a label for each address would never end.
            # As the documentation writes it, without the converters of its parts.
            route = getattr(found, "path_format", "other")
            metrics.answered(route, scope["method"], status).count(seconds)
            tracing.end(trace, route, scope["method"], scope["path"], status)
            if self.access_log:
                line = {
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "milliseconds": round(seconds * 1000, 3),
                    "request_id": trace.request_id,
                    "trace_id": trace.trace_id,
                    "span_id": trace.span_id,
                }
                access.info(json.dumps(line), extra={"fields": line})
