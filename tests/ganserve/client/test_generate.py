from __future__ import annotations

import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from ganserve import Client, Generator, errors
from ganserve.client import generating
from ganserve.client.exchange import Reply

LAST = 2**53 - 1


class Recorded(httpx.BaseTransport):
    """The network, with the bodies and queries that went over it."""

    def __init__(self) -> None:
        self.network = httpx.HTTPTransport()
        self.asked: list[dict[str, Any]] = []
        self.statuses: list[int] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        content = request.read()
        if request.url.path == "/generate":
            self.asked.append(json.loads(content))
        elif request.url.path == "/datasets/synthetic":
            self.asked.append(dict(request.url.params))
        response = self.network.handle_request(request)
        self.statuses.append(response.status_code)
        return response

    def close(self) -> None:
        self.network.close()


def pixels(client: Client, server: Any, address: str) -> Any:
    image = Image.open(io.BytesIO(httpx.get(server.url + address).content))
    return np.asarray(image).reshape(np.asarray(image).shape[0], np.asarray(image).shape[1], -1)


@pytest.mark.parametrize("model", ["mnist-projgan", "digits", "plain"])
def test_each_image_is_the_one_at_its_address(client: Client, server: Any, model: str) -> None:
    images = client.generate(n=5, seed=LAST - 2, model=model)
    assert images.images.dtype == np.uint8
    assert images.seeds.tolist() == [LAST - 2, LAST - 1, LAST, 0, 1]
    for address, image in zip(images.addresses, images.images, strict=True):
        assert np.array_equal(pixels(client, server, address), image)


def test_labels_index_the_class_names_and_are_minus_one_without_classes(client: Client) -> None:
    images = client.generate(label="two", n=2, model="digits")
    assert [images.class_names[label] for label in images.labels] == ["two", "two"]
    plain = client.generate(n=2, model="plain")
    assert plain.labels.tolist() == [-1, -1]
    assert plain.class_names == ()
    assert plain.addresses[0] == f"/images/plain/1/-/{plain.seeds[0]}.png"


def test_numpys_numbers_and_arrays_are_labels_and_seeds_too(client: Client) -> None:
    version: Any = np.int64(1)
    images = client.generate(label=np.array([2, 0]), seeds=np.array([5, 9]), model="digits", version=version)
    assert images.labels.tolist() == [2, 0]
    assert images.seeds.tolist() == [5, 9]
    seed: Any = np.uint64(7)
    assert client.generate(label=np.array(1), seed=seed, model="digits").labels.tolist() == [1]


@pytest.mark.parametrize(
    ("label", "labels"),
    [
        (None, np.arange(250) % 3),
        ("one", np.ones(250)),
        (["two", 0, 1, 1], np.resize([2, 0, 1, 1], 250)),
    ],
)
def test_more_images_than_the_server_gives_at_once_come_in_pieces_and_are_the_same(
    server: Any, label: Any, labels: Any
) -> None:
    transport = Recorded()
    with Client(server.url, transport=transport) as client:
        images = client.generate(label, n=250, seed=LAST - 100, model="digits")
        alone = [client.generate(images.labels[i], seeds=[images.seeds[i]], model="digits") for i in (120, 249)]
    assert len(images) == 250
    assert images.labels.tolist() == labels.tolist()
    assert images.seeds.tolist() == [(LAST - 100 + i) % 2**53 for i in range(250)]
    assert np.array_equal(images.images[120], alone[0].images[0])
    assert np.array_equal(images.images[249], alone[1].images[0])
    assert transport.statuses.count(422) == 1, "the limit is learnt once"


def test_the_first_piece_settles_seed_and_version_so_that_a_promotion_on_the_way_changes_nothing(server: Any) -> None:
    transport = Recorded()
    with Client(server.url, transport=transport) as client:
        images = client.generate(n=150, model="digits")
    first, *others = [asked for asked, status in zip(transport.asked, transport.statuses, strict=False)][1:]
    assert "version" not in first
    assert all(asked["version"] == 1 for asked in others)
    assert np.array_equal(images.seeds, (images.seeds[0] + np.arange(150, dtype=np.uint64)) % np.uint64(2**53))


def test_listed_seeds_are_split_with_the_images(client: Client) -> None:
    seeds = [int(seed) for seed in np.random.default_rng(0).integers(0, 2**53, 130)]
    assert client.generate(seeds=seeds, model="digits").seeds.tolist() == seeds


