from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from ganserve import encode, png
from ganserve.address import squarest

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (5, 7, 6, 1), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
META = {"model": "m", "version": 1, "latent_recipe": "philox-normal/v1"}


def pixels(content: bytes) -> np.ndarray:
    image = np.asarray(Image.open(io.BytesIO(content)))
    return image[..., None] if image.ndim == 2 else image


def test_tile_i_stands_in_row_i_over_columns() -> None:
    sheet = encode.grid(GREY, 3, 2)
    assert sheet.shape == (2 * 9 + 2, 3 * 8 + 2, 1)
    for i, tile in enumerate(GREY):
        top, left = 2 + (i // 3) * 9, 2 + (i % 3) * 8
        assert np.array_equal(sheet[top : top + 7, left : left + 6], tile)
    assert not sheet[11:18, 18:24].any(), "the place without a tile is black"


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (16, 4), (17, 5)])
def test_a_grid_is_as_square_as_can_be(n: int, columns: int) -> None:
    assert squarest(n) == columns


def test_scale_repeats_pixels() -> None:
    sheet = encode.grid(COLOUR[:1], padding=0, scale=3)
    assert np.array_equal(sheet[::3, ::3], COLOUR[0])
    assert sheet.shape == (24, 24, 3)


@pytest.mark.parametrize("images", [GREY, COLOUR])
def test_png_and_webp_keep_every_pixel(images: np.ndarray) -> None:
    sheet = encode.grid(images)
    assert np.array_equal(pixels(png.encode(sheet)), sheet)
    decoded = pixels(encode.webp(sheet))
    assert np.array_equal(decoded[..., : sheet.shape[2]], sheet)


def test_png_carries_its_text() -> None:
    image = Image.open(io.BytesIO(png.encode(GREY[0], {"X-Seed": "42"})))
    assert image.mode == "L"
    assert image.text["X-Seed"] == "42"  # type: ignore[attr-defined]


def test_zip_holds_one_png_an_image_and_a_manifest() -> None:
    content = encode.zip_archive(COLOUR, [0, 1, 0], [5, 6, 7], ["cat", "dog"], META)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert manifest["model"] == "m"
        assert manifest["images"][1] == {"file": "000001.png", "seed": 6, "label": 1, "class": "dog"}
        for entry, image in zip(manifest["images"], COLOUR, strict=True):
            assert np.array_equal(pixels(archive.read(entry["file"])), image)


def test_npz_loads_without_pickles() -> None:
    arrays = np.load(io.BytesIO(encode.npz(GREY, [4, 3, 2, 1, 0], range(5))), allow_pickle=False)
    assert np.array_equal(arrays["images"], GREY)
    assert arrays["labels"].tolist() == [4, 3, 2, 1, 0]
    assert arrays["seeds"].dtype == np.uint64


def test_npz_without_classes_has_labels_of_minus_one() -> None:
    arrays = np.load(io.BytesIO(encode.npz(GREY, None, range(5))))
    assert arrays["labels"].tolist() == [-1] * 5


def test_json_holds_base64_pngs_with_label_and_seed() -> None:
    document = json.loads(encode.json_document(GREY, None, [9, 8, 7, 6, 5], [], META))
    assert [entry["seed"] for entry in document["images"]] == [9, 8, 7, 6, 5]
    assert "label" not in document["images"][0]
    assert np.array_equal(pixels(base64.b64decode(document["images"][2]["png"])), GREY[2])


@pytest.mark.parametrize(
    "archive",
    [encode.zip_archive(GREY, None, range(5), [], META), encode.npz(GREY, None, range(5))],
    ids=["zip", "npz"],
)
def test_archives_hold_no_time_of_day_and_store_what_is_compressed_already(archive: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.compress_type for entry in opened.infolist()} == {zipfile.ZIP_STORED}


def test_text_beyond_latin_1_survives() -> None:
    image = Image.open(io.BytesIO(png.encode(GREY[0], {"X-Label": "\u732b"})))
    assert image.text["X-Label"] == "\u732b"  # type: ignore[attr-defined]


def test_equal_input_gives_equal_bytes() -> None:
    makers: list[Callable[[], bytes]] = [
        lambda: png.encode(GREY[0], {"a": "b"}),
        lambda: encode.webp(GREY[0]),
        lambda: encode.zip_archive(GREY, None, range(5), [], META),
        lambda: encode.npz(GREY, None, range(5)),
        lambda: encode.json_document(GREY, None, range(5), [], META),
    ]
    for make in makers:
        assert make() == make()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (9, 1, 3), (4, 4, 2), (3, 4, 4), (300, 280, 1)])
def test_png_of_any_shape_is_read_back_without_complaint(shape: tuple[int, int, int]) -> None:
    image = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    content = png.encode(image, {"a": "b"})
    Image.open(io.BytesIO(content)).verify()
    assert np.array_equal(pixels(content), image)


def test_a_grid_with_an_unfinished_row_of_colour_tiles_keeps_each_in_its_place() -> None:
    sheet = encode.grid(COLOUR, columns=2, padding=1)
    assert sheet.shape == (19, 19, 3)
    assert np.array_equal(sheet[10:18, 1:9], COLOUR[2])
    assert not sheet[10:, 10:].any()
