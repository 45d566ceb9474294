"""One serving process: connections come from the parent over a Unix socket, and it tells the parent how it is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import uvicorn

APP = "service.app:create_app"
READY, ENDED, ALIVE = b"r", b"e", b"."
# Without a word for so long a process is hung. One that other work keeps from its core for a few seconds is not: to be
# killed for that would lose the requests it holds. It says a word so many times in that span.
SILENCE_SECONDS, WORDS = 60.0, 12

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A uvicorn server whose connections are handed to it over ``pair``."""

    def __init__(self, config: uvicorn.Config, pair: socket.socket, *, silence: float = SILENCE_SECONDS) -> None:
        super().__init__(config)
        self.pair, self.silence = pair, silence
        self._untold = b""
        self._opening: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start without a listening socket of its own, then take what the parent hands over."""
        await super().startup(sockets=[])
        self.pair.setblocking(False)
        self._loop, self._factory = asyncio.get_running_loop(), self._protocol()
        self._loop.add_reader(self.pair, self._receive)
        self._tell(READY)
        self._live()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections and let the open ones finish."""
        self._loop.remove_reader(self.pair)
        await super().shutdown(sockets=[])

    def _tell(self, message: bytes) -> None:
        self._untold += message
        with contextlib.suppress(OSError):
            sent = self.pair.send(self._untold)
            self._untold = self._untold[sent:]

    def _live(self) -> None:
        self._tell(ALIVE)
        self._loop.call_later(self.silence / WORDS, self._live)

    def _receive(self) -> None:
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self.pair, 1, 1)
            except BlockingIOError:
                return
            except OSError:
                message, descriptors = b"", []
            if not message:
                # The parent has gone, and nobody would ever stop this process.
                self._loop.remove_reader(self.pair)
                self.should_exit = True
                return
            for descriptor in descriptors:
                task = self._loop.create_task(self._open(socket.socket(fileno=descriptor)))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    def _protocol(self) -> Callable[[], Any]:
        """What makes the protocol of one connection, which tells when it has ended."""
        server = self
        base: Any = self.config.http_protocol_class

        class Protocol(base):  # type: ignore[misc]
            def connection_lost(self, error: Exception | None) -> None:
                super().connection_lost(error)
                server._tell(ENDED)

        return partial(Protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def _open(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(self._factory, connection, ssl=self.config.ssl)
        except OSError as error:
            log.debug("a connection ended before it was served: %s", error)
            connection.close()
            self._tell(ENDED)


def serve(pair: socket.socket, options: Mapping[str, Any], silence: float) -> None:
    """The main function of a serving process."""
    Server(uvicorn.Config(APP, factory=True, **options), pair, silence=silence).run()
