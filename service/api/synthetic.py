"""``/datasets/synthetic``: as many labelled images as asked for, in constant memory, from any row on."""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ganserve import labels
from ganserve.address import TRUNCATION, hundredths
from ganserve.latents import MAX_SEED
from service import state
from service.datasets.formats import FORMATS, LAYOUT, Format, writer
from service.datasets.making import written
from service.datasets.span import Span
from service.http.answers import ENCODERS, describe, etag, matches, weak
from service.http.errors import Invalid, Problem
from service.http.openapi import IMAGES, KNOWN, Sample, told
from service.http.stream import Stream
from service.schema import TRUNCATED, Truncation

router = APIRouter(tags=["datasets"])


class Missing(Problem):
    """A part that is installed apart is not there."""

    status = 501


class SyntheticQuery(BaseModel):
    """Which rows, and how they are written."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, max_length=200, description="a model's name; the default one without it")
    version: int | None = Field(None, ge=1, description="the live one without it")
    seed: int = Field(0, ge=0, lt=MAX_SEED, description="seed of row 0; row i has seed + i")
    n: int | None = Field(
        None, ge=1, description="how many rows; 60000 without it, or the most that this server gives"
    )
    offset: int = Field(0, ge=0, lt=MAX_SEED, description="the first row; the rows before it are left out")
    balanced: bool = Field(
        True, description="the classes in turn; false: each row's class is drawn from its seed"
    )
    truncation: Truncation | None = Field(None, description=TRUNCATED)
    format: Format = Field("tar", description="tar: WebDataset; parquet: Hugging Face; npz; zip: class folders")


@router.get(
    "/datasets/synthetic",
    summary="A data set of generated images",
    response_class=Response,
    dependencies=[Depends(state.require_user)],
    responses={
        200: {
            "description": "Rows offset to offset + n, as they are made",
            "content": {kind.media: {"schema": {"type": "string", "format": "binary"}} for kind in FORMATS.values()},
        }
    },
    openapi_extra=told(
        (*IMAGES, 501),
        Sample(200, "WebDataset", "/datasets/synthetic?version=1&n=200&format=tar", file="set.tar"),
        Sample(200, "Hugging Face", "/datasets/synthetic?version=1&n=200&format=parquet", file="set.parquet"),
        Sample(200, "numpy", "/datasets/synthetic?version=1&n=200&format=npz", file="set.npz"),
        Sample(
            200,
            "class folders; what PUT /datasets/{name} takes",
            "/datasets/synthetic?version=1&seed=0&n=200&format=zip",
            file="letters.zip",
        ),
        Sample(
            200,
            "rows 100 to 199 of the same",
            "/datasets/synthetic?version=1&seed=0&offset=100&n=100&balanced=true",
            file="rest.tar",
        ),
        Sample(304, "the client has it", "/datasets/synthetic?n=200", headers=KNOWN),
        Sample(404, "no such model", "/datasets/synthetic?model=nothing"),
        Sample(422, "too many for one answer", "/datasets/synthetic?n=1000000000"),
    ),
)
async def synthetic(request: Request, asked: Annotated[SyntheticQuery, Query()]) -> Response:
    """Row ``i`` is the image of seed ``seed + i``, whichever rows are asked for with it.

    So the rest of a download that broke off after row k is ``offset=k``, and shards are ranges: ``offset=0&n=10000``,
    ``offset=10000&n=10000``, and so on hold together what one answer of all rows would.
    """
    state.check_ready(request)
    app = state.of(request)
    settings, catalogue, batcher = app.settings, app.catalogue, app.batcher
    most = settings.max_dataset_images
    n = min(60_000, most) if asked.n is None else asked.n
    if n > most:
        raise Invalid(
            f"{n} images are too many for one answer: at most {most}; ask for the rest with offset={most}"
        )
    if asked.offset + n > MAX_SEED:
        raise Invalid("offset + n passes 2**53, after which the seeds would come again: lower offset")
    card = await catalogue.card(asked.model, asked.version)
    truncation = None if asked.truncation is None else hundredths(asked.truncation)
    span = Span(card, asked.seed, asked.offset, n, asked.balanced, truncation)
    headers = {
        **describe(
            card,
            _etag(span, asked.format, catalogue.maker(card)),
            versioned=asked.version is not None,
            private=app.auth.user is not None,
        ),
        "X-Seed": str(span.seed),
        "X-Offset": str(span.offset),
        "X-Images": str(n),
        **({} if truncation is None else {TRUNCATION: f"{truncation / 100:g}"}),
        "Content-Disposition": f'attachment; filename="{_file_name(span)}.{asked.format}"',
        "Accept-Ranges": "none",
    }
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    try:
        # In a thread, as pyarrow takes a moment to be imported.
        made = await batcher.work(partial(writer, asked.format, span))
    except ImportError as error:
        raise Missing(
            f"parquet is not installed on this server: pip install 'ganserve[parquet]', or take format=tar ({error})"
        ) from None
    if made.length is not None:
        headers["Content-Length"] = str(made.length)
    engine = await catalogue.engine(card.name, card.version)
    body = written(batcher, engine, made, span, settings)
    # The first rows are waited for, so that a server that cannot give them says so with a status.
    first = await anext(body)

    return Stream(first, body, headers, FORMATS[asked.format].media)


def _etag(span: Span, form: Format, maker: str) -> str:
    card = span.card
    parts = [
        LAYOUT, ENCODERS, _writer_version(form), maker, card.sha256, card.name, card.version, form,
        span.seed, span.offset, span.n, span.balanced, *card.classes,
    ]  # fmt: skip
    if labels.numbered(card.classes) and not labels.plain(card.classes):
        # The addresses inside are by name.
        parts.append("names")
    if span.truncation is not None:
        parts.append(f"truncation {span.truncation}")
    return weak(etag(repr(parts)), maker)


def _writer_version(form: Format) -> str:
    package = FORMATS[form].package
    if package is None:
        return ""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _file_name(span: Span) -> str:
    card = span.card
    return f"{card.name}-{card.version}-seed{span.seed}-{span.offset:09d}-{span.offset + span.n - 1:09d}"
