"""What a request's body is written in: JSON of any Unicode encoding becomes UTF-8 without a byte order mark, and what
is compressed is refused where nobody unpacks it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Awaitable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http import errors
from service.http.errors import BadRequest, Problem, UnsupportedMedia

# Those of 32 bits first: they begin like those of 16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Without a mark: which of the first four bytes are zero, as JSON begins with ASCII (RFC 4627, section 3).
_ZEROS = {"1110": "utf-32-be", "0111": "utf-32-le", "1010": "utf-16-be", "0101": "utf-16-le"}
_WIDE = tuple(f"utf-{bits}{end}" for bits in (16, 32) for end in ("", "-le", "-be"))
_TAKEN = ("utf-8", "ascii", "iso8859-1", "cp1252", *_WIDE)
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s";]+)', re.IGNORECASE)


def text(content: bytes, kind: str = "") -> bytes:
    """A body of JSON or a form as UTF-8 without a mark.

    Args:
        kind: its Content-Type, for the charset; a byte order mark counts for more.

    Raises:
        UnsupportedMedia: a charset that is not taken.
        BadRequest: bytes that are not in the encoding that they should be in.
    """
    charset = _charset(kind)
    if charset is None and (head := content[:4]).isascii() and 0 not in head:
        return content
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            if content == mark:
                raise BadRequest("the body is not JSON: nothing follows its byte order mark")
            return _utf8(content[len(mark) :], encoding)
    if charset in (None, "utf-8", "ascii"):
        zeros = "".join("01"[not byte] for byte in content[:4])
        return _utf8(content, _ZEROS.get(zeros, "utf-8"))
    # Without a mark, those that could be either are big-endian (RFC 2781, section 4.3).
    return _utf8(content, f"{charset}-be" if charset in ("utf-16", "utf-32") else str(charset))


def _charset(kind: str) -> str | None:
    found = _CHARSET.search(kind)
    if found is None:
        return None
    try:
        name = codecs.lookup(found[1]).name
    except LookupError:
        name = ""
    if name not in _TAKEN:
        raise UnsupportedMedia(f"charset {found[1][:40]} is not taken: send UTF-8")
    return name


def _utf8(content: bytes, encoding: str) -> bytes:
    if encoding == "utf-8":
        # Whoever reads it finds what is no UTF-8, and where.
        return content
    try:
        return content.decode(encoding).encode()
    except UnicodeError as error:
        raise BadRequest(f"the body is not {encoding}: {error}; send UTF-8") from None


class Bodies:
    """Answer 415 to compressed bodies, but for ``/v2``, which unpacks them; and make other charsets UTF-8, but for
    ``/v2``, where bytes follow the JSON, and for uploads, which are no text."""

    def __init__(self, app: ASGIApp, raw: tuple[str, ...]) -> None:
        self.app, self.raw = app, raw

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass on, with a body in UTF-8."""
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"content-encoding" or (name == b"content-type" and b"charset" in value.lower()):
                    return self._read(scope, receive, send)
        # What nearly everybody sends.
        return self.app(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("POST", "PUT", "PATCH") or _is_v2(scope["path"]):
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        try:
            packed = headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
            if packed not in ("", "identity"):
                raise UnsupportedMedia(
                    f"Content-Encoding {packed[:40]} is not taken: send the body as it is",
                    headers={"Accept-Encoding": "identity", "Connection": "close"},
                )
            kind = headers.get(b"content-type", b"").decode("latin-1")
            if not scope["path"].startswith(self.raw) and _charset(kind) not in (None, "utf-8", "ascii"):
                receive = _converted(receive, kind)
        except Problem as error:
            await errors.answer(scope["path"], error.status, error.detail, error.headers)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _is_v2(path: str) -> bool:
    return path == "/v2" or path.startswith("/v2/")


async def whole(receive: Receive) -> bytes:
    """The body, which is limited by who stands before. Raises ClientDisconnect where it breaks off."""
    content = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        content += part
        if not message.get("more_body", False):
            return content


def _converted(receive: Receive, kind: str) -> Receive:
    """Receives the whole body in UTF-8, read when it is first asked for, and then what comes after it."""
    begun = False

    async def received() -> Message:
        nonlocal begun
        if begun:
            return await receive()
        begun = True
        return {"type": "http.request", "body": text(await whole(receive), kind), "more_body": False}

    return received
