"""``/verify``: whether a picture is what stands at the address that it carries, or at one that is given."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Depends, Request

from ganserve import carried
from ganserve.carried import Carried
from ganserve.claim import Claim
from ganserve.compare import FLOAT_TOLERANCE, Pixels, compare
from ganserve.settings import Settings
from ganserve.verdict import UNMARKED, Verdict
from service import state
from service.http.errors import Invalid
from service.http.openapi import Sample, told
from service.inference.rows import Rows
from service.render import content
from service.schema import parameters

router = APIRouter(tags=["images"])

PNG, WEBP = "image/png", "image/webp"
_FILE = {"schema": {"type": "string", "format": "binary"}}
_GRAPH = {
    "name": "graph",
    "in": "query",
    "required": False,
    "schema": {"type": "string"},
    "description": "the first 16 digits or more of the graph's sha256: another graph is an unknown model",
}


@router.post(
    "/verify",
    summary="Does this picture stand at its address?",
    dependencies=[Depends(state.require_user)],
    openapi_extra=told(
        (401, 404, 410, 413, 422, 429, 503, 504),
        Sample(200, "at the address that it carries", "/verify", "@three.png", kind=PNG),
        Sample(
            200,
            "at an address that is given: another picture",
            "/verify?model=mnist-projgan&version=1&label=3&seed=43",
            "@three.png",
            kind=PNG,
        ),
        Sample(404, "no such version", "/verify?model=mnist-projgan&version=999&seed=42", "@three.png", kind=PNG),
        Sample(422, "no picture", "/verify", "three", kind=PNG),
        parameters=[*(one for one in parameters() if one["name"] != "format"), _GRAPH],
        requestBody={"required": True, "content": {PNG: _FILE, WEBP: _FILE}},
    ),
)
async def verify(request: Request) -> Verdict:
    """Read the address that a PNG or WebP carries, make it again, and compare pixels.

    With an address as parameters, as ``/generate`` takes them, that one counts: so a picture whose marks were stripped
    is found all the same. What is left out of layout is what gives the picture's size. ``differing_pixels`` are those
    that are not the address's; where the version is not exact, pixels 1 of 255 apart are a match with ``exact`` false.
    """
    state.check_ready(request)
    app = state.of(request)
    body, query = await request.body(), request.scope["query_string"].decode("latin-1")
    picture, claim = await app.batcher.work(partial(_read, body, query, app.settings))
    if claim is None:
        return Verdict("unmarked", note=UNMARKED)
    card = await app.catalogue.card(claim.model, claim.version)
    n, most = claim.count(card), app.settings.image_limit
    if n > most:
        raise Invalid(f"{n} images are too many for one request: at most {most}")
    # Before anything is made: what is claimed has the picture's own size.
    address = claim.at(card, (picture.width, picture.height))
    rows = Rows(address.seeds, address.labels if card.conditional else None, None, address.truncation)
    images = await content(request, card, rows, _themselves)
    tolerance = FLOAT_TOLERANCE if app.catalogue.maker(card) else 0
    return await app.batcher.work(partial(compare, picture.bare, images, address, card, tolerance=tolerance))


def _read(body: bytes, query: str, settings: Settings) -> tuple[Carried, Claim | None]:
    """The picture, and where it is said to stand."""
    picture = carried.read(body, max_pixels=settings.max_pixels, max_bytes=settings.max_verify_bytes)
    return picture, Claim.parse(query) if query else Claim.of_texts(picture.texts)


def _themselves(images: Pixels) -> Pixels:
    return images
