"""An exact version proves on loading that it gives the bytes which its card promises, and only then says so."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from fastapi.testclient import TestClient

from ganserve.card import ModelCard, ModelCorrupt
from ganserve.grid import grid_latents
from ganserve.proof import exact_digest
from ganserve.repository import Repository
from service.inference import engine
from service.inference.engine import CPU, CUDA, OnnxEngine, Placement
from tests.service.conftest import Serve
from tests.tiny import CLASSES, Z, card, network

GRID = "philox-grid/v1"


def proven(content: bytes, name: str = "whole") -> ModelCard:
    """A card whose digest is that of what the network gives here."""
    plain = card(name, latent_recipe=GRID)
    engine = OnnxEngine.open(plain, content)
    digest = exact_digest(lambda z, y: engine.run(z, None if y is None else y[:, 0]), GRID, Z, len(CLASSES))
    return plain.model_copy(update={"exact": True, "exact_digest": digest})


def test_a_version_that_gives_the_promised_bytes_is_opened() -> None:
    content = network()
    assert OnnxEngine.open(proven(content), content).card.exact


@pytest.mark.parametrize("batch", [1, 7, 256])
def test_the_proof_does_not_depend_on_how_rows_are_batched(batch: int) -> None:
    content = network()
    engine = OnnxEngine.open(card("m", latent_recipe=GRID), content, Placement(max_rows=256))

    def run(latent: np.ndarray, label: np.ndarray | None) -> np.ndarray:
        assert label is not None
        return engine.run(latent, label[:, 0])

    assert exact_digest(run, GRID, Z, len(CLASSES), batch=batch) == proven(content).exact_digest


def test_one_that_gives_others_is_refused_unless_that_is_allowed() -> None:
    content = network()
    wrong = proven(content).model_copy(update={"exact_digest": hashlib.sha256(b"others").hexdigest()})
    with pytest.raises(ModelCorrupt, match=r"promises the same bytes everywhere.*GANSERVE_ALLOW_INEXACT"):
        OnnxEngine.open(wrong, content)
    assert OnnxEngine.open(wrong, content, Placement(allow_inexact=True)).exact is None


SESSION = onnxruntime.InferenceSession
SHIPPED = Repository(Path(__file__).parents[3] / "models")


class Sessions:
    """onnxruntime, on whose provider graphs that hold one of the ``broken`` operators give other pixels, or none."""

    def __init__(self, provider: str, *broken: bytes, fails: bool = False) -> None:
        self.provider, self.broken, self.fails = provider, broken, fails
        self.opened: list[bool] = []

    def __call__(self, content: bytes, options: Any, providers: list[Any]) -> Any:
        made = SESSION(content, options, providers=[CPU])
        self.opened.append(b"MatMulInteger" in content)
        made.get_providers = lambda: [self.provider, CPU]
        run = made.run

        def broken(outputs: Any, feed: dict[str, Any], options: Any) -> Any:
            if self.fails and len(feed["latent"]) > 1:
                raise RuntimeError("NOT_IMPLEMENTED: no kernel of it")
            return [image ^ 1 for image in run(outputs, feed, options)]

        if any(name in content for name in self.broken):
            made.run = broken
        return made


# As they stand in a file: the twin's operator with its length before it.
WHOLE, TWIN = b"MatMulInteger", b"\x06MatMul"


def exact_engine(
    monkeypatch: pytest.MonkeyPatch, sessions: Sessions, *, inexact: bool = False
) -> tuple[OnnxEngine, bytes]:
    """The shipped flagship as those sessions open it, and what it gives of its first 40 seeds."""
    monkeypatch.setattr(onnxruntime, "InferenceSession", sessions)
    cuda = sessions.provider == CUDA
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU] if cuda else [CPU])
    monkeypatch.setattr(engine, "_cuda_problem", lambda: None)
    version = max(v for v in SHIPPED.versions("mnist-projgan") if SHIPPED.card("mnist-projgan", v).exact)
    card, content = SHIPPED.read("mnist-projgan", version)
    opened = OnnxEngine.open(card, content, Placement("cuda" if cuda else "cpu", allow_inexact=inexact))
    latent = grid_latents(card.latent_recipe, np.arange(32), card.z)
    return opened, opened.run(latent, np.arange(32) % 10).tobytes()


@pytest.mark.parametrize(
    ("sessions", "form", "tried"),
    [
        (Sessions(CPU), "whole numbers", [True]),
        (Sessions(CPU, WHOLE), "float32 twin", [True, False]),
        (Sessions(CPU, WHOLE, fails=True), "float32 twin", [True, False]),
        (Sessions(CUDA), "float32 twin", [False]),
        (Sessions(CUDA, TWIN), "whole numbers", [False, True]),
    ],
    ids=["plainly", "other pixels", "no kernel", "on CUDA", "on CUDA, other pixels of the twin"],
)
def test_the_form_that_gives_the_promised_bytes_is_taken_and_both_give_the_same(
    monkeypatch: pytest.MonkeyPatch, sessions: Sessions, form: str, tried: list[bool]
) -> None:
    _, expected = exact_engine(monkeypatch, Sessions(CPU))
    opened, images = exact_engine(monkeypatch, sessions)
    assert (opened.exact, opened.provider, sessions.opened) == (form, sessions.provider, tried)
    assert images == expected


def test_a_version_that_no_form_gives_is_left_out_or_served_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelCorrupt, match="CPUExecutionProvider gives others here"):
        exact_engine(monkeypatch, Sessions(CPU, WHOLE, TWIN))
    opened, _ = exact_engine(monkeypatch, Sessions(CPU, WHOLE, TWIN), inexact=True)
    assert opened.exact is None


def test_ready_tells_what_is_exact_and_in_which_form(repository: Repository, serve: Serve) -> None:
    publish(repository, "whole", sound=True)
    client = serve()
    assert client.get("/generate?model=whole&seed=1").status_code == 200
    assert client.get("/health/ready").json()["exact"] == {"whole:1": "whole numbers"}


def publish(repository: Repository, name: str, *, sound: bool) -> None:
    content = network(seed=3)
    told = proven(content, name)
    if not sound:
        told = told.model_copy(update={"exact_digest": "0" * 64})
    repository.promote(name, repository.publish(told, content, b""))


def tag(client: TestClient, name: str) -> str:
    answer = client.get(f"/images/{name}/1/0/5.png")
    assert answer.status_code == 200, answer.text
    return str(answer.headers["etag"])


def test_answers_of_an_exact_version_have_strong_tags_and_of_a_float_one_weak_ones(
    repository: Repository, serve: Serve
) -> None:
    publish(repository, "whole", sound=True)
    client = serve()
    assert tag(client, "whole").startswith('"')
    assert tag(client, "digits").startswith('W/"')
    again = client.get("/images/whole/1/0/5.png", headers={"If-None-Match": f"W/{tag(client, 'whole')}"})
    assert again.status_code == 304, "tags are compared weakly, as HTTP says"
    assert client.get("/morph?model=whole&from=1&to=2").headers["etag"].startswith('W/"')


def test_a_version_whose_proof_fails_is_left_out_with_the_reason(repository: Repository, serve: Serve) -> None:
    publish(repository, "liar", sound=False)
    client = serve()
    answer = client.get("/generate?model=liar&seed=1")
    assert answer.status_code == 503
    assert "promises the same bytes" in answer.json()["detail"]
    assert "promises the same bytes" in client.get("/health/ready").json()["left_out"]["liar"]


def test_where_it_is_allowed_it_is_served_with_weak_tags(repository: Repository, serve: Serve) -> None:
    publish(repository, "liar", sound=False)
    assert tag(serve(allow_inexact=True), "liar").startswith('W/"')
