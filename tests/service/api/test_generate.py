import base64
import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from ganserve.latents import MAX_SEED
from ganserve.repository import Repository
from tests.service.conftest import ADMIN, Dummies, Serve
from tests.tiny import CLASSES, SIDE, publish


def tiles(content: bytes, columns: int, n: int, padding: int = 2, scale: int = 1) -> list[np.ndarray]:
    sheet = np.asarray(Image.open(io.BytesIO(content)))
    side, step = SIDE * scale, SIDE * scale + padding
    places = [(padding + (i // columns) * step, padding + (i % columns) * step) for i in range(n)]
    return [sheet[y : y + side, x : x + side] for y, x in places]


def arrays(client: TestClient, **request: object) -> dict[str, np.ndarray]:
    answer = client.post("/generate", json={"format": "npz", **request})
    assert answer.status_code == 200, answer.text
    with np.load(io.BytesIO(answer.content)) as data:
        return dict(data)


def test_a_label_and_a_number_give_a_square_png_grid(client: TestClient) -> None:
    answer = client.post("/generate", json={"label": 2, "n": 16})
    assert answer.headers["content-type"] == "image/png"
    side = 4 * (SIDE + 2) + 2
    assert Image.open(io.BytesIO(answer.content)).size == (side, side)


def test_an_empty_request_gives_one_image_of_the_default_model(client: TestClient) -> None:
    answer = client.post("/generate", json={})
    assert answer.status_code == 200
    assert answer.headers["x-model"] == "digits"
    assert Image.open(io.BytesIO(answer.content)).size == (SIDE + 4, SIDE + 4)


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("label=1&n=4&seed=7", {"label": 1, "n": 4, "seed": 7}),
        ("label=one&n=4&seed=7&columns=4", {"label": "one", "n": 4, "seed": 7, "columns": 4}),
        (
            "label=2,0&n=5&seed=7&padding=0&scale=3",
            {"label": [2, 0], "n": 5, "seed": 7, "padding": 0, "scale": 3},
        ),
        ("label=2&label=zero&n=5&seed=7", {"label": [2, "zero"], "n": 5, "seed": 7}),
        ("seeds=3,1,2&format=npz", {"seeds": [3, 1, 2], "format": "npz"}),
        (
            "model=plain&version=1&seed=1&format=zip",
            {"model": "plain", "version": 1, "seed": 1, "format": "zip"},
        ),
        ("seed=1&format=json&n=2", {"seed": 1, "format": "json", "n": 2}),
        ("seed=1&format=webp&n=2", {"seed": 1, "format": "webp", "n": 2}),
    ],
)
def test_get_and_post_agree_byte_for_byte(client: TestClient, query: str, body: dict[str, object]) -> None:
    got, posted = client.get(f"/generate?{query}"), client.post("/generate", json=body)
    assert got.status_code == posted.status_code == 200, got.text
    assert got.content == posted.content
    assert got.headers["etag"] == posted.headers["etag"]


def test_all_formats_hold_the_same_pixels(client: TestClient) -> None:
    request = {"label": [0, 1, 2], "n": 6, "seed": 11}
    images = arrays(client, **request)["images"]
    for kind in ("png", "webp"):
        content = client.post("/generate", json={**request, "format": kind}).content
        shown = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        for index, image in enumerate(images):
            y, x = 2 + (index // 3) * (SIDE + 2), 2 + (index % 3) * (SIDE + 2)
            assert np.array_equal(shown[y : y + SIDE, x : x + SIDE], image[..., 0])
    archive = client.post("/generate", json={**request, "format": "zip"}).content
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        manifest = json.loads(files.read("manifest.json"))
        for index, entry in enumerate(manifest["images"]):
            assert entry["label"] == index % 3
            assert entry["seed"] == 11 + index
            assert np.array_equal(np.asarray(Image.open(files.open(entry["file"]))), images[index, ..., 0])
    document = client.post("/generate", json={**request, "format": "json"}).json()
    for index, entry in enumerate(document["images"]):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["png"]))))
        assert np.array_equal(pixels, images[index, ..., 0])


def test_no_label_gives_the_classes_in_turn(client: TestClient) -> None:
    assert arrays(client, n=7)["labels"].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_a_list_of_labels_is_taken_in_turn_and_sets_the_number(client: TestClient) -> None:
    assert arrays(client, label=["two", 0])["labels"].tolist() == [2, 0]
    assert arrays(client, label=["two", 0], n=5)["labels"].tolist() == [2, 0, 2, 0, 2]


def test_an_unconditional_model_needs_no_label_and_colour_stays_colour(client: TestClient) -> None:
    assert arrays(client, model="plain", n=3)["images"].shape == (3, SIDE, SIDE, 3)


def test_every_answer_says_what_made_it_and_png_says_it_inside(client: TestClient) -> None:
    answer = client.post("/generate", json={"label": 1, "seed": 42, "n": 2})
    expected = {
        "X-Model": "digits", "X-Model-Version": "1", "X-Seed": "42", "X-Latent-Recipe": "philox-normal/v1"
    }  # fmt: skip
    inside = Image.open(io.BytesIO(answer.content)).info
    for name, value in expected.items():
        assert answer.headers[name] == value
        assert inside[name] == value


