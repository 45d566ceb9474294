"""The HTTP calls, one router a resource."""

from __future__ import annotations

from enum import Enum

from fastapi import FastAPI, Request
from starlette.routing import Match, Route
from starlette.types import Scope

from service.errors import Unavailable


class Phase(Enum):
    """Where a process is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


def include_routers(app: FastAPI) -> None:
    """Every resource, in the order in which the documentation shows them."""
    from service.api import datasets, generate, health, images, jobs, models, morph, synthetic, v2

    # The hot calls take the whole request and check it themselves, so they skip the framework's dispatch, which
    # costs as much again as they do; included below as well, where the documentation finds them.
    app.router.routes += [
        Direct("/generate", generate.get, methods=["GET"]),
        Direct("/generate", generate.post, methods=["POST"]),
    ]
    # Before the uploads, whose names it would be one of.
    for module in (generate, images, morph, synthetic, models, jobs, datasets, health):
        app.include_router(module.router)
    app.include_router(v2.router)


class Direct(Route):
    """A route without dependencies, known to the metrics like the framework's own."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As every route, and names itself."""
        match, child = super().matches(scope)
        if match is not Match.NONE:
            child["route"] = self
        return match, child


def check_ready(request: Request) -> None:
    """Raises Unavailable while the process starts or drains."""
    phase: Phase = request.app.state.phase
    if phase is not Phase.READY:
        raise Unavailable(f"the service is {phase.value}: ask another replica, or again in a moment")
