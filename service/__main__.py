"""``python -m service``: read the settings, choose the tokens, serve.

python -m service --help
python -m service --port 9000 --models /srv/models
"""

from __future__ import annotations

import logging
import logging.config
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import uvicorn
from pydantic import SecretStr

from ganserve import machine, shipped, signals
from ganserve.settings import PREFERRED, Settings, SettingsError, load, misspelt
from service.inference.engine import DeviceUnavailable, providers
from service.observe import logs, tracing
from service.processes import listen, memory
from service.processes.connections import Connection, Connections
from service.processes.count import decide
from service.processes.shared import sharing
from service.processes.supervisor import Supervisor

BAD_SETTINGS = 2

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; exit status 2 for settings that cannot be."""
    memory.keep_small()
    signals.heed()
    try:
        settings = load(sys.argv[1:] if arguments is None else arguments)
        tracing.check(settings.otlp_endpoint)
        if settings.upstream is None:
            providers(settings.device)
        sockets = listen.bind(settings.host, settings.port)
    except (SettingsError, DeviceUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_SETTINGS
    logging.config.dictConfig(logs.config(settings.log_format))
    for told in misspelt():
        log.warning("%s", told)
    _settle(settings)
    if settings.admin_token is None:
        made = secrets.token_urlsafe(24)
        settings = settings.model_copy(update={"admin_token": SecretStr(made)})
        # Printed, not logged: logs are kept and shipped.
        print(f"admin token for this run: {made}", file=sys.stderr, flush=True)
    processes, why = decide(settings)
    settings = settings.model_copy(update={"workers": processes})
    log.info("serving with %d process%s: %s", processes, "es" if processes > 1 else "", why)
    if processes > 1:
        return _serve_processes(settings, sockets[0])
    from service.app import create_app

    server = listen.Server(uvicorn.Config(create_app(settings), **_options(settings)))
    server.run(sockets)
    return 0 if server.started else 1


def _settle(settings: Settings) -> None:
    """Where nobody says which models to serve and none are here, those that come with the package are put here."""
    if "models" in settings.model_fields_set or isinstance(settings.models, str):
        return
    place = settings.models.absolute()
    try:
        version = shipped.settle(place)
    except OSError as error:
        log.warning("%s cannot be made (%s): no model is served until one is there", place, error.strerror or error)
        return
    if version is not None:
        log.info("%s was not there: it now holds the model that is shipped, %s version %d", place, PREFERRED, version)


def _serve_processes(settings: Settings, listener: socket.socket) -> int:
    """Several processes on one bound port; they read the settings again from the environment."""
    os.environ.update(settings.environment())
    with sharing():
        supervisor = Supervisor(
            _options(settings), processes=settings.processes, drain=settings.drain_timeout, listener=listener
        )
        return supervisor.run()


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "loop": "uvloop" if sys.platform != "win32" else "asyncio",
        "http": partial(Connection, connections=Connections(settings, machine.descriptors())),
        "timeout_keep_alive": settings.idle_timeout,
        "ws": "none",
        # Nothing here asks who calls, or by which scheme.
        "proxy_headers": False,
        "access_log": False,
        "server_header": False,
        "log_level": "info",
        # Each process applies it for itself.
        "log_config": logs.config(settings.log_format),
        "timeout_graceful_shutdown": round(settings.drain_timeout),
    }


if __name__ == "__main__":
    sys.exit(main())