def test_a_drawn_seed_is_told_and_repeats_the_answer(client: TestClient) -> None:
    drawn = client.post("/generate", json={"label": 1, "n": 3})
    assert drawn.headers["cache-control"] == "no-store"
    assert "etag" not in drawn.headers
    again = client.post("/generate", json={"label": 1, "n": 3, "seed": int(drawn.headers["x-seed"])})
    assert again.content == drawn.content


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("image/webp", "image/webp"),
        ("application/json", "application/json"),
        ("application/zip;q=0.5, application/x-npz", "application/x-npz"),
        ("text/html, */*;q=0.1", "image/png"),
    ],
)
def test_accept_chooses_the_format(client: TestClient, accept: str, kind: str) -> None:
    answer = client.get("/generate?seed=1", headers={"Accept": accept})
    assert answer.headers["content-type"] == kind
    assert answer.headers["vary"] == "Accept"


def test_format_wins_over_accept(client: TestClient) -> None:
    answer = client.get("/generate?format=webp", headers={"Accept": "application/json"})
    assert answer.headers["content-type"] == "image/webp"


def test_a_seeded_answer_of_a_float_version_has_a_weak_tag_and_304_is_given_without_a_run(
    serve: Serve, dummies: Dummies
) -> None:
    client = serve(open_engine=dummies)
    first = client.get("/generate?label=1&n=4&seed=9")
    tag = first.headers["etag"]
    assert tag.startswith('W/"')
    before = list(dummies.made[0].batches)
    for header in (tag, f'"other", {tag}', "*"):
        again = client.get("/generate?label=1&n=4&seed=9", headers={"If-None-Match": header})
        assert again.status_code == 304
        assert again.headers["etag"] == tag
        assert again.content == b""
    assert dummies.made[0].batches == before
    assert client.get("/generate?label=1&n=4&seed=9", headers={"If-None-Match": '"x"'}).status_code == 200


def test_a_tag_is_answered_without_even_loading_the_model(serve: Serve, dummies: Dummies) -> None:
    client = serve(open_engine=dummies)
    assert len(dummies.made) == 1
    answer = client.get("/generate?model=plain&seed=1", headers={"If-None-Match": "*"})
    assert answer.status_code == 304
    assert len(dummies.made) == 1


@pytest.mark.parametrize(
    "change", ["label=2", "n=5", "seed=10", "columns=1", "padding=3", "scale=2", "format=webp"]
)
def test_whatever_changes_the_answer_changes_its_tag(client: TestClient, change: str) -> None:
    fields = dict(part.split("=") for part in ["label=1", "n=4", "seed=9"])
    base = client.get("/generate", params=fields).headers["etag"]
    other = client.get("/generate", params=fields | dict([change.split("=")])).headers["etag"]
    assert base != other


def test_only_a_named_version_is_cached_for_ever(client: TestClient) -> None:
    live = client.get("/generate?seed=1")
    named = client.get("/generate?seed=1&version=1")
    assert live.headers["cache-control"] == "no-cache"
    assert named.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert live.headers["etag"] == named.headers["etag"]


def test_shared_caches_do_not_keep_what_a_token_was_needed_for(serve: Serve) -> None:
    client = serve(token="user-secret")
    answer = client.get("/generate?seed=1&version=1", headers={"Authorization": "Bearer user-secret"})
    assert answer.headers["cache-control"].startswith("private")


def test_a_version_can_be_named_and_another_is_another_picture(serve: Serve, repository: Repository) -> None:
    publish(repository, "digits", seed=5, live=False)
    client = serve()
    old, new = (client.get(f"/generate?label=1&seed=3&version={v}") for v in (1, 2))
    assert (old.headers["x-model-version"], new.headers["x-model-version"]) == ("1", "2")
    assert hashlib.sha256(old.content).digest() != hashlib.sha256(new.content).digest()


def test_curl_without_a_content_type_is_understood(client: TestClient) -> None:
    answer = client.post(
        "/generate", content=b'{"label":1}', headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 200


def test_tile_i_of_a_grid_is_the_single_image_of_seed_plus_i(client: TestClient) -> None:
    grid = client.post("/generate", json={"label": 1, "n": 16, "seed": 100}).content
    for index, tile in enumerate(tiles(grid, 4, 16)):
        single = client.post("/generate", json={"label": 1, "n": 1, "seed": 100 + index}).content
        assert np.array_equal(tiles(single, 1, 1)[0], tile)


def test_seeds_wrap_around_at_the_largest(client: TestClient) -> None:
    wrapped = arrays(client, label=0, n=3, seed=MAX_SEED - 1)
    assert wrapped["seeds"].tolist() == [MAX_SEED - 1, 0, 1]
    assert np.array_equal(wrapped["images"][1:], arrays(client, label=0, n=2, seed=0)["images"])


def test_class_names_and_indices_name_the_same(client: TestClient) -> None:
    for index, name in enumerate(CLASSES):
        by_index, by_name = arrays(client, label=index, seed=1), arrays(client, label=name, seed=1)
        assert np.array_equal(by_index["images"], by_name["images"])


def test_a_remembered_304_ends_with_the_version_that_it_told_of(client: TestClient, repository: Repository) -> None:
    query = "/generate?model=digits&label=1&n=2&seed=4"
    tag = client.get(query).headers["etag"]
    for _ in range(3):
        same = client.get(query, headers={"If-None-Match": tag})
        assert (same.status_code, same.headers["etag"], same.content) == (304, tag, b"")
    publish(repository, "digits", seed=5, live=False)
    assert client.put("/models/digits/live", json={"version": 2}, headers=ADMIN).status_code == 200
    assert client.get(query, headers={"If-None-Match": tag}).status_code == 200
