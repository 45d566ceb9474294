"""The client against the service itself, where other tests have answers of their own making."""

from __future__ import annotations

import base64
import io
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from ganserve import Client, commands, encode, errors
from ganserve.card import ModelCard
from ganserve.repository import Repository
from ganserve.settings import Settings
from service.app import create_app
from tests.engines import DummyEngine
from tests.ganserve.conftest import running


class Full:
    """A service whose one lane is held and whose queue is full, until ``engine.gate`` is opened."""

    def __init__(self, url: str, engine: DummyEngine) -> None:
        self.url, self.engine = url, engine


@pytest.fixture
def full(repository: Repository, tmp_path: Path) -> Iterator[Full]:
    made: list[DummyEngine] = []

    def open_engine(card: ModelCard, content: bytes) -> DummyEngine:
        made.append(DummyEngine(card))
        return made[-1]

    settings = Settings(
        models=repository.root, data=tmp_path / "var", device="cpu", lanes=1, batch_rows=4, max_queued_images=8
    )
    app = create_app(settings, open_engine=open_engine)
    with running(app) as url, ThreadPoolExecutor(2) as threads:
        [engine] = [engine for engine in made if engine.card.name == "digits"]
        begun = len(engine.batches)
        engine.gate.clear()
        try:
            threads.submit(httpx.get, f"{url}/generate?n=4&seed=1", timeout=60)
            wait_for(lambda: len(engine.batches) > begun)
            threads.submit(httpx.get, f"{url}/generate?n=8&seed=1", timeout=60)
            wait_for(lambda: app.state.batcher.queued == 8)
            yield Full(url, engine)
        finally:
            engine.gate.set()


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_full_service_is_waited_out_as_long_as_it_says(full: Full) -> None:
    refused: list[float] = []

    class Opening(httpx.HTTPTransport):
        """Lets the service work on once it has refused."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            if answer.status_code == 429:
                refused.append(time.monotonic())
                full.engine.gate.set()
            return answer

    with Client(full.url, timeout=30, deadline=60, transport=Opening()) as client:
        assert len(client.generate(n=2, seed=5)) == 2
    assert time.monotonic() - refused[0] >= 1


def test_what_a_full_service_says_is_raised_where_the_deadline_is_nearer(full: Full) -> None:
    with Client(full.url, timeout=30, deadline=0.5) as client, pytest.raises(errors.Overloaded) as raised:
        client.generate(n=2, seed=5)
    assert raised.value.status == 429
    assert raised.value.title == "Too Many Requests"
    assert raised.value.retry_after is not None
    assert raised.value.retry_after >= 1


def test_the_grid_and_the_notebooks_picture_show_the_pixels_of_the_services_own_grid(
    server: Any, client: Client
) -> None:
    asked = {"model": "digits", "n": 9, "seed": 4, "columns": 3, "padding": 1, "scale": 2}
    answer = httpx.post(f"{server.url}/generate", json=asked)
    with Image.open(io.BytesIO(answer.content)) as sheet:
        expected = np.asarray(sheet)
    images = client.generate(model="digits", n=9, seed=4)
    assert np.array_equal(np.asarray(images.grid(columns=3, padding=1, scale=2)), expected)
    found = re.search(r'src="data:image/png;base64,([^"]+)"', images._repr_html_())
    assert found is not None
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as shown:
        scale = -(-56 // images.images.shape[1])
        assert np.array_equal(np.asarray(shown), encode.grid(images.images, scale=scale)[..., 0])


def test_the_commands_show_how_far_they_are(
    place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganserve.progress.DELAY_SECONDS", 0.0)
    asked = ["generate", "--model", "digits", "-n", "250", "--seed", "0", "-o", str(tmp_path / "many.npz")]
    assert commands.main(asked) == 0
    assert "250/250" in capsys.readouterr().err
    assert commands.main([*asked, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    for name in ("cat", "dog"):
        (tmp_path / "shown" / name).mkdir(parents=True)
        for index in range(3):
            Image.new("L", (8, 8), 50 * index).save(tmp_path / "shown" / name / f"{index}.png")
    assert commands.main(["upload", "shown", str(tmp_path / "shown")]) == 0
    assert "upload shown: 100%" in capsys.readouterr().err
