"""An exact version proves on loading that it gives the bytes which its card promises, and only then says so."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from fastapi.testclient import TestClient

from ganserve.card import ModelCard, ModelCorrupt
from ganserve.proof import exact_digest
from ganserve.repository import Repository
from service.inference.engine import OnnxEngine, Placement
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
    assert OnnxEngine.open(wrong, content, Placement(allow_inexact=True)).card.exact


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
