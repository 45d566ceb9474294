"""Clients of the application, with and without networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from ganserve.card import ModelCard
from ganserve.repository import Repository
from ganserve.settings import Settings
from service.app import create_app
from service.front import Front
from service.state import State
from tests.engines import DummyEngine

ADMIN = {"Authorization": "Bearer admin-secret"}
USER = {"Authorization": "Bearer user-secret"}


Serve = Callable[..., TestClient]


class Answer(Protocol):
    """What tests read of an answer, be it the test client's or that of httpx, which need not be of one library."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> bytes: ...

    @property
    def text(self) -> str: ...

    def json(self) -> Any: ...


def front_of(client: TestClient) -> Front:
    """The application that a test client asks."""
    assert isinstance(client.app, Front)
    return client.app


def state_of(client: TestClient) -> State:
    """The state of the application that a test client asks."""
    return front_of(client).state


@pytest.fixture
def serve(repository: Repository, tmp_path: Path) -> Iterator[Serve]:
    """A started application with other settings than the default ones."""
    clients = []

    def start(*, open_engine: Any = None, **changes: Any) -> TestClient:
        settings = Settings(
            models=repository.root,
            data=tmp_path / "var",
            device="cpu",
            admin_token=SecretStr("admin-secret"),
            lanes=2,
            watch_interval=0.02,
            **changes,
        )
        client = TestClient(create_app(settings, open_engine=open_engine), raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve: Serve) -> TestClient:
    """The application on the tiny networks."""
    return serve()


class Dummies:
    """Makes engines without networks, and keeps them."""

    def __init__(self) -> None:
        self.made: list[DummyEngine] = []

    def __call__(self, card: ModelCard, content: bytes) -> DummyEngine:
        self.made.append(DummyEngine(card))
        return self.made[-1]


@pytest.fixture
def dummies() -> Iterator[Dummies]:
    """Give this to ``serve`` as ``open_engine``; every gate opens at the end."""
    made = Dummies()
    yield made
    for engine in made.made:
        engine.gate.set()
