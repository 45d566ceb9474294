"""From a plan to its answer: 304 where the client has it, else rows through the batcher, and the body."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from fastapi import Request, Response

from ganserve.card import ModelCard
from ganserve.encode import Pixels
from service import state
from service.http.answers import disconnected, matches
from service.inference.rows import Rows
from service.plan import Plan
from service.schema import MEDIA

T = TypeVar("T")


async def content(request: Request, card: ModelCard, rows: Rows, finish: Callable[[Pixels], T]) -> T:
    """What ``finish`` makes of the images uint8 [n, h, w, c] of ``rows`` by the version of ``card``.

    Raises:
        RepositoryError: the version cannot be loaded.
        Problem: too much waits, the deadline passed, or the client hung up.
    """
    app = state.of(request)
    engine = await app.catalogue.engine(card.name, card.version)
    return await app.batcher.generate(
        engine,
        rows,
        finish,
        timeout=app.settings.request_timeout,
        disconnected=partial(disconnected, request),
    )


async def render(request: Request, plan: Plan, finish: Callable[[Pixels], bytes]) -> Response:
    """The answer to a plan: 304 if the client has it, else the body that ``finish`` makes of the images."""
    headers = plan.headers(private=state.of(request).auth.user is not None)
    if plan.seeded and matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    body = await content(request, plan.card, plan.rows, finish)
    if plan.format in ("zip", "npz"):
        headers["Content-Disposition"] = f'attachment; filename="{plan.card.name}.{plan.format}"'
    return Response(body, headers=headers, media_type=MEDIA[plan.format])
