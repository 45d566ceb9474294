"""``/images/{model}/{version}/{label}/{seed}.png``: one image at its address, the same for ever."""

from __future__ import annotations

import re
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Request, Response

from ganserve import png
from ganserve.latents import MAX_SEED
from service.api.generate import Images, Plan, admit, label_index, render
from service.http.errors import NotFound
from service.inference.catalogue import Catalogue

router = APIRouter(tags=["images"])


@router.get(
    "/images/{model}/{version}/{label}/{seed}.png",
    summary="One image at its address",
    response_class=Response,
    responses={200: {"description": "The image", "content": {"image/png": {}}}},
)
async def image(
    request: Request,
    model: str,
    version: Annotated[int, Path(ge=1)],
    label: Annotated[str, Path(description="index or class name; - for a model without classes")],
    seed: Annotated[int, Path(ge=0, lt=MAX_SEED)],
) -> Response:
    """The image itself, without a border."""
    admit(request)
    catalogue: Catalogue = request.app.state.catalogue
    card = await catalogue.card(model, version)
    if card.conditional:
        index = label_index(int(label) if re.fullmatch("[0-9]{1,9}", label) else label, card)
    elif label == "-":
        index = 0
    else:
        raise NotFound(
            f"model {model} has no classes: its images are at /images/{model}/{version}/-/{seed}.png"
        )
    plan = Plan(
        card,
        catalogue.provider,
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
        return png.encode(images[0], {**plan.text(), "X-Label": label})

    made = await render(request, plan, finish)
    if made.status_code == 304:
        request.app.state.revalidation.keep(request, made, card, model, version)
    return made
