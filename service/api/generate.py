"""``/generate``: labels and seeds to a PNG grid, WebP, ZIP, NPZ or JSON."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
import PIL
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from PIL import features
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError
from starlette.datastructures import QueryParams

from ganserve import encode, png
from ganserve.card import ModelCard
from ganserve.latents import MAX_SEED, consecutive
from ganserve.settings import Settings
from service.api import check_ready
from service.http.auth import Auth
from service.http.errors import BadRequest, Invalid, NotAcceptable, UnsupportedMedia, invalid
from service.inference.batcher import Batcher
from service.inference.catalogue import Catalogue
from service.inference.rows import Rows

router = APIRouter(tags=["images"])

Images = NDArray[np.uint8]

Format = Literal["png", "webp", "zip", "npz", "json"]
MEDIA: dict[Format, str] = {
    "png": "image/png",
    "webp": "image/webp",
    "zip": "application/zip",
    "npz": "application/x-npz",
    "json": "application/json",
}
# Part of every entity tag, as equal tags promise equal bytes: what the encoders' bytes depend on. Raise the number
# when an encoder changes.
ENCODERS = f"2|{PIL.__version__}|{zlib.ZLIB_RUNTIME_VERSION}|{features.version_module('webp')}"
IMMUTABLE = "max-age=31536000, immutable"
LONGEST_SEED_HEADER = 1024
WEBP_SIDE = 16383

Seed = Annotated[int, Field(strict=True, ge=0, lt=MAX_SEED)]
Label = StrictInt | Annotated[str, Field(max_length=200)]


class GenerateRequest(BaseModel):
    """What to generate. Every field may be left out."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"label": 3, "n": 16}, {"label": [0, 1, 2], "seed": 42, "format": "npz"}]
        },
    )

    model: str | None = Field(None, max_length=200, description="a model's name; the default one without it")
    version: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None, description="the live one without it"
    )
    label: Label | Annotated[list[Label], Field(min_length=1)] | None = Field(
        None, description="index, class name, or a list that is taken in turn; the classes in turn without it"
    )
    n: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None, description="how many images; 1 without it"
    )
    seed: Seed | None = Field(None, description="tile i has seed + i; drawn and told without it")
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = Field(
        None, description="the seed of each tile"
    )
    columns: Annotated[int, Field(strict=True, ge=1)] | None = Field(None, description="columns of the grid")
    padding: Annotated[int, Field(strict=True, ge=0, le=64)] = Field(2, description="pixels between tiles")
    scale: Annotated[int, Field(strict=True, ge=1, le=32)] = Field(
        1, description="whole-number magnification"
    )
    format: Format | None = Field(None, description="wins over the Accept header")


