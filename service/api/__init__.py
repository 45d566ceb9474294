"""The HTTP calls, one router a resource."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum

from fastapi import FastAPI, Request, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.http.errors import Unavailable


class Phase(Enum):
    """Where a process is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


def include_routers(app: FastAPI) -> None:
    """Every resource, in the order in which the documentation shows them."""
    from service.api import datasets, generate, health, images, jobs, models, morph, synthetic, v2

    # Before the uploads, whose names it would be one of.
    for module in (generate, images, morph, synthetic, models, jobs, datasets, health):
        app.include_router(module.router)
    app.include_router(v2.router)


class Direct:
    """The hot calls, which take the whole request and check it themselves: they skip the framework's dispatch, which
    costs more than they do. They are among its routes as well, where the documentation finds them.
    """

    def __init__(self, app: FastAPI) -> None:
        from service.api import generate

        self.app = app
        self._calls: dict[tuple[str, str], tuple[Route, Callable[[Request], Awaitable[Response]]]] = {
            (method, path): (Route(path, call, methods=[method]), call)
            for method, path, call in (
                ("GET", "/generate", generate.get),
                ("POST", "/generate", generate.post),
            )
        }

    def takes(self, scope: Scope) -> bool:
        """Whether a request is one of them."""
        return scope["type"] == "http" and (scope["method"], scope["path"]) in self._calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; errors as the application answers them."""
        # The metrics know it by its route.
        scope["route"], call = self._calls[scope["method"], scope["path"]]
        scope["app"] = self.app
        request = Request(scope, receive, send)
        try:
            response = await call(request)
        except Exception as error:
            kinds = type(error).__mro__
            handler = next((self.app.exception_handlers[k] for k in kinds if k in self.app.exception_handlers), None)
            if handler is None:
                raise
            told = handler(request, error)
            response = told if isinstance(told, Response) else await told
        await response(scope, receive, send)


def check_ready(request: Request) -> None:
    """Raises Unavailable while the process starts or drains."""
    phase: Phase = request.app.state.phase
    if phase is not Phase.READY:
        raise Unavailable(f"the service is {phase.value}: ask another replica, or again in a moment")
