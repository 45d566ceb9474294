"""Single requests to an object store: S3, Google Cloud Storage, Azure Blob Storage, by obstore.

Requests are not repeated by the library but here, because only so an answer "it is there already" is known to be about
somebody else: after an attempt without an answer, what stands there is compared with what was to be put.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Self, TypeVar

from ganserve.store import LARGE, Away, Missing, Unfit, Unreadable, most_bytes, refuse_larger

# A request without an answer is made again for so long, then the store counts as away.
PATIENCE_SECONDS = 8.0
# The same where there is something else to go on with.
SHORT_SECONDS = 1.0
# How long a request may take, by what it is: bodies of models need their time, all else is answered soon or not at all.
CLIENTS = {
    "quick": {"timeout": "5s"},
    "down": {"timeout": "900s", "read_timeout": "10s"},
    "up": {"timeout": "60s"},
    "long": {"timeout": "900s"},
}
LONG_BYTES, SMALL_BYTES = 32 << 20, 1 << 16
# An answer of which, after so many seconds, there is no head, or a body of fewer bytes a second, is given up.
SLOW_SECONDS, SLOW_BYTES = 30.0, 1024

T = TypeVar("T")


class Objects:
    """Keys below a bucket's prefix. May be used from any thread.

    Args:
        url: ``s3://``, ``gs://`` or ``az://``, as :func:`ganserve.place.place` takes it.
        patience: seconds for which a request without an answer is repeated; None: ``PATIENCE_SECONDS``.

    Raises:
        Unfit: obstore is not installed, or does not take the URL or the environment.
    """

    def __init__(self, url: str, *, patience: float | None = None) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise Unfit("a repository in an object store needs obstore: pip install 'ganserve[store]'") from error
        self.url, self.patience = url, PATIENCE_SECONDS if patience is None else patience
        self._api: Any = obstore
        more = {"allow_http": _plain_endpoint(), "connect_timeout": "2s"}
        again = {"max_retries": 0, "retry_timeout": timedelta(seconds=self.patience)}
        opened: Any = from_url
        try:
            self._clients: dict[str, Any] = {
                kind: opened(url, client_options={**times, **more}, retry_config=again)
                for kind, times in CLIENTS.items()
            }
        except obstore.exceptions.BaseError as error:
            raise Unfit(f"{url} cannot be opened ({type(error).__name__}): are the cloud's variables set?") from error

    def hurried(self) -> Self:
        """The same store with little patience, for those who have something else to go on with."""
        other = copy.copy(self)
        other.patience = min(self.patience, SHORT_SECONDS)
        return other

    def fetch(self, key: str, known: str | None = None, most: int | None = None) -> tuple[bytes | None, str]:
        """The content of a key and its entity tag; no content if the tag is still ``known``.

        Raises:
            Missing, Away
            Unreadable: it has more bytes than ``most``, or than :func:`ganserve.store.most_bytes`.
        """
        options = {"if_none_match": known} if known else None

        def get() -> tuple[bytes | None, str]:
            try:
                found = self._large(key, options) if LARGE.search(key) else self._get(key, options)
            except self._api.exceptions.NotModifiedError:
                return None, known or ""
            refuse_larger(found.meta["size"], most_bytes(key) if most is None else most)
            return self._body(found), str(found.meta["e_tag"])

        return self.ask(get)

    def _get(self, key: str, options: Any) -> Any:
        return self._api.get(self._clients["quick"], key, options=options)

    def _large(self, key: str, options: Any) -> Any:
        """An answer whose body may take long, and its head not. Raises Away.

        Only a request that is awaited can be given up, and the caller's thread may have a loop of its own.
        """

        async def head() -> Any:
            return await asyncio.wait_for(
                self._api.get_async(self._clients["down"], key, options=options), SLOW_SECONDS
            )

        try:
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(asyncio.run, head()).result()
        except TimeoutError:
            raise Away(f"{self.url} answers too slowly: no head within {SLOW_SECONDS:g} s") from None

    def _body(self, found: Any) -> bytes:
        """The content of an answer. Raises Away for one that drips."""
        began, content = time.monotonic(), bytearray()
        for part in found.stream(min_chunk_size=1):
            content += part
            lasts = time.monotonic() - began
            if lasts > SLOW_SECONDS and len(content) < lasts * SLOW_BYTES:
                raise Away(f"{self.url} answers too slowly: {len(content)} bytes in {lasts:.0f} s")
        return bytes(content)

    def current(self, key: str) -> tuple[bytes, dict[str, str]]:
        """The content of a key, and what an update of it is conditional on. Raises as :meth:`fetch`."""

        def get() -> tuple[bytes, dict[str, str]]:
            found = self._api.get(self._clients["quick"], key)
            return bytes(found.bytes()), _version(found.meta)

        return self.ask(get)

    def tag(self, key: str) -> str:
        """The entity tag of a key, empty where nothing stands."""
        try:
            return str(self.head(key)["e_tag"])
        except Missing:
            return ""

    def below(self, prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Every key below ``prefix``, with its size and time."""

        def listed() -> list[Any]:
            found: list[Any] = []
            for page in self._api.list(self._clients["quick"], prefix=f"{prefix}/"):
                found += page
            return found

        for meta in self.ask(listed):
            yield meta["path"], meta

    def put(self, key: str, content: bytes) -> bool:
        """Create a key; False if something stands there."""
        unanswered = False

        def create() -> bool:
            nonlocal unanswered
            try:
                self._api.put(self._up(content), key, content, mode="create", use_multipart=False)
            except self._api.exceptions.AlreadyExistsError:
                return unanswered and self.same(key, content)
            except self._api.exceptions.BaseError:
                unanswered = True
                raise
            return True

        return self.ask(create)

    def delete(self, key: str) -> None:
        """Take a key away, if it is there."""
        with contextlib.suppress(Missing):
            self.ask(lambda: self._api.delete(self._clients["quick"], key))

    def update(self, key: str, content: bytes, version: Mapping[str, str]) -> bool:
        """Replace a key that is still of a version."""
        unanswered = False

        def update() -> bool:
            nonlocal unanswered
            try:
                self._api.put(self._up(content), key, content, mode=dict(version))
            except (self._api.exceptions.PreconditionError, self._api.exceptions.AlreadyExistsError):
                return unanswered and self.same(key, content)
            except self._api.exceptions.BaseError:
                unanswered = True
                raise
            return True

        return self.ask(update)

    def _up(self, content: bytes) -> Any:
        small = len(content) < SMALL_BYTES
        return self._clients["quick" if small else "up" if len(content) < LONG_BYTES else "long"]

    def same(self, key: str, content: bytes) -> bool:
        """Whether a key has this content."""
        try:
            return self.fetch(key)[0] == content
        except Missing:
            return False

    def head(self, key: str) -> Any:
        """What the store says of a key: size, entity tag, time. Raises Missing."""
        return self.ask(lambda: self._api.head(self._clients["quick"], key))

    def level(self, prefix: str) -> Any:
        """One level of names, as ``common_prefixes`` and ``objects``."""
        return self.ask(
            lambda: self._api.list_with_delimiter(self._clients["quick"], prefix=f"{prefix}/" if prefix else None)
        )

    def ask(self, request: Callable[[], T]) -> T:
        """Make a request, again while there is no answer. Raises Missing, Unreadable, Away."""
        until, wait = time.monotonic() + self.patience, 0.1
        while True:
            try:
                return request()
            except FileNotFoundError as error:
                if re.search("NoSuchBucket|ContainerNotFound", str(error)):
                    raise Unreadable(f"there is no bucket behind {self.url}") from None
                raise Missing("nothing is there") from None
            except self._api.exceptions.BaseError as error:
                lasting = _lasting(error)
                if lasting is not None:
                    raise Unreadable(f"{self.url} {lasting}") from None
                if time.monotonic() + wait > until:
                    raise Away(f"{self.url} does not answer{_status(error)}") from None
            time.sleep(wait)
            wait = min(2 * wait, 2.0)


def _plain_endpoint() -> bool:
    """Whether the environment names an endpoint without TLS, as a store of one's own may have."""
    return any(
        name.endswith(("ENDPOINT", "ENDPOINT_URL", "_URL_S3")) and value.startswith("http://")
        for name, value in os.environ.items()
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))
    )


def _version(meta: Mapping[str, Any]) -> dict[str, str]:
    """What an update is conditional on: the entity tag, and the generation, by which Google's store goes."""
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}


def _status(error: Exception) -> str:
    """The status in the library's message. The rest of it stays out: it may hold a signed address."""
    found = re.search(r"status code: (\d{3} [A-Za-z ]*[A-Za-z])", str(error))
    return f" ({found[1]})" if found else ""


def _lasting(error: Exception) -> str | None:
    """What to tell of an error that asking again does not help; None for others."""
    kind, status = type(error).__name__, _status(error)
    if kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return f"refuses it{status}: are the credentials in the environment those of a user with the rights for it?"
    if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
        return "has no such bucket"
    if kind in ("NotSupportedError", "InvalidPathError", "UnknownConfigurationKeyError"):
        return f"does not do it ({kind})"
    if re.match(r" \((4(?!08|09|29)\d\d)", status):
        return f"refuses it{status}"
    return None