@dataclass(frozen=True)
class Plan:
    """A request made definite: which rows of which version, and how they are encoded."""

    card: ModelCard
    provider: str
    labels: NDArray[np.int64]
    seeds: NDArray[np.uint64]
    seeded: bool
    versioned: bool
    columns: int | None
    padding: int
    scale: int
    format: Format

    @property
    def etag(self) -> str:
        """A strong entity tag: the answer is a pure function of what goes into it."""
        card = self.card
        # Providers agree within a few of 255, not in every byte.
        parts = f"{ENCODERS}|{self.provider}|{card.sha256}|{card.name}|{card.version}|{self.format}"
        layout = f"|{self.columns}|{self.padding}|{self.scale}|"
        digest = hashlib.blake2b((parts + layout).encode(), digest_size=16)
        digest.update(self.labels.tobytes())
        digest.update(self.seeds.tobytes())
        return f'"{digest.hexdigest()}"'

    def headers(self, *, private: bool = False) -> dict[str, str]:
        """What every answer tells of its making; ``private`` where an answer is for those with a token only."""
        seeds = self._seeds()
        told = describe(
            self.card, self.etag if self.seeded else None, versioned=self.versioned, private=private
        )
        told["Vary"] = "Accept"
        if len(seeds) <= LONGEST_SEED_HEADER:
            told["X-Seed"] = seeds
        return told

    def _seeds(self) -> str:
        first = int(self.seeds[0])
        if np.array_equal(self.seeds, consecutive(first, len(self.seeds))):
            return str(first)
        return ",".join(map(str, self.seeds.tolist()))

    def encode(self, images: Images) -> bytes:
        """The body of the answer."""
        labels = self.labels.tolist() if self.card.conditional else None
        meta: Mapping[str, Any] = {
            "model": self.card.name,
            "version": self.card.version,
            "latent_recipe": self.card.latent_recipe,
        }
        if self.format in ("png", "webp"):
            sheet = encode.grid(images, self.columns, self.padding, self.scale)
            content = png.encode(sheet, self.text()) if self.format == "png" else encode.webp(sheet)
        else:
            if self.scale > 1:
                images = images.repeat(self.scale, axis=1).repeat(self.scale, axis=2)
            if self.format == "npz":
                content = encode.npz(images, labels, self.seeds.tolist())
            else:
                document = encode.zip_archive if self.format == "zip" else encode.json_document
                content = document(images, labels, self.seeds.tolist(), self.card.classes, meta)
        return content

    def text(self) -> dict[str, str]:
        """The same for the text chunks of a PNG."""
        return {
            "X-Model": self.card.name,
            "X-Model-Version": str(self.card.version),
            "X-Seed": self._seeds(),
            "X-Latent-Recipe": self.card.latent_recipe,
        }


def describe(card: ModelCard, etag: str | None, *, versioned: bool, private: bool) -> dict[str, str]:
    """Headers that tell what made an answer, and how long a cache may keep it; no entity tag: not at all."""
    told = {
        "X-Model": card.name,
        "X-Model-Version": str(card.version),
        "X-Latent-Recipe": card.latent_recipe,
        "Cache-Control": "no-store",
    }
    if etag is not None:
        told["ETag"] = etag
        scope = "private" if private else "public"
        told["Cache-Control"] = f"{scope}, {IMMUTABLE}" if versioned else "no-cache"
    return told


def _rows(asked: GenerateRequest, card: ModelCard, settings: Settings) -> tuple[Any, Any, bool]:
    """Labels int64 [n], seeds uint64 [n], and whether the seeds were named."""
    if asked.seed is not None and asked.seeds is not None:
        raise Invalid("seed and seeds exclude each other: give one of them")
    if asked.seeds is not None and asked.n is not None and asked.n != len(asked.seeds):
        raise Invalid(
            f"n is {asked.n} but {len(asked.seeds)} seeds are given: leave n out, or make them agree"
        )
    listed = asked.label if isinstance(asked.label, list) else None
    n = asked.n or len(asked.seeds or listed or [None])
    if n > settings.image_limit:
        raise Invalid(f"{n} images are too many for one request: at most {settings.image_limit}")
    if listed is not None and len(listed) > n:
        raise Invalid(f"{len(listed)} labels for {n} images: give at most as many labels as images")
    if asked.seeds is not None:
        seeds = np.asarray(asked.seeds, np.uint64)
    else:
        seeds = consecutive(secrets.randbelow(MAX_SEED) if asked.seed is None else asked.seed, n)
    seeded = asked.seed is not None or asked.seeds is not None
    if not card.conditional:
        if asked.label is not None:
            raise Invalid(f"model {card.name} has no classes: leave label out, or take a conditional model")
        return np.zeros(n, np.int64), seeds, seeded
    if asked.label is not None and not isinstance(asked.label, list):
        return np.full(n, label_index(asked.label, card), np.int64), seeds, seeded
    indices = list(range(len(card.classes))) if listed is None else [label_index(label, card) for label in listed]
    return np.resize(np.asarray(indices, np.int64), n), seeds, seeded


