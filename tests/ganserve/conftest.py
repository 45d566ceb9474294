"""A service on a real port, for those who call it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pydantic import SecretStr

from ganserve import Client
from ganserve.repository import Repository
from ganserve.settings import Settings
from service.app import create_app
from tests.tiny import publish

FLAGSHIP = Path(__file__).parents[2] / "models" / "mnist-projgan"
ADMIN = "admin-secret"


@dataclass(frozen=True)
class Server:
    """Where it is, the admin's token, and the repository that it serves."""

    url: str
    token: str
    models: Path


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The address of an application on a real port, in a thread."""
    config = uvicorn.Config(app, port=0, ws="none", log_level="error", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The flagship, the tiny conditional ``digits`` and ``plain`` without classes; 100 images an answer at most, and
    grids of no more pixels than 56 of the flagship's have.
    """
    root = tmp_path_factory.mktemp("server")
    models = root / "models"
    shutil.copytree(FLAGSHIP, models / FLAGSHIP.name)
    publish(Repository(models), "digits", seed=1)
    publish(Repository(models), "plain", seed=2, conditional=False, channels=3)
    settings = Settings(
        models=models,
        data=root / "var",
        device="cpu",
        lanes=1,
        admin_token=SecretStr(ADMIN),
        max_images=100,
        max_pixels=60_000,
    )
    with running(create_app(settings)) as url:
        yield Server(url, ADMIN, models)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client with the admin's token."""
    with Client(server.url, token=server.token, timeout=20) as connected:
        yield connected


@pytest.fixture
def place(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, where the environment names it and its token."""
    monkeypatch.setenv("GANSERVE_URL", server.url)
    monkeypatch.setenv("GANSERVE_TOKEN", server.token)
    return server
