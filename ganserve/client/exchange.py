"""A request and its answer, apart from what carries them; and how long refusals are waited out."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import httpx

from ganserve import errors

DEFAULT_URL = "http://127.0.0.1:8000"
# Refusals that pass: too much waits, or the server is starting or stopping.
PASSING = frozenset({429, 503})
UNTOLD_SECONDS = 1.0
# However soon a server says to come again.
LEAST_SECONDS = 0.1

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """One request, safe to be sent again.

    Attributes:
        path: below the client's address.
        body: makes the parts of the body, anew each time it is sent.
        read_timeout: seconds to wait for the next bytes; None: the client's.
        deadline: seconds for the whole answer, refusals waited out included; None: the client's.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    body: Callable[[], Iterable[bytes]] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    read_timeout: float | None = None
    deadline: float | None = None


@dataclass(frozen=True)
class Reply:
    """An answer, whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes


# What a call is: it yields requests, is sent the answers, and returns what they mean.
Flow = Generator[Ask, Reply, T]


@dataclass(frozen=True)
class Place:
    """Where the service is and how it is spoken to.

    Attributes:
        url: its address, with the path prefix of a proxy if there is one.
        token: bearer token, None without.
        timeout: seconds until a server that says nothing is given up.
        deadline: seconds that one request may take, refusals waited out included.
    """

    url: str = field(repr=False)
    token: str | None = field(repr=False)
    timeout: float
    deadline: float

    @classmethod
    def of(cls, url: str | None, token: str | None, timeout: float, deadline: float) -> Place:
        """What was given, else ``GANSERVE_URL`` and ``GANSERVE_TOKEN``. Raises errors.Invalid for no http address."""
        found = url or os.environ.get("GANSERVE_URL") or DEFAULT_URL
        try:
            parsed = httpx.URL(found)
        except httpx.InvalidURL as error:
            raise errors.Invalid(f"{found!r} is no address: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise errors.Invalid(f"{found!r} is no address: expected http://host:port or https://host")
        return cls(str(parsed), token or os.environ.get("GANSERVE_TOKEN") or None, timeout, deadline)

    @property
    def name(self) -> str:
        """The address without a password that may stand in it, for messages."""
        return str(httpx.URL(self.url).copy_with(userinfo=b""))

    def options(self) -> dict[str, Any]:
        """For httpx's clients."""
        headers = {"User-Agent": "ganserve-client"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return {"base_url": self.url, "headers": headers, "timeout": self.timeout}

    def request(self, ask: Ask) -> dict[str, Any]:
        """For httpx's ``stream``; the body is the transport's to add."""
        timeout = httpx.Timeout(self.timeout, read=ask.read_timeout or self.timeout)
        return {
            "method": ask.method,
            "url": ask.path,
            "params": dict(ask.query) or None,
            "json": ask.json,
            "headers": dict(ask.headers),
            "timeout": timeout,
        }

    def patience(self, ask: Ask) -> Patience:
        """The time that a request has."""
        return Patience(self.name, self.deadline if ask.deadline is None else ask.deadline)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """httpx's errors as this package's."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise errors.TimedOut(
                f"{self.name} has not answered in time ({_words(error)}): raise timeout, or see whether it hangs"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise errors.Unreachable(
                f"{self.name} cannot be reached ({_words(error)}): is the service running?"
            ) from error


class Patience:
    """The time of one request, begun now."""

    def __init__(self, name: str, seconds: float) -> None:
        self._name, self._seconds = name, seconds
        self._until = time.monotonic() + seconds

    def check(self) -> None:
        """Between the parts of an answer: raises errors.TimedOut when the time is over."""
        if time.monotonic() > self._until:
            raise self.over()

    def over(self) -> errors.TimedOut:
        """That the time is over."""
        return errors.TimedOut(f"{self._name} has not answered whole within {self._seconds:g} s: raise deadline")

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._until - time.monotonic())

    def wait(self, call: Callable[[], T]) -> T:
        """What a call returns that ends by itself, or only when bytes stop to come. Raises errors.TimedOut.

        On a thread, for nothing else ends it: each byte of a head that drips begins its time to wait anew.
        """
        answers: SimpleQueue[tuple[list[T], BaseException | None]] = SimpleQueue()

        def run() -> None:
            try:
                answers.put(([call()], None))
            except BaseException as error:
                answers.put(([], error))

        threading.Thread(target=run, name="ganserve request", daemon=True).start()
        try:
            found, error = answers.get(timeout=self.left)
        except Empty:
            raise self.over() from None
        if error is not None:
            raise error
        return found[0]

    def pause(self, reply: Reply) -> float | None:
        """Seconds to wait before asking again; None where the answer stands, or the wait would pass the deadline."""
        if reply.status not in PASSING:
            return None
        told = errors.seconds(reply.headers)
        pause = UNTOLD_SECONDS if told is None else max(told, LEAST_SECONDS)
        return pause if time.monotonic() + pause <= self._until else None


def checked(reply: Reply) -> Reply:
    """The same answer. Raises errors.Problem where it is a refusal, errors.BadAnswer for a redirection."""
    if reply.status >= 400:
        raise errors.problem(reply.status, reply.content, errors.seconds(reply.headers))
    if not 200 <= reply.status < 300:
        where = reply.headers.get("Location", "elsewhere")[:200]
        raise errors.BadAnswer(f"the server answers {reply.status} and points to {where}: give that address instead")
    return reply


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