def label_index(label: int | str | list[Any], card: ModelCard) -> int:
    """The index of a class named by index or name. Raises Problem 422 for what the model does not have."""
    if isinstance(label, str):
        if label in card.classes:
            return card.classes.index(label)
        if _DIGITS.fullmatch(label):
            label = int(label)
    if isinstance(label, int) and 0 <= label < len(card.classes):
        return label
    names = ", ".join(card.classes[:20]) + (", ..." if len(card.classes) > 20 else "")
    raise Invalid(
        f"model {card.name} has no label {label!r}: expected an index from 0 to {len(card.classes) - 1} or one of "
        f"{names}",
    )


# Clients say the same few things again and again.
@lru_cache(maxsize=256)
def negotiate(asked: Format | None, accept: str) -> Format:
    """The format: the one asked for, else the best that ``Accept`` takes. Raises Problem 406."""
    if asked is not None:
        return asked
    ranked: list[tuple[float, Format]] = []
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if media in ("", "*/*", "image/*") and quality:
            ranked.append((quality - 0.001, "png"))
        ranked += [(quality, name) for name, kind in MEDIA.items() if kind == media and quality]
    if not ranked:
        raise NotAcceptable(
            f"none of what Accept takes can be made: expected one of {', '.join(MEDIA.values())}"
        )
    return max(ranked, key=lambda pair: pair[0])[1]


async def answer(request: Request, asked: GenerateRequest) -> Response:
    """Plan, look at the entity tag, generate, encode."""
    state = request.app.state
    settings: Settings = state.settings
    catalogue: Catalogue = state.catalogue
    card = await catalogue.card(asked.model, asked.version)
    form = negotiate(asked.format, request.headers.get("accept", "*/*"))
    labels, seeds, seeded = _rows(asked, card, settings)
    pictured = form in ("png", "webp")
    plan = Plan(
        card,
        catalogue.provider,
        labels,
        seeds,
        seeded,
        asked.version is not None,
        # The tiles of the other formats are not laid out, so these shall not change their entity tag.
        asked.columns if pictured else None,
        asked.padding if pictured else 0,
        asked.scale,
        form,
    )
    _check_pixels(plan, settings)
    return await render(request, plan, plan.encode)


def admit(request: Request) -> None:
    """Raises Unauthorized without the token that is asked for, Unavailable while starting or draining."""
    auth: Auth = request.app.state.auth
    auth.check_user(request.headers.get("authorization"))
    check_ready(request)


async def render(request: Request, plan: Plan, finish: Callable[[Images], bytes]) -> Response:
    """The answer to a plan: 304 if the client has it, else the body that ``finish`` makes of the images."""
    state = request.app.state
    headers = plan.headers(private=state.auth.user is not None)
    if plan.seeded and matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    card = plan.card
    engine = await state.catalogue.engine(card.name, card.version)
    batcher: Batcher = state.batcher

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    content = await batcher.generate(
        engine,
        Rows(plan.seeds, plan.labels if card.conditional else None),
        finish,
        timeout=state.settings.request_timeout,
        disconnected=disconnected,
    )
    if plan.format in ("zip", "npz"):
        headers["Content-Disposition"] = f'attachment; filename="{card.name}.{plan.format}"'
    return Response(content, headers=headers, media_type=MEDIA[plan.format])


def _check_pixels(plan: Plan, settings: Settings) -> None:
    n, shape = len(plan.seeds), plan.card.image
    columns = min(plan.columns or encode.default_columns(n), n)
    rows = -(-n // columns)
    width = columns * (shape.width * plan.scale + plan.padding) + plan.padding
    height = rows * (shape.height * plan.scale + plan.padding) + plan.padding
    if width * height > settings.max_pixels:
        raise Invalid(
            f"the grid would be {width} x {height} pixels: at most {settings.max_pixels}; lower n or scale"
        )
    if plan.format == "webp" and max(width, height) > WEBP_SIDE:
        raise Invalid(
            f"the grid would be {width} x {height}: WebP takes at most {WEBP_SIDE} a side; take png"
        )


def matches(told: str | None, etag: str) -> bool:
    """Whether ``If-None-Match`` names the entity tag."""
    if told is None:
        return False
    return told.strip() == "*" or etag in {tag.strip().removeprefix("W/") for tag in told.split(",")}


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The images",
        "content": {media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA.values()},
    },
}


