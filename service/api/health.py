"""Probes and Prometheus metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from service.http.openapi import Sample, told
from service.observe import metrics
from service.state import Phase, of

router = APIRouter(tags=["health"])


@router.get(
    "/health/live", summary="The process answers", openapi_extra=told((), Sample(200, "a probe", "/health/live"))
)
async def live() -> dict[str, str]:
    """200 as long as the event loop turns."""
    return {"status": "live"}


@router.get(
    "/health/ready",
    summary="Requests can be served",
    responses={503: {"description": "Not now; `status` says why", "content": {"application/json": {}}}},
    openapi_extra=told((503,), Sample(200, "a probe", "/health/ready")),
)
async def ready(request: Request) -> JSONResponse:
    """200 when some model can be served, else 503; names the provider, what is loaded, which of it gives proven bytes,
    and what is left out and why."""
    state = of(request)
    catalogue = state.catalogue
    status = state.phase.value
    if state.phase is Phase.READY:
        if not catalogue.servable:
            status = "no model can be served"
        elif (reason := await catalogue.unreachable()) is not None:
            status = reason
    body = {
        "status": status,
        "provider": catalogue.provider,
        "default_model": catalogue.default,
        "live": dict(sorted(catalogue.live.items())),
        "loaded": list(catalogue.loaded),
        "exact": {name: form for name, form in catalogue.loaded.items() if form},
        "left_out": dict(sorted(catalogue.left_out.items())),
        # Told only where it is so.
        **({"unwritable": found} if (found := state.unwritable) else {}),
    }
    return JSONResponse(body, 200 if status == "ready" else 503, {"Cache-Control": "no-store"})


@router.get(
    "/metrics",
    summary="For Prometheus",
    response_class=Response,
    responses={200: {"description": "Metrics", "content": {"text/plain": {}}}},
    openapi_extra=told((), Sample(200, "for Prometheus", "/metrics")),
)
def prometheus(request: Request) -> Response:
    """Prometheus' text format, of all processes."""
    jobs, workers = of(request).queue_counts()
    return Response(metrics.exposition(jobs, workers), headers={"Content-Type": metrics.CONTENT_TYPE})
