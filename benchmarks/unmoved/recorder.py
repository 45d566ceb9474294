"""Calls and what is kept of their answers."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.unmoved.checkout import ADMIN

# New with every answer.
FRESH = {"date", "x-request-id"}
SHORT = 300
LONG_HEADER = 100
TAG = re.compile(r"[0-9a-f]{32}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class Answer:
    """What came back; header names are small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Recorder:
    """One service and everything that it answered, by call."""

    port: int
    calls: dict[str, Any] = field(default_factory=dict)
    drawn: list[str] = field(default_factory=list)

    def send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        """One call on a connection of its own, with no header that is not named here but Host and Content-Length."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None and "Content-Length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        try:
            if body:
                connection.send(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was read
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(response.status, told, response.read())
        connection.close()
        return answer

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        admin: bool = False,
        hide: Iterable[str] = (),
        keep: Iterable[str] = (),
        drawn: bool = False,
        called: str = "",
        sent: Mapping[str, str] | None = None,
        **headers: str,
    ) -> Answer:
        """Send a call and keep its answer.

        Args:
            body: bytes as they are, anything else as JSON.
            hide: keys of the JSON body, at any depth, whose values are new each time.
            keep: headers to keep though they are new each time, as this call decides them.
            drawn: the answer is of drawn seeds, so neither its bytes nor its seed and length are kept.
            called: the body in words, where it is long.
            sent, headers: headers of the call, ``_`` for ``-``.
        """
        sent = {name.replace("_", "-"): value for name, value in {**(sent or {}), **headers}.items()}
        label = " ".join(f"{name}: {TAG.sub('<tag>', value)[:60]}" for name, value in sent.items())
        if admin:
            sent["Authorization"] = f"Bearer {ADMIN}"
        if body is not None and not isinstance(body, bytes):
            called = called or json.dumps(body, ensure_ascii=False)[:200]
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        answer = self.send(method, path, body, sent)
        parts = (method, path, called or (repr(body[:60]) if body else ""), label, "as admin" * admin)
        name = self._masked(" ".join(part for part in parts if part))
        while name in self.calls:
            name += " again"
        self.calls[name] = self._kept(method, answer, set(hide), set(keep), drawn)
        return answer

    def _kept(self, method: str, answer: Answer, hide: set[str], keep: set[str], drawn: bool) -> dict[str, Any]:
        left_out = FRESH - keep
        kind = answer.headers.get("content-type", "")
        if drawn:
            left_out |= {"x-seed"}
        if method != "HEAD" or hide or drawn:
            # The digest of the body tells more.
            left_out |= {"content-length"}
        found: dict[str, Any] = {
            "status": answer.status,
            "headers": {
                name: self._masked(value) if len(value) <= LONG_HEADER else digest(value.encode())
                for name, value in sorted(answer.headers.items())
                if name not in left_out
            },
        }
        if drawn or not answer.body:
            return found
        if kind.partition(";")[0] in ("application/json", "application/problem+json"):
            return found | self._json(answer.body, hide)
        if kind.startswith("text/event-stream"):
            text = self._masked(TIME.sub("<time>", answer.body.decode()))
            return found | {"body": digest(text.encode()), "text": text}
        return found | {"body": digest(answer.body)}

    def _json(self, body: bytes, hide: set[str]) -> dict[str, Any]:
        """Short JSON as it is, besides the digest that its order of keys and its spelling of numbers decide."""
        value = hidden(json.loads(body), hide)
        spelled = body if not hide else json.dumps(value, ensure_ascii=False).encode()
        text = self._masked(spelled.decode())
        found: dict[str, Any] = {"body": digest(text.encode())}
        if len(text) <= SHORT:
            found["json"] = json.loads(text)
        return found

    def _masked(self, text: str) -> str:
        text = text.replace(f"127.0.0.1:{self.port}", "<host>")
        for drawn in self.drawn:
            text = text.replace(drawn, "<drawn>")
        return text


def digest(content: bytes) -> str:
    """The first 24 digits of SHA-256 in hex: enough to tell that bytes are the same, and short to keep."""
    return hashlib.sha256(content).hexdigest()[:24]


def hidden(value: Any, keys: set[str]) -> Any:
    """JSON with ``<new>`` in the place of these keys' values; what is null stays so."""
    if isinstance(value, dict):
        return {k: "<new>" if k in keys and v is not None else hidden(v, keys) for k, v in value.items()}
    if isinstance(value, list):
        return [hidden(item, keys) for item in value]
    return value
