"""Answers 304 from memory: what a repeated question costs when the client has the answer already.

An entity tag is a pure function of an address and the version that is live, so once a question has been answered with
304, the same question with the same tag is again, for as long as the same card would answer it. That is looked up
before any routing; everything else takes the usual way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Scope

from ganserve.card import ModelCard
from service.http.auth import Auth
from service.http.errors import Problem
from service.http.middleware import NOSNIFF
from service.observe import metrics, tracing

# Longer questions are not remembered, so that what is remembered is bounded.
LONGEST = 1024
MOST = 4096

Key = tuple[str, bytes, bytes, bytes]


class Known(Protocol):
    """What is served, as far as it is known without a look on the disk."""

    provider: str

    def known(self, name: str | None, version: int | None) -> ModelCard | None:
        """The card that a request for a model by ``name`` (None: the default) in ``version`` (None: live) means."""


@dataclass(frozen=True, slots=True)
class _Entry:
    card: ModelCard
    name: str | None
    version: int | None
    provider: str
    headers: tuple[tuple[bytes, bytes], ...]
    route: str


class Revalidation:
    """The answers that this process remembers; used on the event loop only.

    Args:
        models: what is live.
        auth: who may ask.
        ready: whether the process neither starts nor drains.
    """

    def __init__(self, models: Known, auth: Auth, ready: Callable[[], bool]) -> None:
        self._models, self._auth, self._ready = models, auth, ready
        self._entries: dict[Key, _Entry] = {}

    def keep(self, request: Request, answer: Response, card: ModelCard, name: str | None, version: int | None) -> None:
        """Remember an answer 304 to a GET for a model by ``name`` (None: the default) in ``version`` (None: live)."""
        scope = request.scope
        key = _key(scope, dict(scope["headers"]))
        if answer.status_code != 304 or key is None or scope["method"] != "GET":
            return
        if (answer.headers["x-model"], answer.headers["x-model-version"]) != (card.name, str(card.version)):
            # Another version has become live since the answer was made.
            return
        if len(self._entries) >= MOST:
            # The oldest goes: Python keeps the order of insertion.
            del self._entries[next(iter(self._entries))]
        route = scope["route"].path_format
        self._entries[key] = _Entry(card, name, version, self._models.provider, tuple(answer.raw_headers), route)

    def find(self, scope: Scope) -> tuple[list[Message], metrics.Answered] | None:
        """The messages of the answer, and where to count it; None: the request takes the usual way."""
        headers = dict(scope["headers"])
        if (key := _key(scope, headers)) is None or (entry := self._entries.get(key)) is None:
            return None
        models = self._models
        if models.known(entry.name, entry.version) is not entry.card or models.provider != entry.provider:
            del self._entries[key]
            return None
        if b"traceparent" in headers or not self._ready():
            return None
        if self._auth.user is not None:
            if sum(name == b"authorization" for name, _ in scope["headers"]) > 1:
                return None
            try:
                self._auth.check_user(headers.get(b"authorization", b"").decode("latin-1"))
            except Problem:
                return None
        request_id = headers.get(b"x-request-id", b"")
        if not tracing.is_request_id(request_id):
            request_id = tracing.new_id().encode()
        start = {
            "type": "http.response.start",
            "status": 304,
            "headers": [*entry.headers, (b"x-request-id", request_id), NOSNIFF],
        }
        return [start, {"type": "http.response.body", "body": b""}], metrics.answered(entry.route, "GET", 304)


def _key(scope: Scope, headers: dict[bytes, bytes]) -> Key | None:
    told = headers.get(b"if-none-match")
    if told is None:
        return None
    key = (scope["path"], scope["query_string"], headers.get(b"accept", b"*/*"), told)
    return key if sum(map(len, key)) <= LONGEST else None
