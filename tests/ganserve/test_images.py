from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganserve import Images, encode, errors, marks


def made(n: int = 5, *, classes: tuple[str, ...] = ("cat", "dog"), channels: int = 1) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 6, 4, channels)).astype(np.uint8)
    labels = np.arange(n) % len(classes) if classes else np.full(n, -1)
    return Images(pixels, labels.astype(np.int64), np.arange(9, 9 + n, dtype=np.uint64), classes, "pets", 2, "r/v1")


def test_it_shows_what_it_is_and_none_of_its_pixels() -> None:
    assert repr(made()) == "<5 images 6 x 4 x 1 of pets version 2>"


def test_rows_are_picked_as_numpy_picks_them() -> None:
    images = made()
    assert images[1:3].seeds.tolist() == [10, 11]
    assert images[-1].addresses == ["/images/pets/2/0/13.png"]
    assert images[images.labels == 1].labels.tolist() == [1, 1]
    with pytest.raises(IndexError):
        images[5]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_is_the_one_that_the_service_lays_out(channels: int) -> None:
    images = made(channels=channels)
    sheet = np.asarray(images.grid(columns=3, padding=1, scale=2))
    expected = encode.grid(images.images, 3, 1, 2)
    assert np.array_equal(sheet.reshape(expected.shape), expected)


def test_each_kind_of_file_holds_the_images(tmp_path: Path) -> None:
    images = made()
    sheet = encode.grid(images.images)[..., 0]
    with Image.open(images.save(tmp_path / "a.png")) as picture:
        assert np.array_equal(np.asarray(picture), sheet)
        assert picture.text == {  # type: ignore[attr-defined]
            "XML:com.adobe.xmp": marks.XMP.decode(), "Software": "ganserve",
            "X-Model": "pets", "X-Model-Version": "2", "X-Seed": "9", "X-Latent-Recipe": "r/v1",
            "Address": "model=pets&version=2&labels=0,1&seed=9&n=5&padding=2",
        }  # fmt: skip
    with Image.open(images.save(tmp_path / "a.WEBP")) as picture:
        assert np.array_equal(np.asarray(picture.convert("L")), sheet)
    with np.load(images.save(tmp_path / "a.npz")) as arrays:
        assert np.array_equal(arrays["images"], images.images)
        assert arrays["labels"].tolist() == images.labels.tolist()
    with zipfile.ZipFile(images.save(tmp_path / "a.zip")) as archive:
        listed = json.loads(archive.read("manifest.json"))["images"]
        assert [entry["class"] for entry in listed] == ["cat", "dog", "cat", "dog", "cat"]
    document = json.loads(images.save(str(tmp_path / "a.json")).read_bytes())
    assert (document["model"], document["version"], len(document["images"])) == ("pets", 2, 5)


def test_images_without_classes_are_saved_without_labels(tmp_path: Path) -> None:
    images = made(classes=())
    assert "label" not in json.loads(images.save(tmp_path / "a.json").read_bytes())["images"][0]
    with np.load(images.save(tmp_path / "a.npz")) as arrays:
        assert arrays["labels"].tolist() == [-1] * 5


def test_a_name_that_says_no_kind_of_file_writes_none(tmp_path: Path) -> None:
    for name in ("a.gif", "a"):
        with pytest.raises(errors.Invalid, match=r"expected \.png"):
            made().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_layout_that_is_none_is_refused() -> None:
    for layout in ({"columns": 0}, {"columns": -1}, {"padding": -1}, {"scale": 0}):
        with pytest.raises(errors.Invalid, match="expected at least"):
            made().grid(**layout)
    with pytest.raises(errors.Invalid, match="no images"):
        made()[:0].grid()


def test_a_notebook_shows_the_first_images_large_enough_to_see() -> None:
    content = made(100)._repr_png_()
    assert content is not None
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (8 * (4 * 10 + 2) + 2, 8 * (6 * 10 + 2) + 2)
    shown = made(100)._repr_html_()
    assert "100 images (the first 64); cat, dog; seed 9 to 108" in shown
    found = re.search(r'src="data:image/png;base64,([^"]+)"', shown)
    assert found is not None
    assert base64.b64decode(found[1]) == content
    assert made()[:0]._repr_png_() is None
    assert made()[:0]._repr_html_() == "<p>no images</p>"


def test_class_names_are_text_in_a_notebook_whatever_they_hold() -> None:
    shown = made(classes=("<script>alert(1)</script>", '" onerror="x'))._repr_html_()
    assert "<script" not in shown
    assert '" onerror' not in shown
