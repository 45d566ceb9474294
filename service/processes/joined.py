"""A transport that sends the beginning of an answer together with what follows it.

uvicorn writes an answer's head and its body one after the other, and an event loop sends each as it is written: two
system calls here, two segments on the wire, two reads at the client, for what is a kilobyte in all.
"""

from __future__ import annotations

import asyncio
from typing import Any

# More than this is sent as it is: copying it costs more than a system call.
MOST_BYTES = 1 << 16


class Joined:
    """A transport around another one: what is written first in a round of the loop waits for what is written next,
    and no longer than until the next round.

    Args:
        transport: what sends; all that is not told here is its own.
        loop: that of the transport.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""
        self._due = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, or keep for the next one."""
        if self._held:
            held, self._held = self._held, b""
            if len(data) <= MOST_BYTES:
                self._transport.write(held + data)
            else:
                self._transport.write(held)
                self._transport.write(data)
        elif len(data) > MOST_BYTES:
            self._transport.write(data)
        elif data:
            self._held = data
            if not self._due:
                self._due = True
                self._loop.call_soon(self._round)

    def close(self) -> None:
        """End the connection after all that was written."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._held = b""
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that were written and not sent yet."""
        return len(self._held) + self._transport.get_write_buffer_size()

    def _round(self) -> None:
        self._due = False
        self._flush()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)
