"""``/images/{model}/{version}/{label}/{seed}.png``: one image at its address, the same for ever."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Path, Request, Response

from service import encode
from service.api.generate import Plan, label_index, render
from service.auth import require_user
from service.batching import Images
from service.catalogue import Catalogue
from service.errors import Problem
from service.latents import MAX_SEED

router = APIRouter(tags=["images"], dependencies=[Depends(require_user)])


@router.get(
    "/images/{model}/{version}/{label}/{seed}.png",
    summary="One image at its address",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, 304: {"description": "The client has it already"}},
)
async def image(
    request: Request,
    model: str,
    version: Annotated[int, Path(ge=1)],
    label: Annotated[str, Path(description="index or class name; - for a model without classes")],
    seed: Annotated[int, Path(ge=0, lt=MAX_SEED)],
) -> Response:
    """The image itself, without a border."""
    state = request.app.state
    if state.draining or not state.ready:
        raise Problem(503, "the service is stopping: ask another replica", headers={"Retry-After": "1"})
    catalogue: Catalogue = state.catalogue
    card = await catalogue.card(model, version)
    if card.conditional:
        index = label_index(label, card)
    elif label == "-":
        index = 0
    else:
        raise Problem(404, f"model {model} has no classes: its images are at /images/{model}/{version}/-/{seed}.png")
    plan = Plan(
        card,
        np.array([index], np.int64),
        np.array([seed], np.uint64),
        seeded=True,
        versioned=True,
        columns=1,
        padding=0,
        scale=1,
        format="png",
    )

    def finish(images: Images) -> bytes:
        return encode.png(images[0], {"X-Model": model, "X-Model-Version": str(version), "X-Label": str(index),
                                      "X-Seed": str(seed), "X-Latent-Recipe": card.latent_recipe})  # fmt: skip

    return await render(request, plan, finish)
