"""``python -m service``: read the settings, choose the tokens, serve."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import tempfile
from typing import Any

import uvicorn
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsError

from service.engine import DeviceUnavailable, choose_provider
from service.settings import Settings


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; exit status 2 for settings that cannot be."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        settings = Settings(_cli_parse_args=True)
        choose_provider(settings.device)
    except ValidationError as error:
        for fault in error.errors():
            where = "_".join(map(str, fault["loc"])) or "settings"
            print(f"error: GANSERVE_{where.upper()}: {fault['msg']}", file=sys.stderr)
        return 2
    except (SettingsError, DeviceUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if settings.admin_token is None:
        made = secrets.token_urlsafe(24)
        settings = settings.model_copy(update={"admin_token": SecretStr(made)})
        print(f"admin token for this run: {made}", file=sys.stderr, flush=True)
    if settings.workers > 1:
        return _serve_processes(settings)
    from service.app import create_app

    app = create_app(settings)
    server = _Server(uvicorn.Config(app, **_options(settings)))
    server.app_state = app.state
    server.run()
    return 0 if server.started else 3


class _Server(uvicorn.Server):
    """Says that it is draining as soon as it is told to stop."""

    app_state: Any = None

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.app_state.draining = True
        super().handle_exit(sig, frame)


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "loop": "uvloop" if sys.platform != "win32" else "asyncio",
        "http": "httptools",
        "ws": "none",
        "access_log": False,
        "server_header": False,
        "log_level": "info",
        "timeout_graceful_shutdown": int(settings.drain_timeout) or 1,
    }


def _serve_processes(settings: Settings) -> int:
    """Several processes on one port; they read the settings again from the environment."""
    for name, value in settings.model_dump(exclude_none=True).items():
        told = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        os.environ[f"GANSERVE_{name.upper()}"] = told
    shared = tempfile.mkdtemp(prefix="ganserve-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
    try:
        uvicorn.run("service.app:create_app", factory=True, workers=settings.workers, **_options(settings))
    finally:
        shutil.rmtree(shared, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
