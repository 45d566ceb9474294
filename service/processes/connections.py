"""What a client may hold of a process: how many connections, and each for how long without getting on.

uvicorn closes an idle connection and bounds nothing else: a client that begins a request and never ends it keeps a
descriptor for ever, and a thousand of them keep them all. One look at all connections, a few times in the shortest
deadline, finds those that are late; a request costs no timer of its own.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ganserve.settings import Settings
from service.http.middleware import LATE
from service.processes.joined import Joined

# More are no use to one process, and each look takes time in proportion.
MOST = 16384
LOOKS = 4
LONGEST_LOOK_SECONDS = 1.0
# What comes in one piece, of 256 KiB at most, is taken beside.
MOST_HEAD_BYTES = 1 << 16
# What frames a chunked body (sizes, extensions, trailers) may have so many times its bytes, and as much as headers.
MOST_FRAME = 16
# Who sends no more has hung up, or has no more to ask and still reads (RFC 9112, section 9.6). Only an answer would
# tell: after so long without one, it is taken for gone.
UNHEARD_SECONDS = 2.0
# The scope of no request.
_NONE: Any = {}
# Where Linux's ``struct tcp_info`` has the count of bytes that the other side has taken.
ACKNOWLEDGED = 120


def _answer(status: str, detail: str, *more: str) -> bytes:
    fixed = ("content-type: text/plain", "x-content-type-options: nosniff", "cache-control: no-store")
    lines = (f"HTTP/1.1 {status}", *fixed, f"content-length: {len(detail)}", "connection: close", *more)
    return ("\r\n".join(lines) + f"\r\n\r\n{detail}").encode()


UNREADABLE = _answer(
    "400 Bad Request", "this is no request of HTTP/1.1 with one Host and no transfer coding but chunked"
)
LARGE_HEADERS = _answer("431 Request Header Fields Too Large", "the request's headers are too large")
LATE_HEADERS = _answer("408 Request Timeout", "the request's headers took too long")
LATE_BODY = _answer("408 Request Timeout", "the request's body did not get on")
NO_ROOM = _answer("503 Service Unavailable", "too many connections: ask again shortly", "retry-after: 5")


class Connections:
    """The bounds of one process, and the look at its connections.

    Args:
        settings: the deadlines, and how many connections the service takes; they are divided among its processes.
        available: descriptors of one process; never are all of them given to connections.
    """

    def __init__(self, settings: Settings, available: int) -> None:
        self.header, self.body = settings.header_timeout, settings.body_timeout
        # The rest is for models, uploads, the queue, and connections that are being turned away.
        room = max(1, min(MOST, available * 3 // 4))
        wanted = settings.max_connections
        self.most = room if wanted is None else min(room, -(-wanted // settings.processes))
        self.interval = min(LONGEST_LOOK_SECONDS, self.header / LOOKS, self.body / LOOKS)
        self._looking = False

    def look(self, loop: asyncio.AbstractEventLoop, open: set[Any]) -> None:
        """Begin to look, once for all connections of a process."""
        if not self._looking:
            self._looking = True
            loop.call_later(self.interval, self._look, loop, open)

    def _look(self, loop: asyncio.AbstractEventLoop, open: Iterable[Any]) -> None:
        loop.call_later(self.interval, self._look, loop, open)
        now = time.monotonic()
        for connection in [*open]:
            if isinstance(connection, Connection):
                connection.check(now)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol of one connection, which can tell whether the client gets on.

    Args:
        connections: the bounds.
        ended: called when the connection has ended.
    """

    def __init__(self, *args: Any, connections: Connections, ended: Callable[[], None] | None = None, **more: Any):
        super().__init__(*args, **more)
        self.bounds, self._ended = connections, ended
        # Since when headers are awaited (None: they are not), a body or an answer has not got on, and how much of
        # answers was taken (None: nothing waits to be).
        self._awaited: float | None = None
        self._moved = 0.0
        self._taken: int | None = None
        # Bytes of headers that are not complete, and whether the body of a request, answered or not, still comes.
        self._head, self._within = 0, False
        # Bytes that came within the body, and those of them that it has.
        self._framed, self._body = 0, 0
        # What is being parsed.
        self._data = b""
        # Since when the client, whose requests are all here, sends no more.
        self._closed: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or turn it away where there are too many."""
        super().connection_made(cast(asyncio.Transport, Joined(transport, self.loop)))
        self._awaited = time.monotonic()
        self.bounds.look(self.loop, self.connections)
        if len(self.connections) > self.bounds.most:
            self._end(NO_ROOM)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that it has ended."""
        super().connection_lost(exc)
        if exc is not None:
            self._unset_keepalive_if_required()
        if self._ended is not None:
            self._ended()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether to go on, as what was asked for can still be answered; the last answer ends the connection."""
        if self._within or self.cycle is None or self.cycle.response_complete:
            return False
        self._closed, self.cycle.keep_alive = time.monotonic(), False
        return True

    def data_received(self, data: bytes) -> None:
        """Read on; what belongs to no request under way counts as the beginning of the next one's headers."""
        if self.parser is None or self.transport.is_closing():
            return
        self._moved, within = time.monotonic(), self._within
        self._data = data
        super().data_received(data)
        self._data = b""
        if self._awaited is None:
            if self.cycle is None or self.cycle.response_complete:
                self._awaited = self._moved
        elif not (within or self._within):
            self._head += len(data)
            if self._head > MOST_HEAD_BYTES:
                self._end(LARGE_HEADERS)
        if within and self._within:
            self._framed += len(data)
            if self._framed > MOST_HEAD_BYTES + MOST_FRAME * self._body:
                self._end(b"" if self.cycle.response_started else LARGE_HEADERS)

    def on_headers_complete(self) -> None:
        """The deadline of the headers was met."""
        self._awaited, self._head, self._within = None, 0, True
        self._framed, self._body = 0, 0
        version = self.parser.get_http_version()
        hosts = sum(name == b"host" for name, _ in self.headers)
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        # RFC 9112, sections 3.2 and 6.1; and what two readers could take for two things is no request.
        framed = codings == [] or (codings == [b"chunked"] and version == "1.1")
        if version not in ("1.0", "1.1") or (hosts != 1 and (hosts or version == "1.1")) or not framed:
            raise ValueError("expected HTTP/1.1 with one Host, and no coding but chunked")
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("expected a request of this server")
            return
        super().on_headers_complete()
        # What follows a chunked body is no header of the request.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """What comes next is another request."""
        if self.parser.should_upgrade():
            return
        self._within = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Let go of the request: an idle connection keeps nothing of what came last."""
        cycle = self.cycle
        super().on_response_complete()
        if self._closed is not None:
            self._closed = time.monotonic()
        if cycle.response_complete:
            if self.scope is cycle.scope:
                # Else the next request's has begun.
                self.scope, self.url = _NONE, b""
            cycle.scope, cycle.body = _NONE, bytearray()

    def _unsupported_upgrade_warning(self) -> None:
        """Read a request anew that asks for another protocol, as one that does not.

        The parser takes what follows its headers, a body or more requests, for that protocol and leaves it unread;
        clients that would rather speak HTTP/2 ask so with every first request, whatever it carries.
        """
        error = sys.exception()
        assert isinstance(error, httptools.HttpParserUpgrade)
        rest = self._data[error.args[0] :]
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        told = b"".join(b"%b: %b\r\n" % (name, value) for name, value in self.headers if name != b"upgrade")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._data = line + told + b"\r\n" + rest
        super().data_received(self._data)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._end(UNREADABLE)

    def check(self, now: float) -> None:
        """End the connection if the client is late with headers, a body, or reading its answer."""
        cycle, unread = self.cycle, self.transport.get_write_buffer_size()
        if unread:
            taken = self._acknowledged(unread)
            if self._taken is None or taken > self._taken:
                self._moved = now
            self._taken = taken
        else:
            self._taken = None
        stands = now - self._moved > self.bounds.body
        if unread:
            if stands:
                self.transport.abort()
        elif self.transport.is_closing():
            return
        elif self._closed is not None:
            # A streamed answer tells by itself: to write to who has gone resets the connection.
            if now - self._closed > UNHEARD_SECONDS and not (cycle.response_started or self.pipeline):
                self._end(b"")
        elif self._awaited is not None:
            if now - self._awaited > self.bounds.header:
                # A client that has sent nothing at all, or still sends what was answered, has asked for no answer.
                self._end(LATE_HEADERS if self._moved and not self._within else b"")
        # What this side does not read, the client cannot send.
        elif cycle and cycle.more_body and not cycle.response_complete and stands and not self.flow.read_paused:
            cycle.scope["state"][LATE] = True
            self._end(b"" if cycle.response_started else LATE_BODY)

    def _acknowledged(self, unread: int) -> int:
        """How much of the answers the client has taken, in a count that grows.

        What waits here does not tell: it is written anew as it goes, and the system buffers megabytes beyond it, so
        that it may stand for minutes while a slow client reads on.
        """
        if sys.platform != "linux":
            return -unread
        connection = socket.socket(fileno=self.transport.get_extra_info("socket").fileno())
        try:
            told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ACKNOWLEDGED + 8)
        except OSError:
            return -unread
        finally:
            connection.detach()
        return int(struct.unpack_from("=Q", told, ACKNOWLEDGED)[0]) if len(told) >= ACKNOWLEDGED + 8 else -unread

    def _end(self, answer: bytes) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if answer:
            self.transport.write(answer)
        self.transport.close()
