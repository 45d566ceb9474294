"""One serving process: connections come from the parent over a Unix socket, and it tells the parent how it is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from ganserve import signals
from service.processes import memory, shared
from service.processes.siblings import Siblings

if TYPE_CHECKING:
    from service.inference.catalogue import Catalogue

APP = "service.app:create_app"
READY, ENDED, ALIVE = b"r", b"e", b"."
# It serves all that its siblings do, or less.
WHOLE, LESS = b"w", b"l"
# Without a word for so long a process is hung. One that other work keeps from its core for a few seconds is not: to be
# killed for that would lose the requests it holds. It says a word so many times in that span.
SILENCE_SECONDS, WORDS = 60.0, 12
COMPARE_SECONDS = 1.0
# Beyond its own time to drain, a process that does not end is ended.
GRACE_SECONDS = 15.0

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A uvicorn server whose connections are handed to it over ``pair``."""

    def __init__(self, config: uvicorn.Config, pair: socket.socket, *, silence: float = SILENCE_SECONDS) -> None:
        super().__init__(config)
        self.pair, self.silence = pair, silence
        self._untold = b""
        folder = shared.place("siblings")
        self._siblings = Siblings(folder) if folder else None
        self._missing: set[str] = set()
        self._whole = True
        self._opening: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start without a listening socket of its own, then take what the parent hands over."""
        await super().startup(sockets=[])
        memory.settle()
        self.pair.setblocking(False)
        self._loop, self._factory = asyncio.get_running_loop(), self._protocol()
        self._loop.add_reader(self.pair, self._receive)
        if self._siblings is not None:
            # At its start there is nothing to wait for: what is missing now counts.
            self._missing = self._served_elsewhere(self._served())
            self._compare()
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

    def _catalogue(self) -> Catalogue | None:
        """The application's, once it has started."""
        found: Catalogue | None = self.lifespan.state.get("catalogue")
        return found

    def _served(self) -> set[str]:
        catalogue = self._catalogue()
        return set() if catalogue is None else catalogue.servable

    def _served_elsewhere(self, served: set[str]) -> set[str]:
        """Tell the siblings what is served here; what only they serve."""
        assert self._siblings is not None
        try:
            self._siblings.tell(served)
            return self._siblings.missing(served)
        except OSError as error:
            # To serve what it can is better than to serve nothing.
            log.warning("what other processes serve cannot be compared: %s", error)
            return set()

    def _compare(self) -> None:
        """Tell whether this process can serve what its siblings do; they see a change a moment apart."""
        self._loop.call_later(COMPARE_SECONDS, self._compare)
        served = self._served()
        if not self._whole and (catalogue := self._catalogue()) is not None:
            # Nobody asks it for what is missing, so nobody else would find that it is there again.
            catalogue.look_again()
        before, self._missing = self._missing, self._served_elsewhere(served)
        less = before & self._missing
        if self._whole == bool(less):
            self._whole = not less
            self._tell(WHOLE if self._whole else LESS)
            if less:
                log.error("%s cannot be served here, as other processes do: no connections are taken", sorted(less))

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
            if not descriptors:
                # It is lost where this process has no descriptor left to take it with.
                log.warning("a connection was lost: no descriptor is left")
                self._tell(ENDED)
            for descriptor in descriptors:
                task = self._loop.create_task(self._open(socket.socket(fileno=descriptor)))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    def _protocol(self) -> Callable[[], Any]:
        """What makes the protocol of one connection, which tells when it has ended."""
        make: Any = self.config.http_protocol_class
        return partial(
            make,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            ended=partial(self._tell, ENDED),
        )

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
    memory.keep_small()
    signals.heed()
    grace = GRACE_SECONDS + (options.get("timeout_graceful_shutdown") or 0)
    threading.Thread(target=end_after_parent, args=(grace,), daemon=True).start()
    Server(uvicorn.Config(APP, factory=True, **options), pair, silence=silence).run()


def end_after_parent(grace: float) -> None:
    """End this process so many seconds after its parent, whatever holds it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        time.sleep(grace)
        os._exit(1)
