"""``/images/{model}/{version}/{label}/{seed}.png``: one image at its address, the same for ever."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from ganserve import labels, marks
from ganserve.address import LABEL, hundredths
from ganserve.encode import Pixels
from ganserve.latents import MAX_SEED
from service import state
from service.http.errors import NotFound
from service.http.openapi import IMAGES, KNOWN, Sample, told
from service.plan import single
from service.render import render
from service.schema import TRUNCATED, Truncation, refuse_unknown

router = APIRouter(tags=["images"])


@router.get(
    "/images/{model}/{version}/{label}/{seed}.png",
    summary="One image at its address",
    response_class=Response,
    responses={200: {"description": "The image", "content": {"image/png": {}}}},
    openapi_extra=told(
        IMAGES,
        Sample(200, "one image, the same for ever", "/images/mnist-projgan/1/3/42.png", file="three.png"),
        Sample(200, "of a model without classes", "/images/mnist-dcgan-gap/1/-/42.png", file="digit.png"),
        Sample(304, "the client has it", "/images/mnist-projgan/1/3/42.png", headers=KNOWN),
        Sample(404, "no such version", "/images/mnist-projgan/999/3/42.png"),
        Sample(422, "no such label", "/images/mnist-projgan/1/x/42.png"),
    ),
)
# A name of a hub's data set may have slashes, which servers hand on decoded.
@router.get("/images/{model}/{version}/{label:path}/{seed}.png", include_in_schema=False)
async def image(
    request: Request,
    model: str,
    version: Annotated[int, Path(ge=1)],
    label: Annotated[str, Path(description="class name or index; - for a model without classes")],
    seed: Annotated[int, Path(ge=0, lt=MAX_SEED)],
    truncation: Annotated[Truncation | None, Query(description=TRUNCATED)] = None,
) -> Response:
    """The image itself, without a border."""
    state.admit(request)
    refuse_unknown(request.scope["query_string"], "truncation")
    app = state.of(request)
    card = await app.catalogue.card(model, version)
    if not card.conditional and label != "-":
        raise NotFound(
            f"model {model} has no classes: its images are at /images/{model}/{version}/-/{seed}.png"
        )
    index = labels.index(label, card) if card.conditional else 0
    shown = card.classes[index] if card.conditional else label
    scaled = None if truncation is None else hundredths(truncation)
    plan = single(card, index, seed, app.catalogue.maker(card), scaled)

    def finish(images: Pixels) -> bytes:
        return marks.picture(images[0], plan.address, {LABEL: shown})

    made = await render(request, plan, finish)
    if made.status_code == 304:
        app.remembered.keep(request, made, card, model, version)
    return made
