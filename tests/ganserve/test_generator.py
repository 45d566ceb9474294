from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from ganserve import Client, Generator, errors, generator
from ganserve.repository import Repository
from tests.tiny import publish


@pytest.mark.parametrize("name", ["mnist-projgan", "digits", "plain"])
def test_its_pixels_are_those_of_the_png_at_each_address(server: Any, name: str) -> None:
    images = Generator(server.models / name).generate(n=7, seed=2**53 - 3)
    for address, image in zip(images.addresses, images.images, strict=True):
        found = np.asarray(Image.open(io.BytesIO(httpx.get(server.url + address).content)))
        assert np.array_equal(found.reshape(image.shape), image), address


@pytest.mark.parametrize(
    "asked",
    [
        {"label": "two", "n": 40, "seed": 5},
        {"label": [2, "zero"], "n": 99, "seed": 0},
        {"seeds": [3, 1, 2**53 - 1]},
        {"label": 1, "n": 2, "seed": 7, "version": 1},
        {"n": 3, "seed": 9, "model": "plain"},
        {"n": 3, "seed": 9, "truncation": 0.6},
    ],
)
def test_it_answers_a_call_as_the_service_does(server: Any, client: Client, asked: dict[str, Any]) -> None:
    here, there = Generator(server.models / "digits").generate(**asked), client.generate(**{"model": "digits", **asked})
    assert np.array_equal(here.images, there.images)
    assert here.labels.tolist() == there.labels.tolist()
    assert here.seeds.tolist() == there.seeds.tolist()
    assert here.addresses == there.addresses
    assert (here.class_names, here.latent_recipe) == (there.class_names, there.latent_recipe)


def test_without_a_version_the_live_one_is_looked_up_at_each_call(repository: Repository) -> None:
    local, fixed = Generator(repository.root / "digits"), Generator(repository.root / "digits", version=1)
    assert local.generate(seed=1).version == 1
    publish(repository, "digits", seed=3)
    assert local.generate(seed=1).version == 2
    assert fixed.generate(seed=1).version == 1
    assert local.generate(seed=1, version=1).version == 1


def test_without_a_seed_each_call_draws_one(repository: Repository) -> None:
    local = Generator(repository.root / "digits")
    assert local.generate().seeds[0] != local.generate().seeds[0]


def test_pixels_do_not_depend_on_how_many_runs_go_side_by_side(repository: Repository) -> None:
    one, many = (Generator(repository.root / "digits", threads=threads) for threads in (1, 4))
    asked: dict[str, Any] = {"n": 150, "seed": 0}
    assert np.array_equal(one.generate(**asked).images, many.generate(**asked).images)


def test_where_pixels_depend_on_the_rows_beside_them_runs_have_one_size(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = Generator(repository.root / "digits").generate(n=37, seed=0).images
    monkeypatch.setattr(generator.Network, "_alike", lambda network: False)
    padded = Generator(repository.root / "digits")
    assert np.array_equal(padded.generate(n=37, seed=0).images, free)
    [network] = padded._networks.values()
    sizes = []
    session = network._session

    class Counting:
        def run(self, outputs: Any, feeds: Any) -> Any:
            sizes.append(len(feeds["latent"]))
            return session.run(outputs, feeds)

    network._session = Counting()
    padded.generate(n=37, seed=0)
    assert sizes == [16, 16, 16]


def test_what_is_not_there_is_not_found(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match="no model 'nothing'"):
        Generator(repository.root / "nothing")
    with pytest.raises(errors.NotFound):
        Generator(tmp_path / "no" / "folder")
    local = Generator(repository.root / "digits")
    with pytest.raises(errors.NotFound, match="no version 9"):
        local.generate(version=9)
    with pytest.raises(errors.NotFound, match="no model"):
        local.generate(model="nothing")
    publish(repository, "fresh", live=False)
    with pytest.raises(errors.NotFound, match="no live version"):
        Generator(repository.root / "fresh").generate()


@pytest.mark.parametrize("label", [3, -1, "three", "7"])
def test_a_label_that_the_model_lacks_is_told_with_those_that_it_has(repository: Repository, label: Any) -> None:
    with pytest.raises(errors.Invalid, match="zero, one, two") as raised:
        Generator(repository.root / "digits").generate(label)
    assert raised.value.status == 422
    with pytest.raises(errors.Invalid, match="has no classes"):
        Generator(repository.root / "plain").generate(label)


def test_a_changed_graph_is_never_run(repository: Repository) -> None:
    repository.model_path("digits", 1).write_bytes(b"something else")
    with pytest.raises(errors.Unavailable, match="its card says"):
        Generator(repository.root / "digits").generate()
