"""A repository of tiny models, and an object store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganserve.repository import Repository
from tests import stores
from tests.tiny import publish


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """``digits``, conditional, and ``plain``, unconditional and in colour; the former is the default by name."""
    made = Repository(tmp_path / "models")
    publish(made, "digits", seed=1)
    publish(made, "plain", seed=2, conditional=False, channels=3)
    return made


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """An S3 server of the tests' own."""
    with stores.s3() as port:
        yield port


@pytest.fixture
def bucket(s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty place in it; the environment is set."""
    monkeypatch.setenv("GANSERVE_DATA", str(tmp_path / "data"))
    for name, value in stores.environment(s3_port).items():
        monkeypatch.setenv(name, value)
    return f"s3://{stores.BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def proxy(s3_port: int, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[stores.Proxy]:
    """What the environment of ``bucket`` leads through."""
    made = stores.Proxy(s3_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.port}")
    yield made
    made.close()
