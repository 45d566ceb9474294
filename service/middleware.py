"""Pure ASGI middleware: the limit on bodies, and what is observed of every request."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from service.metrics import REQUESTS, SECONDS

log = logging.getLogger(__name__)
access = logging.getLogger("ganserve.access")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class BodyLimit:
    """Answer 413 to a body over the limit, told by its length or found while reading."""

    def __init__(self, app: ASGIApp, limit: int, exempt: Sequence[str]) -> None:
        self.app, self.limit, self.exempt = app, limit, tuple(exempt)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on with a counted ``receive``."""
        if scope["type"] != "http" or scope["path"].startswith(self.exempt):
            await self.app(scope, receive, send)
            return
        told = next((value for key, value in scope["headers"] if key == b"content-length"), b"0")
        if told.isdigit() and int(told) > self.limit:
            await self._refuse(scope, receive, send)
            return
        seen = 0
        started = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
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
                await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = errors.answer(
            scope["path"],
            413,
            f"the body is too large: at most {self.limit} bytes",
            {"Connection": "close"},
        )
        await answer(scope, receive, send)


class _TooLarge(Exception):  # noqa: N818  never leaves this module
    pass


class Observe:
    """Request id (the caller's, or its traceparent's, or a new one), counters, a JSON line if asked for.

    Also the last resort: what nothing else caught is logged with its request id and answered with 500.
    """

    def __init__(self, app: ASGIApp, access_log: bool) -> None:
        self.app, self.access_log = app, access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on with a watched ``send``."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _identify(scope)
        status = 500
        begun = False

        async def watched(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                begun = True
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            log.exception("request %s failed", request_id.decode())
            if begun:
                raise
            detail = f"the server failed at this; its log knows more under {request_id.decode()}"
            await errors.answer(scope["path"], 500, detail)(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - started
            found = scope.get("route")
            # The template, not the path: a label for each address would never end.
            route = getattr(found, "path", "other")
            REQUESTS.labels(route, scope["method"], str(status)).inc()
            SECONDS.labels(route).observe(seconds)
            if self.access_log:
                line = {
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "milliseconds": round(seconds * 1000, 3),
                    "request_id": request_id.decode(),
                }
                access.info(json.dumps(line))


def _identify(scope: Scope) -> bytes:
    trace = None
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value)
        if name == b"traceparent":
            trace = _TRACEPARENT.fullmatch(value)
    return bytes(trace[1]) if trace else secrets.token_hex(16).encode()
