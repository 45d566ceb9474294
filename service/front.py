"""The one front door: every request comes in here, and two kinds go a shorter way than the framework's."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI, Request, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.http import errors
from service.http.body import Bodies
from service.http.middleware import BodyLimit, Head, Observe
from service.state import State

Call = Callable[[Request], Awaitable[Response]]

# Uploads have a limit of their own.
UNLIMITED = ("/datasets/",)
VERIFY = "/verify"


class Front:
    """What the server runs: the application, behind what is observed and limited of every request.

    In this order:

    1. A question that was answered 304 before, and would be again, is answered from memory (``http/revalidation.py``):
       nothing is left to find out, and caches ask nothing more often. Left out where each request is traced or logged.
    2. Request id, counters, HEAD, the limit on bodies (``http/middleware.py``), their encoding
       (``http/body.py``): built here, once, for all that follows.
    3. A hot call goes straight to its handler, which takes the whole request and checks it itself: for one image the
       framework's dispatch costs more than everything else on the event loop.
    4. The application.

    Args:
        hot: handlers by method and path. They are among the application's routes as well, for the documentation.
        prefix: the path under which a proxy offers this service; paths are answered with it and without it.
    """

    def __init__(
        self, app: FastAPI, state: State, hot: Mapping[tuple[str, str], Call], *, prefix: str = ""
    ) -> None:
        self.app, self.state, self.prefix = app, state, prefix.rstrip("/")
        settings = state.settings
        unseen = state.telemetry is None and not settings.access_log
        self.remembered = state.remembered if unseen else None
        # The metrics know a call by its route.
        self._hot = {key: (Route(key[1], call, methods=[key[0]]), call) for key, call in hot.items()}
        bodies = Bodies(self._dispatch, (*UNLIMITED, VERIFY))
        limited = BodyLimit(bodies, settings.max_body_bytes, UNLIMITED, {VERIFY: settings.max_verify_bytes})
        self._watched = Observe(Head(limited), settings.access_log, state.telemetry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from memory, or pass on."""
        if scope["type"] == "http":
            if self.prefix:
                scope = self._inside(scope)
            if self.remembered is not None and scope["method"] == "GET":
                began = time.perf_counter()
                if (found := self.remembered.find(scope)) is not None:
                    messages, counter = found
                    for message in messages:
                        await send(message)
                    counter.count(time.perf_counter() - began)
                    return
        await self._watched(scope, receive, send)

    def _inside(self, scope: Scope) -> Scope:
        """The request without the prefix, which ``root_path`` keeps for what writes addresses, such as /docs."""
        path = scope["path"]
        # Not of another name that begins alike.
        if f"{path}/".startswith(f"{self.prefix}/"):
            path = path.removeprefix(self.prefix) or "/"
        return {**scope, "path": path, "root_path": self.prefix}

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (found := self._hot.get((scope["method"], scope["path"]))) is not None:
            scope["route"], call = found
            scope["app"] = self.app
            await self._call(call, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _call(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await call(Request(scope, receive, send))
        except Exception as error:
            told = errors.told(scope["path"], error)
            if told is None:
                raise
            response = told
        await response(scope, receive, send)
