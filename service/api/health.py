"""Probes and Prometheus metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from service.metrics import exposition

router = APIRouter(tags=["health"])


@router.get("/health/live", summary="The process answers")
async def live() -> dict[str, str]:
    """200 as long as the event loop turns."""
    return {"status": "live"}


@router.get("/health/ready", summary="Requests can be served")
async def ready(request: Request) -> JSONResponse:
    """200 when ready, 503 while starting or draining; names the provider, what is loaded and what is left out."""
    state = request.app.state
    if state.draining or not state.ready:
        return JSONResponse({"status": "draining" if state.draining else "starting"}, 503)
    catalogue = state.catalogue
    default = state.settings.default_model
    usable = default in catalogue.live and default not in catalogue.left_out
    body = {
        "status": "ready" if catalogue.live else "no model can be served",
        "provider": catalogue.provider,
        "default_model": default if usable else None,
        "live": dict(sorted(catalogue.live.items())),
        "loaded": catalogue.loaded,
        "left_out": catalogue.left_out,
    }
    return JSONResponse(body, 200 if catalogue.live else 503)


@router.get("/metrics", summary="For Prometheus", response_class=Response)
def metrics() -> Response:
    """The text format."""
    content, kind = exposition()
    return Response(content, headers={"Content-Type": kind})
