"""The sockets that a service listens on, bound before anything is loaded: what cannot be is said at once."""

from __future__ import annotations

import errno
import logging
import socket

import uvicorn

from ganserve.settings import SettingsError
from service.processes import memory

log = logging.getLogger("uvicorn.error")


def bind(host: str, port: int) -> list[socket.socket]:
    """Bound sockets, not listening yet, one for each address of ``host``, IPv4 first; ``::`` answers IPv4 as well.

    Raises:
        SettingsError: the host or the port cannot be bound; names the setting.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"GANSERVE_HOST or --host is {host!r}: no address of this machine ({error})") from None
    places = sorted({(family, address) for family, _, _, _, address in found}, key=lambda place: place[0])
    made: list[socket.socket] = []
    try:
        for family, address in places:
            # Where any port will do, all addresses have the same.
            chosen = made[0].getsockname()[1] if made else port
            made.append(_bound(family, (address[0], chosen, *address[2:]), host))
    except OSError as error:
        for one in made:
            one.close()
        raise SettingsError(_refusal(host, port, error)) from None
    return made


def _bound(family: int, address: tuple[object, ...], host: str) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def _refusal(host: str, port: int, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        return f"GANSERVE_PORT or --port is {port}: another program listens there; take another, or 0 for a free one"
    if error.errno == errno.EACCES:
        return f"GANSERVE_PORT or --port is {port}: this user may not bind it ({reason}); take one from 1024 on"
    return f"GANSERVE_HOST or --host is {host!r}: no address of this machine ({reason})"


def tell(host: str, listening: socket.socket) -> None:
    """Log the address, as the server does that binds for itself."""
    shown = f"[{host}]" if ":" in host else host
    log.info("Uvicorn running on http://%s:%d (Press CTRL+C to quit)", shown, listening.getsockname()[1])


class Server(uvicorn.Server):
    """A server on sockets that were bound for it, which logs its address once it answers there."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell."""
        await super().startup(sockets)
        memory.settle()
        if sockets:
            tell(self.config.host, sockets[0])
