"""What answers have in common: entity tags, what may be kept for how long, and whether anyone still listens."""

from __future__ import annotations

import hashlib
import re
import zlib

import PIL
from fastapi import Request
from PIL import features

from ganserve.address import MODEL, RECIPE, VERSION
from ganserve.card import ModelCard

# Part of every entity tag of pictures, as equal tags promise equal bytes: what the encoders' bytes depend on. Raise the
# number when an encoder changes.
ENCODERS = f"3|{PIL.__version__}|{zlib.ZLIB_RUNTIME_VERSION}|{features.version_module('webp')}"
NO_STORE, REVALIDATE, IMMUTABLE = "no-store", "no-cache", "max-age=31536000, immutable"

# Of a file that was made from what others gave, opened by itself: it loads and runs nothing.
ALONE = {"Content-Security-Policy": "default-src 'none'; sandbox"}

_TAGS = re.compile(r'(W/)?("[^"]*")')


def etag(content: bytes | str) -> str:
    """The strong entity tag of an answer that is ``content``, or follows from it."""
    content = content.encode() if isinstance(content, str) else content
    return f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


def weak(tag: str, maker: str) -> str:
    """The tag of pictures that ``maker`` makes, an engine: weak, since another makes them a grey level apart here and
    there; as it is where no engine need be named, for the version is exact."""
    return f"W/{tag}" if maker else tag


def matches(told: str | None, tag: str) -> bool:
    """Whether ``If-None-Match`` names the entity tag: compared weakly (RFC 9110, 13.1.2); ``*`` names any."""
    if told is None:
        return False
    return told.strip() == "*" or tag.removeprefix("W/") in {opaque for _, opaque in _TAGS.findall(told)}


def holds(told: str | None, tag: str) -> bool:
    """Whether ``If-Match`` allows what has the entity tag: compared strongly (RFC 9110, 13.1.1); nothing told: yes."""
    if told is None or told.strip() == "*":
        return True
    return tag in {opaque for weak, opaque in _TAGS.findall(told) if not weak}


def describe(card: ModelCard, tag: str | None, *, versioned: bool, private: bool) -> dict[str, str]:
    """Headers that tell what made an answer, and how long a cache may keep it; no entity tag: not at all.

    Args:
        versioned: the version was named, so that the answer is the same for ever.
        private: the answer is for those with a token only.
    """
    told = {
        MODEL: card.name,
        VERSION: str(card.version),
        RECIPE: card.latent_recipe,
        "Cache-Control": NO_STORE,
    }
    if tag is not None:
        told["ETag"] = tag
        told["Cache-Control"] = f"{'private' if private else 'public'}, {IMMUTABLE}" if versioned else REVALIDATE
    return told


async def disconnected(request: Request) -> None:
    """Return when the client has hung up; for a request whose body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
