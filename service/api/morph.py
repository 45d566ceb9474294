"""``/morph``: a walk between the images of two seeds, as an animation."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ganserve import labels
from ganserve.address import LABEL, TRUNCATION, hundredths
from ganserve.card import ModelCard
from ganserve.encode import WEBP_SIDE, Pixels
from ganserve.latents import MAX_SEED
from ganserve.settings import Settings
from service import state
from service.http.answers import ENCODERS, describe, etag, matches, weak
from service.http.errors import Invalid
from service.http.openapi import IMAGES, KNOWN, Sample, told
from service.inference.rows import Rows
from service.morph import LAYOUT, Format, animate, there_and_back, walk
from service.render import content
from service.schema import TRUNCATED, Truncation

router = APIRouter(tags=["images"])

MEDIA: dict[Format, str] = {"webp": "image/webp", "gif": "image/gif"}


class MorphQuery(BaseModel):
    """From where to where, and how it is shown."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, max_length=200, description="a model's name; the default one without it")
    version: int | None = Field(None, ge=1, description="the live one without it")
    label: str | None = Field(
        None, max_length=labels.LONGEST_NAME, description="class name or index; the first class without it"
    )
    first: int = Field(alias="from", ge=0, lt=MAX_SEED, description="seed of the first frame")
    last: int = Field(alias="to", ge=0, lt=MAX_SEED, description="seed of the last frame")
    frames: int = Field(24, ge=2, description="frames from one to the other, both included")
    format: Format = Field("webp", description="webp is lossless; gif has 256 colours a frame")
    scale: int = Field(1, ge=1, le=32, description="whole-number magnification")
    fps: int = Field(12, ge=1, le=50, description="frames a second; gif counts in hundredths of a second")
    truncation: Truncation | None = Field(None, description=TRUNCATED)
    bounce: bool = Field(False, description="go back as well, so that the loop has no jump")


@router.get(
    "/morph",
    summary="A walk between two seeds",
    response_class=Response,
    dependencies=[Depends(state.require_user)],
    responses={
        200: {
            "description": "An animation that loops",
            "content": {media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA.values()},
        }
    },
    openapi_extra=told(
        IMAGES,
        Sample(200, "lossless WebP", "/morph?label=3&from=1&to=2&scale=4&bounce=true", file="walk.webp"),
        Sample(200, "GIF", "/morph?label=3&from=1&to=2&frames=12&format=gif", file="walk.gif"),
        Sample(304, "the client has it", "/morph?label=3&from=1&to=2", headers=KNOWN),
        Sample(404, "no such model", "/morph?model=nothing&from=1&to=2"),
        Sample(422, "whereto?", "/morph?from=1"),
    ),
)
async def morph(request: Request, asked: Annotated[MorphQuery, Query()]) -> Response:
    """The first and the last frame are the images at the addresses of the two seeds; those between are on the way."""
    state.check_ready(request)
    app = state.of(request)
    card = await app.catalogue.card(asked.model, asked.version)
    _check(asked, card, app.settings)
    label = _label(asked, card)
    headers = {
        **describe(
            card,
            _etag(asked, card, label, app.catalogue.provider),
            versioned=asked.version is not None,
            private=app.auth.user is not None,
        ),
        "X-Seed": f"{asked.first},{asked.last}",
    }
    truncation = None if asked.truncation is None else hundredths(asked.truncation)
    if truncation is not None:
        headers[TRUNCATION] = f"{truncation / 100:g}"
    if card.conditional and (named := labels.header([label], card.classes)) is not None:
        headers[LABEL] = named
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    # Opened first: until then, that the graph takes vectors of so many numbers is the card's word alone.
    await app.catalogue.engine(card.name, card.version)
    latent = walk(card.latent_recipe, asked.first, asked.last, card.z, asked.frames, truncation)
    rows = Rows(None, np.full(asked.frames, label, np.int64) if card.conditional else None, latent)
    body = await content(request, card, rows, partial(_finish, asked))
    return Response(body, headers=headers, media_type=MEDIA[asked.format])


def _check(asked: MorphQuery, card: ModelCard, settings: Settings) -> None:
    if asked.frames > settings.image_limit:
        raise Invalid(f"{asked.frames} frames are too many for one request: at most {settings.image_limit}")
    height, width = card.image.height * asked.scale, card.image.width * asked.scale
    pixels = height * width * (2 * asked.frames - 2 if asked.bounce else asked.frames)
    if pixels > settings.max_pixels:
        raise Invalid(
            f"the frames would have {pixels} pixels in all: at most {settings.max_pixels}; lower frames or scale"
        )
    if asked.format == "webp" and max(height, width) > WEBP_SIDE:
        raise Invalid(f"the frames would be {width} x {height}: WebP takes at most {WEBP_SIDE} a side")


def _label(asked: MorphQuery, card: ModelCard) -> int:
    if card.conditional:
        return 0 if asked.label is None else labels.index(asked.label, card)
    if asked.label is not None:
        raise Invalid(f"model {card.name} has no classes: leave label out, or take a conditional model")
    return 0


def _etag(asked: MorphQuery, card: ModelCard, label: int, provider: str) -> str:
    shown = asked.model_dump(exclude={"model", "version", "label", "truncation"})
    parts = [LAYOUT, ENCODERS, provider, card.sha256, card.name, card.version, label, shown]
    if asked.truncation is not None and (truncation := hundredths(asked.truncation)) is not None:
        parts.append(f"truncation {truncation}")
    # Frames between the ends follow from floating-point functions, which engines round apart.
    return weak(etag(repr(parts)), provider)


def _finish(asked: MorphQuery, images: Pixels) -> bytes:
    if asked.scale > 1:
        images = images.repeat(asked.scale, axis=1).repeat(asked.scale, axis=2)
    if asked.bounce:
        images = there_and_back(images)
    return animate(images, asked.format, round(1000 / asked.fps))
