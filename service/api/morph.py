"""``/morph``: a walk between the images of two seeds, as an animation."""

from __future__ import annotations

import hashlib
import re
from functools import partial
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ganserve.card import ModelCard
from ganserve.latents import MAX_SEED
from ganserve.settings import Settings
from service.api import check_ready
from service.api.generate import ENCODERS, WEBP_SIDE, Images, describe, label_index, matches
from service.http.auth import require_user
from service.http.errors import Invalid
from service.inference.batcher import Batcher
from service.inference.catalogue import Catalogue
from service.inference.rows import Rows
from service.morph import LAYOUT, Format, animate, there_and_back, walk

router = APIRouter(tags=["images"])

MEDIA: dict[Format, str] = {"webp": "image/webp", "gif": "image/gif"}


class MorphQuery(BaseModel):
    """From where to where, and how it is shown."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, max_length=200, description="a model's name; the default one without it")
    version: int | None = Field(None, ge=1, description="the live one without it")
    label: str | None = Field(
        None, max_length=200, description="index or class name; the first class without it"
    )
    first: int = Field(alias="from", ge=0, lt=MAX_SEED, description="seed of the first frame")
    last: int = Field(alias="to", ge=0, lt=MAX_SEED, description="seed of the last frame")
    frames: int = Field(24, ge=2, description="frames from one to the other, both included")
    format: Format = Field("webp", description="webp is lossless; gif has 256 colours a frame")
    scale: int = Field(1, ge=1, le=32, description="whole-number magnification")
    fps: int = Field(12, ge=1, le=50, description="frames a second; gif counts in hundredths of a second")
    bounce: bool = Field(False, description="go back as well, so that the loop has no jump")


@router.get(
    "/morph",
    summary="A walk between two seeds",
    response_class=Response,
    dependencies=[Depends(require_user)],
    responses={
        200: {
            "description": "An animation that loops",
            "content": {media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA.values()},
        }
    },
)
async def morph(request: Request, asked: Annotated[MorphQuery, Query()]) -> Response:
    """The first and the last frame are the images at the addresses of the two seeds; those between are on the way."""
    check_ready(request)
    state = request.app.state
    settings: Settings = state.settings
    catalogue: Catalogue = state.catalogue
    card = await catalogue.card(asked.model, asked.version)
    _check(asked, card, settings)
    label = _label(asked, card)
    headers = {
        **describe(
            card,
            _etag(asked, card, label, catalogue.provider),
            versioned=asked.version is not None,
            private=state.auth.user is not None,
        ),
        "X-Seed": f"{asked.first},{asked.last}",
    }
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    engine = await catalogue.engine(card.name, card.version)
    batcher: Batcher = state.batcher

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    latent = walk(card.latent_recipe, asked.first, asked.last, card.z, asked.frames)
    labels = np.full(asked.frames, label, np.int64) if card.conditional else None
    content = await batcher.generate(
        engine,
        Rows(None, labels, latent),
        partial(_finish, asked),
        timeout=settings.request_timeout,
        disconnected=disconnected,
    )
    return Response(content, headers=headers, media_type=MEDIA[asked.format])


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
        given = "0" if asked.label is None else asked.label
        return label_index(int(given) if re.fullmatch("[0-9]{1,9}", given) else given, card)
    if asked.label is not None:
        raise Invalid(f"model {card.name} has no classes: leave label out, or take a conditional model")
    return 0


def _etag(asked: MorphQuery, card: ModelCard, label: int, provider: str) -> str:
    shown = asked.model_dump(exclude={"model", "version", "label"})
    parts = [LAYOUT, ENCODERS, provider, card.sha256, card.name, card.version, label, shown]
    return f'"{hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()}"'


def _finish(asked: MorphQuery, images: Images) -> bytes:
    if asked.scale > 1:
        images = images.repeat(asked.scale, axis=1).repeat(asked.scale, axis=2)
    if asked.bounce:
        images = there_and_back(images)
    return animate(images, asked.format, round(1000 / asked.fps))