@router.post(
    "/generate",
    summary="Generate images",
    response_class=Response,
    responses=_ANSWERS,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": GenerateRequest.model_json_schema()}},
        }
    },
)
async def post(request: Request) -> Response:
    """A PNG grid by default; tile ``i`` has seed ``seed + i``."""
    admit(request)
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    # What curl -d sends when nothing else is said is JSON here all the same.
    if kind not in ("application/json", "application/x-www-form-urlencoded", ""):
        raise UnsupportedMedia(
            f"{kind} is not taken: send application/json", headers={"Accept": "application/json"}
        )
    return await answer(request, parse_json(await request.body()))


def parse_json(body: bytes) -> GenerateRequest:
    """Raises Problem 400 for what is no JSON object, 422 for wrong fields or values."""
    try:
        return GenerateRequest.model_validate_json(body or b"{}")
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            raise BadRequest(f"the body is not JSON: {error.errors()[0]['ctx']['error']}") from None
        raise invalid(error, fields=GenerateRequest.model_fields) from None


_INTEGERS = frozenset({"version", "n", "seed", "columns", "padding", "scale"})
_LISTS = frozenset({"label", "seeds"})
_DIGITS = re.compile(r"[0-9]{1,9}")


def _parameters() -> list[dict[str, Any]]:
    properties = GenerateRequest.model_json_schema()["properties"]
    found = []
    for name, schema in properties.items():
        if name in _LISTS:
            kind: dict[str, Any] = {
                "type": "array",
                "items": {"type": "integer" if name == "seeds" else "string"},
            }
        else:
            choices = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
            kind = {k: v for k, v in choices[0].items() if k not in ("description", "title", "default")}
        found.append(
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": kind,
                "description": schema["description"],
            }
        )
    return found


@router.get(
    "/generate",
    summary="Generate images (for a browser, an <img>, a cache)",
    response_class=Response,
    responses=_ANSWERS,
    openapi_extra={"parameters": _parameters()},
)
async def get(request: Request) -> Response:
    """The same as POST; lists are repeated parameters or comma-separated."""
    admit(request)
    asked = parse_query(request.scope["query_string"])
    made = await answer(request, asked)
    if made.status_code == 304:
        state = request.app.state
        card = await state.catalogue.card(asked.model, asked.version)
        state.revalidation.keep(request, made, card, asked.model, asked.version)
    return made


# The same few addresses are asked for again and again, by browsers and by caches that revalidate.
@lru_cache(maxsize=1024)
def parse_query(query: bytes) -> GenerateRequest:
    """Raises Invalid for unknown or repeated parameters and wrong values."""
    fields: dict[str, Any] = {}
    for name, value in QueryParams(query).multi_items():
        if name in _LISTS:
            fields.setdefault(name, []).extend(value.split(","))
        elif name in fields:
            raise Invalid(f"{name} is given twice: give it once")
        else:
            fields[name] = _integer(name, value) if name in _INTEGERS else value
    if "seeds" in fields:
        fields["seeds"] = [_integer("seeds", value) for value in fields["seeds"]]
    if "label" in fields:
        # Digits are an index, as a bare number is in JSON.
        labels = [int(label) if _DIGITS.fullmatch(label) else label for label in fields["label"]]
        fields["label"] = labels[0] if len(labels) == 1 else labels
    try:
        return GenerateRequest.model_validate(fields)
    except ValidationError as error:
        raise invalid(error, fields=GenerateRequest.model_fields) from None


def _integer(name: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,20}", text):
        raise Invalid(f"{name}: {json.dumps(text[:40])} is not a whole number")
    return int(text)