def test_where_a_grid_would_have_too_many_pixels_pieces_are_smaller(server: Any) -> None:
    transport = Recorded()
    with Client(server.url, transport=transport) as client:
        images = client.generate(label=3, n=120, seed=0)
        assert len(images) == 120
        assert transport.statuses.count(422) == 2
        client.generate(label=3, n=120, seed=0)
        assert transport.statuses.count(422) == 2
    assert max(asked["n"] for asked in transport.asked[-3:]) == 50


def test_a_piece_has_a_bounded_number_of_bytes() -> None:
    known = generating.Known()
    assert known.piece(28 * 28) * 28 * 28 <= generating.PIECE_BYTES
    assert known.piece(1 << 30) == 1


def test_a_refusal_for_another_reason_teaches_no_limit() -> None:
    known = generating.Known()
    refused = Reply(422, {}, json.dumps({"detail": "model digits has no label 9"}).encode())
    assert not known.learn(refused, 256)
    one = Reply(422, {}, json.dumps({"detail": "the grid would be 900 x 900 pixels: at most 5"}).encode())
    assert not known.learn(one, 1)
    assert known.limit is None


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"seed": 1, "seeds": [2]}, "exclude each other"),
        ({"n": 0}, "n is 0"),
        ({"n": 2, "seeds": [1]}, "n is 2 but 1 seeds"),
        ({"label": [0, 1, 2], "n": 2}, "3 labels for 2 images"),
        ({"label": []}, "empty list"),
        ({"seed": 2**53}, "out of range"),
        ({"seed": -1}, "out of range"),
        ({"label": 1.5}, "a class name or an index"),
        ({"n": True}, "a whole number"),
        ({"label": 99, "model": "digits"}, "has no label 99"),
    ],
)
def test_what_cannot_be_used_says_what_would_be_right(client: Client, asked: Any, told: str) -> None:
    with pytest.raises(errors.Invalid, match=told) as raised:
        client.generate(**asked)
    assert raised.value.status == 422


def test_an_unknown_model_is_not_found_and_names_the_known_ones(client: Client) -> None:
    with pytest.raises(errors.NotFound, match="mnist-projgan"):
        client.generate(model="nothing")


def test_batches_of_a_stream_are_the_rows_of_one_data_set_of_one_version(server: Any) -> None:
    transport = Recorded()
    with Client(server.url, transport=transport) as client:
        batches = list(client.stream(n=25, batch=10, model="digits", seed=7))
        rest = next(client.stream(n=5, model="digits", seed=7, offset=20))
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert np.concatenate([batch.seeds for batch in batches]).tolist() == list(range(7, 32))
    assert np.concatenate([batch.labels for batch in batches]).tolist() == [row % 3 for row in range(25)]
    assert np.array_equal(rest.images, batches[-1].images)
    assert [asked.get("version") for asked in transport.asked[:3]] == [None, "1", "1"]


def test_a_stream_without_an_end_is_read_as_far_as_one_likes(client: Client) -> None:
    rows = client.stream(batch=3, model="digits", balanced=False)
    assert [next(rows).seeds[0] for _ in range(3)] == [0, 3, 6]


def test_a_stream_refuses_before_it_is_read(client: Client) -> None:
    with pytest.raises(errors.Invalid, match="batch is 0"):
        client.stream(batch=0)


def test_a_truncation_goes_with_every_piece_and_every_batch_of_a_stream(server: Any) -> None:
    with Client(server.url) as client:
        pieces = client.generate(n=130, seed=7, model="digits", truncation=0.5)
        (rows,) = client.stream(n=5, batch=5, model="digits", seed=7, truncation=0.5)
        whole = client.generate(n=5, seed=7, model="digits")
    local = Generator(server.models / "digits").generate(n=130, seed=7, truncation=0.5)
    assert np.array_equal(pieces.images, local.images)
    assert np.array_equal(rows.images, local.images[:5])
    assert not np.array_equal(rows.images, whole.images)
    assert rows.addresses[0] == "/images/digits/1/0/7.png?truncation=0.5"
    for wrong in (0, 1.2, 0.123, "half", float("nan")):
        with pytest.raises(errors.Invalid, match="whole hundredths"):
            client.generate(truncation=wrong)  # type: ignore[arg-type]
