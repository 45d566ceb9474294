import io
import itertools
import json
import tracemalloc

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageSequence

from ganserve.latents import MAX_SEED, RECIPES, latents
from ganserve.repository import Repository
from service.morph import animate, there_and_back, walk
from tests.service.conftest import USER, Dummies, Serve
from tests.tiny import SIDE, card, network

NORMAL, UNIFORM = "philox-normal/v1", "philox-uniform/v1"


def frames(content: bytes, mode: str) -> list[np.ndarray]:
    with Image.open(io.BytesIO(content)) as film:
        return [np.asarray(frame.convert(mode)) for frame in ImageSequence.Iterator(film)]


def single(client: TestClient, path: str) -> np.ndarray:
    answer = client.get(path)
    assert answer.status_code == 200
    return np.asarray(Image.open(io.BytesIO(answer.content)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_walk_begins_and_ends_at_the_latents_of_its_seeds(recipe: str) -> None:
    path = walk(recipe, 3, 9, 100, 11)
    assert path.dtype == np.float32
    assert np.array_equal(path[[0, -1]], latents(recipe, [3, 9], 100))


def test_normal_latents_keep_their_length_and_uniform_ones_go_straight() -> None:
    path = walk(NORMAL, 3, 9, 100, 11)
    lengths = np.linalg.norm(path, axis=1)
    assert lengths.min() > 0.98 * min(lengths[0], lengths[-1])
    steps = [np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.pairwise(path)]
    assert max(np.arccos(steps)) < 1.3 * min(np.arccos(steps))
    straight = walk(UNIFORM, 3, 9, 100, 3)
    assert np.allclose(straight[1], (straight[0] + straight[2]) / 2, atol=1e-6)


def test_a_walk_to_where_it_began_stands_still() -> None:
    path = walk(NORMAL, 3, 3, 100, 5)
    assert np.allclose(path, path[0], atol=1e-6)


def test_there_and_back_shows_neither_end_twice() -> None:
    assert there_and_back(np.arange(4, dtype=np.uint8)).tolist() == [0, 1, 2, 3, 2, 1]
    assert there_and_back(np.arange(2, dtype=np.uint8)).tolist() == [0, 1]


@pytest.mark.parametrize("form", ["webp", "gif"])
def test_the_end_frames_are_the_addressed_images(client: TestClient, form: str) -> None:
    answer = client.get(f"/morph?model=digits&label=two&from=5&to=70&frames=9&format={form}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == f"image/{form}"
    shown = frames(answer.content, "L")
    assert len(shown) == 9
    assert np.array_equal(shown[0], single(client, "/images/digits/1/2/5.png"))
    assert np.array_equal(shown[-1], single(client, "/images/digits/1/2/70.png"))
    assert not np.array_equal(shown[4], shown[0])


def test_webp_is_exact_in_colour_too_and_a_gif_is_near(client: TestClient) -> None:
    query = "/morph?model=plain&from=5&to=70&frames=4&scale=3"
    for form, most in (("webp", 0), ("gif", 32)):
        shown = frames(client.get(f"{query}&format={form}").content, "RGB")
        for frame, seed in ((shown[0], 5), (shown[-1], 70)):
            assert frame.shape == (3 * SIDE, 3 * SIDE, 3)
            expected = single(client, f"/images/plain/1/-/{seed}.png").astype(int)
            assert np.abs(frame[::3, ::3] - expected).max() <= most


@pytest.mark.parametrize("form", ["webp", "gif"])
def test_bounce_goes_back_and_fps_sets_the_pace(client: TestClient, form: str) -> None:
    answer = client.get(f"/morph?from=5&to=70&frames=6&bounce=true&fps=20&format={form}")
    shown = frames(answer.content, "L")
    assert len(shown) == 10
    for index in range(1, 5):
        assert np.array_equal(shown[index], shown[-index])
    with Image.open(io.BytesIO(answer.content)) as film:
        assert film.info["loop"] == 0
        film.seek(1)
        film.load()
        assert film.info["duration"] == 50


@pytest.mark.parametrize("form", ["webp", "gif"])
def test_every_frame_comes_back_as_it_was(form: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    shown = frames(animate(images, form, 40), "L")  # type: ignore[arg-type]
    assert np.array_equal(np.stack(shown), images[..., 0])


def test_a_walk_has_an_address_that_caches_keep(client: TestClient) -> None:
    query = "/morph?model=digits&version=1&from=5&to=70&label=1"
    first = client.get(query)
    headers = first.headers
    assert (headers["x-model"], headers["x-model-version"], headers["x-seed"]) == ("digits", "1", "5,70")
    assert headers["x-latent-recipe"] == NORMAL
    assert headers["cache-control"] == "public, max-age=31536000, immutable"
    assert client.get(query).content == first.content
    assert client.get(query, headers={"If-None-Match": headers["etag"]}).status_code == 304
    for other in ("&fps=13", "&bounce=1", "&scale=2", "&frames=25", "&format=gif"):
        assert client.get(query + other).headers["etag"] != headers["etag"]
    assert client.get(query.replace("label=1", "label=one")).headers["etag"] == headers["etag"]
    assert client.get(query.replace("version=1&", "")).headers["cache-control"] == "no-cache"


def test_what_is_asked_wrongly_is_refused_and_says_what_would_be_right(serve: Serve) -> None:
    client = serve(max_images=64, max_pixels=20_000)
    for query, told in [
        ("from=1", "to: Field required"),
        ("to=1", "from: Field required"),
        (f"from=1&to={MAX_SEED}", "to:"),
        ("from=1&to=2&frames=1", "frames:"),
        ("from=1&to=2&frames=65", "at most 64"),
        ("from=1&to=2&frames=60&scale=3", "lower frames or scale"),
        ("from=1&to=2&fps=51", "fps:"),
        ("from=1&to=2&format=mp4", "format:"),
        ("from=1&to=2&label=3", "no label 3"),
        ("from=1&to=2&label=nine", "no label 'nine'"),
        ("from=1&to=2&model=plain&label=0", "no classes"),
        ("from=1&to=2&speed=3", "speed: unknown field"),
    ]:
        answer = client.get(f"/morph?{query}")
        assert answer.status_code == 422, query
        assert told in answer.json()["detail"], answer.text
    assert client.get("/morph?from=1&to=2&model=nobody").status_code == 404


def test_the_token_and_the_deadline_hold_here_too(serve: Serve, dummies: Dummies) -> None:
    client = serve(token="user-secret", open_engine=dummies, request_timeout=0.1)
    assert client.get("/morph").status_code == 401
    dummies.made[0].gate.clear()
    assert client.get("/morph?from=1&to=2", headers=USER).status_code == 504


def test_a_model_of_uniform_latents_walks_straight_through_the_service(serve: Serve, repository: Repository) -> None:
    made = card("uniform", latent_recipe=UNIFORM)
    version = repository.publish(made, network(seed=3), b"\x89PNG\r\n\x1a\nsamples")
    repository.promote("uniform", version)
    client = serve()
    shown = frames(client.get("/morph?model=uniform&from=5&to=70&frames=3").content, "L")
    assert np.array_equal(shown[-1], single(client, "/images/uniform/1/0/70.png"))


def test_no_card_takes_memory_before_its_graph_has_said_what_it_takes(serve: Serve, repository: Repository) -> None:
    # 4,096 vectors of so many float64: 2 GiB, or 30 TiB.
    for z in (1 << 16, 10**9):
        version = repository.publish(card("liar"), network(seed=3), b"\x89PNG\r\n\x1a\nsamples")
        place = repository.root / "liar" / str(version) / "card.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | {"z": z}))
    client = serve(max_images=4096)
    for version in (1, 2):
        tracemalloc.start()
        try:
            answer = client.get(f"/morph?model=liar&version={version}&from=1&to=2&frames=4096")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.status_code in (409, 503), answer.text
        assert peak < 50 << 20
