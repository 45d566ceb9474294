"""Several processes behind one port: one accepts, and hands each connection to the process that holds the fewest.

Processes that wait on one listening socket take connections as they happen to wake, and kept-alive connections can all
end up with one of them while the others idle. Here the parent alone accepts; the descriptor of a connection goes to its
process over a Unix socket (``SCM_RIGHTS``), and the parent never reads a byte of it. Over the same socket a process
tells, a byte each, that it is ready, that a connection has ended, and that it is alive.

A process that dies or hangs is replaced; the others go on. When the parent goes, however it goes, its processes end as
after SIGTERM.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import selectors
import signal
import socket
import time
from collections.abc import Mapping
from multiprocessing.context import SpawnProcess
from typing import Any

import uvicorn

from service.processes import listen, shared
from service.processes.server import (
    APP,
    ENDED,
    GRACE_SECONDS,
    LESS,
    READY,
    SILENCE_SECONDS,
    WHOLE,
    WORDS,
    serve,
)
from service.processes.siblings import Siblings

# A process that dies young is not started again at once.
RESTART_SECONDS = 1.0
BACKLOG = 2048
# Connections handed out before the parent looks at anything else.
AT_ONCE = 64
# Clients wait for all processes to be ready, but not longer than this for the last ones after the first.
START_SECONDS = 60.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

log = logging.getLogger(__name__)


class _Child:
    """A serving process as its parent sees it."""

    def __init__(self, options: Mapping[str, Any], silence: float) -> None:
        self.pair, theirs = socket.socketpair()
        self.pair.setblocking(False)
        spawn = multiprocessing.get_context("spawn")
        self.process: SpawnProcess = spawn.Process(target=serve, args=(theirs, dict(options), silence))
        self.process.start()
        theirs.close()
        self.started = self.heard = time.monotonic()
        self.ready, self.whole, self.held = False, True, 0

    def hear(self) -> None:
        """Read what it tells."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            told = self.pair.recv(4096)
            self.heard = time.monotonic()
            self.ready = self.ready or READY in told
            if WHOLE in told or LESS in told:
                self.whole = told.rfind(WHOLE) > told.rfind(LESS)
            self.held -= told.count(ENDED)

    def hand(self, connection: socket.socket) -> bool:
        """Give it a connection; False if it takes none."""
        try:
            socket.send_fds(self.pair, [READY], [connection.fileno()])
        except OSError:
            return False
        self.held += 1
        return True


