"""``/``: the page, a few static files that may load nothing but what this service gives."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from service.http.answers import REVALIDATE, etag, matches
from service.http.errors import NotFound
from service.jobs import recipes

FOLDER = Path(__file__).resolve().parent.parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
HEADERS = {
    # blob: is for pictures that were fetched with a token.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Kept, and asked for again by its entity tag: a new release is seen at once.
    "Cache-Control": REVALIDATE,
}

router = APIRouter()


class Asset(NamedTuple):
    """A file as it is sent."""

    content: bytes
    media_type: str
    etag: str


def _asset(name: str, content: bytes) -> Asset:
    return Asset(content, TYPES[Path(name).suffix], etag(content))


@cache
def assets() -> dict[str, Asset]:
    """Every file by its name. What is not among them cannot be reached, however a path is written."""
    found = {
        path.name: _asset(path.name, path.read_bytes())
        for path in FOLDER.iterdir()
        if path.suffix in TYPES and path.is_file()
    }
    told = {
        name: {key: recipe[key] for key in ("description", "conditional", "images", "overrides")}
        for name, recipe in recipes().items()
    }
    return found | {"recipes.json": _asset("recipes.json", json.dumps(told).encode())}


def _answer(request: Request, asset: Asset) -> Response:
    headers = {**HEADERS, "ETag": asset.etag}
    if matches(request.headers.get("if-none-match"), asset.etag):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, headers=headers, media_type=asset.media_type)


@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
async def index(request: Request) -> Response:
    """The page itself; it shows nothing of its own and asks the other calls for everything."""
    return _answer(request, assets()["index.html"])


@router.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
async def docs(request: Request) -> Response:
    """Every call with its parameters, answers and samples, drawn from ``openapi.json``."""
    return _answer(request, assets()["docs.html"])


@router.api_route("/page/{name}", methods=["GET", "HEAD"], include_in_schema=False)
async def asset(request: Request, name: str) -> Response:
    """A style sheet, a module, the icon, or the recipes that a job may name."""
    found = assets().get(name)
    if found is None:
        raise NotFound(f"the page has no file {name!r}")
    return _answer(request, found)
