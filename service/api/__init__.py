"""The HTTP calls, one router a resource."""

from __future__ import annotations

from enum import Enum

from fastapi import FastAPI, Request

from service.errors import Unavailable


class Phase(Enum):
    """Where a process is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


def include_routers(app: FastAPI) -> None:
    """Every resource, in the order in which the documentation shows them."""
    from service.api import datasets, generate, health, images, jobs, models

    for module in (generate, images, models, jobs, datasets, health):
        app.include_router(module.router)


def check_ready(request: Request) -> None:
    """Raises Unavailable while the process starts or drains."""
    phase: Phase = request.app.state.phase
    if phase is not Phase.READY:
        raise Unavailable(f"the service is {phase.value}: ask another replica, or again in a moment")
