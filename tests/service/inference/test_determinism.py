"""An address names one image: byte-identical on one machine and provider, whatever else is in the batch."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

from ganserve import encode
from ganserve.latents import MAX_SEED, consecutive, latents
from ganserve.repository import Repository
from service.inference.engine import OnnxEngine
from tests.tiny import SIDE, card, network

SHIPPED = Repository(Path(__file__).parents[3] / "models")
NAMES = ["tiny", "tiny-plain", *SHIPPED.names()]


def opened(name: str) -> OnnxEngine:
    if name.startswith("tiny"):
        conditional = name == "tiny"
        return OnnxEngine.open(card(name, conditional=conditional), network(conditional=conditional))
    version = SHIPPED.live(name) or SHIPPED.versions(name)[-1]
    return OnnxEngine.open(*SHIPPED.read(name, version))


def generate(engine: OnnxEngine, seeds: NDArray[np.uint64], size: int) -> NDArray[np.uint8]:
    """Images of ``seeds`` in runs of ``size``; the classes in turn by seed."""
    made = []
    for start in range(0, len(seeds), size):
        part = seeds[start : start + size]
        labels = (part % np.uint64(len(engine.card.classes))).astype(np.int64) if engine.card.conditional else None
        made.append(engine.run(latents(engine.card.latent_recipe, part, engine.card.z), labels))
    return np.concatenate(made)


@pytest.mark.parametrize("name", NAMES)
def test_pixels_do_not_depend_on_the_batch(name: str) -> None:
    engine = opened(name)
    seeds = consecutive(12345, 64)
    alone = generate(engine, seeds, 1)
    assert alone.std() > 1, "a constant image would show nothing"
    for size in (2, 3, 5, 7, 8, 15, 16, 17, 31, 32):
        assert np.array_equal(generate(engine, seeds, size), alone), f"runs of {size}"
    order = np.random.default_rng(0).permutation(64)
    assert np.array_equal(generate(engine, seeds[order], 32), alone[order]), "other neighbours"


@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_the_same_from_threads_side_by_side(name: str) -> None:
    engine = opened(name)
    seeds = consecutive(99, 32)
    alone = generate(engine, seeds, 1)
    with ThreadPoolExecutor(4) as threads:
        for images in threads.map(lambda size: generate(engine, seeds, size), (1, 4, 8, 32) * 2):
            assert np.array_equal(images, alone)


def images_of(client: TestClient, query: str) -> NDArray[np.uint8]:
    answer = client.get(f"/generate?format=npz&{query}")
    assert answer.status_code == 200, answer.text
    with np.load(io.BytesIO(answer.content)) as data:
        return np.asarray(data["images"])


def test_tile_i_is_the_single_image_of_seed_plus_i_under_concurrency(client: TestClient) -> None:
    def check(seed: int) -> None:
        n = 1 + seed % 41
        grid = images_of(client, f"label={seed % 3}&n={n}&seed={seed}")
        for index in {0, n // 2, n - 1}:
            single = images_of(client, f"label={seed % 3}&n=1&seed={seed + index}")
            assert np.array_equal(grid[index], single[0])

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(check, range(1000, 1036)))


def test_equal_requests_give_equal_bytes_under_concurrency(client: TestClient) -> None:
    for form in ("png", "webp", "zip", "npz", "json"):
        with ThreadPoolExecutor(6) as threads:
            query = f"/generate?n=9&seed=5&format={form}"
            assert len(set(threads.map(lambda _, q=query: client.get(q).content, range(6)))) == 1


def test_a_run_of_seeds_wraps_around_at_the_largest(client: TestClient) -> None:
    wrapped = images_of(client, f"label=1&n=4&seed={MAX_SEED - 2}")
    named = images_of(client, f"label=1&seeds={MAX_SEED - 2},{MAX_SEED - 1},0,1")
    assert wrapped.shape == (4, SIDE, SIDE, 1)
    assert np.array_equal(wrapped, named)
    assert np.array_equal(wrapped[2:], images_of(client, "label=1&n=2&seed=0"))


GOLDEN = Path(__file__).parent.parent / "golden"


def golden_grid(name: str, version: int) -> NDArray[np.uint8]:
    """Seeds 7 to 26, the classes in turn, and the last seed there is, as one grid."""
    engine = OnnxEngine.open(*SHIPPED.read(name, version))
    seeds = np.append(consecutive(7, 20), np.uint64(MAX_SEED - 1))
    return encode.grid(generate(engine, seeds, 21), 7, 0)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.png")), ids=lambda path: path.stem)
def test_golden_images_of_shipped_versions_stay_what_they_are(path: Path) -> None:
    name, _, version = path.stem.rpartition("-")
    found = golden_grid(name, int(version))
    golden = np.asarray(Image.open(path)).astype(int).reshape(found.shape)
    apart = np.abs(found - golden)
    if SHIPPED.card(name, int(version)).exact:
        assert not apart.any(), "the same bytes on every processor"
    # Across CPUs the promise of a float version is 1 of 255; a machine like the one that made them gives every bit.
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.01


def test_every_shipped_version_has_its_golden_images() -> None:
    shipped = {f"{name}-{version}" for name in SHIPPED.names() for version in SHIPPED.versions(name)}
    assert {path.stem for path in GOLDEN.glob("*.png")} == shipped