class Supervisor:
    """The parent: accepts, hands out, and keeps ``processes`` serving processes alive.

    Args:
        options: of :class:`uvicorn.Config`; the application is ``service.app:create_app`` and reads its settings
            from the environment.
        processes: how many.
        drain: seconds that a stopping process may take for what it has begun.
        silence: seconds after which a process that says nothing is taken for hung.
        listener: a bound socket; None: bound as the options say.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        processes: int,
        drain: float,
        silence: float = SILENCE_SECONDS,
        listener: socket.socket | None = None,
    ) -> None:
        self._bound = listener
        self.options, self.processes, self.drain, self.silence = options, processes, drain, silence
        self.children: list[_Child] = []
        self._due: list[float] = []
        self._selector = selectors.DefaultSelector()
        self._listening = False
        self._begun = False
        self._first_ready: float | None = None
        self._turn = 0
        self._held_back: socket.socket | None = None

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; an exit status, not 0 if a process could not start."""
        self.listener = self._bound or listen.bind(self.options["host"], self.options["port"])[0]
        # Logs as the processes do.
        uvicorn.Config(APP, factory=True, **self.options)
        listen.tell(self.options["host"], self.listener)
        self.listener.setblocking(False)
        self.listener.listen(BACKLOG)
        waker, woken = socket.socketpair()
        for end in (waker, woken):
            end.setblocking(False)
        before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        wakeup = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        self._selector.register(woken, selectors.EVENT_READ)
        try:
            for _ in range(self.processes):
                self._start()
            while not (status := self._round(woken)):
                pass
            self.listener.close()
            self._stop(woken)
            return 0 if status == "stopped" else 1
        finally:
            for child in self.children:
                child.process.kill()
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            self.listener.close()
            self._selector.close()
            waker.close()
            woken.close()

    def _start(self) -> None:
        child = _Child(self.options, self.silence)
        self.children.append(child)
        self._selector.register(child.pair, selectors.EVENT_READ, child)
        self._selector.register(child.process.sentinel, selectors.EVENT_READ, child)

    def _round(self, woken: socket.socket) -> str | None:
        """Wait for something to happen and see to it; why to end, if to end."""
        if self._held_back is not None and self._hand(self._held_back):
            self._held_back = None
        # Until processes are ready to take them, clients wait in the backlog.
        self._begun = self._begun or self._may_begin()
        ready = self._begun and self._held_back is None and any(child.ready for child in self.children)
        if ready != self._listening:
            if ready:
                self._selector.register(self.listener, selectors.EVENT_READ)
            else:
                self._selector.unregister(self.listener)
            self._listening = ready
        for key, _ in self._selector.select(1.0):
            if key.fileobj is woken:
                woken.recv(64)
                return "stopped"
            if key.fileobj is self.listener:
                self._accept()
            elif isinstance(key.data, _Child) and key.fileobj is key.data.pair:
                key.data.hear()
        return self._tend()

    def _may_begin(self) -> bool:
        """All processes are ready, or some have been for long."""
        ready = sum(child.ready for child in self.children)
        if ready and self._first_ready is None:
            self._first_ready = time.monotonic()
        late = self._first_ready is not None and time.monotonic() - self._first_ready > START_SECONDS
        return ready == self.processes or (ready > 0 and late)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self.listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Out of descriptors, most of all; they come back as connections end.
                log.warning("a connection could not be accepted: %s", error)
                time.sleep(0.05)
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self._hand(connection):
                self._held_back = connection
                return

    def _hand(self, connection: socket.socket) -> bool:
        """Give a connection to the process that holds the fewest, of several in turn; False if none takes it."""
        self._turn += 1
        ready = [child for child in self.children if child.ready]
        # Where each lacks what another serves, some of it is better than nothing.
        ready = [child for child in ready if child.whole] or ready
        start = self._turn % max(1, len(ready))
        for child in sorted(ready[start:] + ready[:start], key=lambda child: child.held):
            if child.hand(connection):
                connection.close()
                return True
        return False

    def _tend(self) -> str | None:
        """Replace processes that died or fell silent."""
        now = time.monotonic()
        for child in [*self.children]:
            if child.process.is_alive():
                if now - child.heard > self.silence * (1 if child.ready else WORDS):
                    log.error("process %s says nothing and is killed", child.process.pid)
                    child.process.kill()
                continue
            self._forget(child)
            if not child.ready and (child.process.exitcode or 0) > 0 and not self._begun:
                # It would fail the same way every time; one that was killed would not.
                log.error("process %s could not start", child.process.pid)
                return "failed"
            log.warning("process %s died (%s) and is replaced", child.process.pid, child.process.exitcode)
            self._due.append(max(now, child.started + RESTART_SECONDS))
        for due in [due for due in self._due if due <= now]:
            self._due.remove(due)
            self._start()
        return None

    def _forget(self, child: _Child) -> None:
        self.children.remove(child)
        self._selector.unregister(child.pair)
        self._selector.unregister(child.process.sentinel)
        child.pair.close()
        child.process.join()
        if (folder := shared.place("siblings")) is not None and child.process.pid is not None:
            Siblings.forget(folder, child.process.pid)

    def _stop(self, woken: socket.socket) -> None:
        """End all processes; a second signal makes them drop what they have begun."""
        end = time.monotonic() + self.drain + GRACE_SECONDS
        number: int | None = signal.SIGTERM
        while self.children and time.monotonic() < end:
            for child in self.children:
                if number is not None and child.process.pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child.process.pid, number)
            number = None
            for key, _ in self._selector.select(0.5):
                if key.fileobj is woken:
                    woken.recv(64)
                    number = signal.SIGINT
                elif isinstance(key.data, _Child) and key.fileobj is key.data.pair:
                    key.data.hear()
            for child in [child for child in self.children if not child.process.is_alive()]:
                self._forget(child)
