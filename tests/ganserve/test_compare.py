"""A picture beside what stands at its address."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ganserve import carried, encode, marks
from ganserve.address import Address, Layout
from ganserve.compare import compare
from ganserve.latents import consecutive
from ganserve.pictures import PictureError
from ganserve.verdict import Verdict, path, query_of
from tests.tiny import SIDE, card

RANDOM = np.random.default_rng(0)
CARD = card("m", version=3, sha256="ab" * 32)


def drawn(n: int, channels: int = 1) -> np.ndarray:
    # Away from both ends, so that a grey level up or down is one.
    return RANDOM.integers(2, 250, (n, SIDE, SIDE, channels), dtype=np.uint8)


GRID = Layout(None, 2, 3)


def address(n: int, layout: Layout = GRID) -> Address:
    return Address.of(CARD, np.arange(n, dtype=np.int64) % 3, consecutive(42, n), layout)


def verdict(content: bytes, images: np.ndarray, told: Address, tolerance: int = 0) -> Verdict:
    bare = carried.read(content, max_pixels=1 << 20).bare
    return compare(bare, images, told, CARD, tolerance=tolerance)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [1, 5])
def test_what_was_made_at_an_address_matches_there(n: int, channels: int) -> None:
    images, told = drawn(n, channels), address(n)
    sheet = encode.grid(images, told.layout.columns, told.layout.padding, told.layout.scale)
    for content in (marks.picture(sheet, told), *((encode.webp(sheet, told),) if channels in (1, 3) else ())):
        found = verdict(content, images, told)
        assert (found.verdict, found.differing_pixels, found.exact, found.note) == ("match", 0, True, None)
        assert found


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16"])
def test_the_same_pixels_in_another_form_are_a_match(mode: str) -> None:
    images, told = drawn(4), address(4)
    sheet = Image.fromarray(encode.grid(images, None, 2, 3)[..., 0])
    other = Image.fromarray(np.asarray(sheet).astype(np.uint16) * 257) if mode == "I;16" else sheet.convert(mode)
    buffer = io.BytesIO()
    other.save(buffer, "PNG", optimize=True)
    assert verdict(buffer.getvalue(), images, told)


@pytest.mark.parametrize("count", [1, 7])
def test_every_pixel_that_differs_is_counted_once(count: int) -> None:
    for channels in (1, 3):
        images, told = drawn(4, channels), address(4)
        sheet = encode.grid(images, None, 2, 3)
        places = RANDOM.choice(sheet.shape[0] * sheet.shape[1], count, replace=False)
        changed = sheet.copy().reshape(-1, channels)
        changed[places] ^= 1
        found = verdict(marks.picture(changed.reshape(sheet.shape), told), images, told)
        assert (found.verdict, found.differing_pixels, found.exact) == ("differs", count, False)
        assert not found


def test_a_grey_level_is_a_match_where_machines_may_differ_and_two_are_not() -> None:
    images, told = drawn(4), address(4)
    near, far = images.copy(), images.copy()
    near[0, 0, 0], near[1, 2, 3] = near[0, 0, 0] + 1, near[1, 2, 3] - 1
    far[0, 0, 0] += 2
    contents = [marks.picture(encode.grid(one, None, 2, 3), told) for one in (near, far)]
    found = verdict(contents[0], images, told, tolerance=1)
    assert (found.verdict, found.differing_pixels, found.exact) == ("match", 0, False)
    assert "1 of 255 apart" in str(found.note)
    assert verdict(contents[0], images, told).verdict == "differs"
    # A pixel is magnified to nine.
    assert verdict(contents[1], images, told, tolerance=1).differing_pixels == 9


def test_pixels_that_are_cut_off_or_broken_are_refused() -> None:
    images, told = drawn(4), address(4)
    content = marks.picture(encode.grid(images, None, 2, 3), told)
    at = content.index(b"IDAT")
    length = int.from_bytes(content[at - 4 : at], "big")
    broken = content[: at + 4] + bytes(length) + content[at + 4 + length :]
    with pytest.raises(PictureError, match="cannot be decoded"):
        verdict(broken, images, told)


@pytest.mark.parametrize(
    ("told", "place"),
    [
        (address(1, Layout(1, 0, 1)), "/images/m/3/0/42.png"),
        (address(1, Layout(1, 2, 1)), "/generate?model=m&version=3&n=1&seed=42&padding=2&scale=1"),
        (address(4), "/generate?model=m&version=3&n=4&seed=42&padding=2&scale=3"),
        (
            Address.of(CARD, np.array([2, 2]), np.array([7, 5], np.uint64), Layout(1, 0, 1), 70),
            "/generate?model=m&version=3&label=2&seeds=7,5&columns=1&padding=0&scale=1&truncation=0.7",
        ),
        (
            Address.of(CARD, np.array([2, 0]), consecutive(1, 2), Layout(None, 0, 1)),
            "/generate?model=m&version=3&label=2&label=0&n=2&seed=1&padding=0&scale=1",
        ),
        (
            Address.of(CARD, np.array([1]), consecutive(1, 1), Layout(1, 0, 1), 7),
            "/images/m/3/1/1.png?truncation=0.07",
        ),
    ],
)
def test_an_address_is_written_as_a_path_of_the_service(told: Address, place: str) -> None:
    assert path(told, CARD) == place


@pytest.mark.parametrize(
    ("given", "query"),
    [
        ("/images/m/3/a%20b/42.png", "model=m&version=3&label=a+b&seed=42&padding=0"),
        ("/images/m/3/1/1.png?truncation=0.07", "model=m&version=3&label=1&seed=1&padding=0&truncation=0.07"),
        ("/generate?model=m&seed=1", "model=m&seed=1"),
        ("model=m&seed=1", "model=m&seed=1"),
    ],
)
def test_an_address_is_taken_as_a_path_or_as_a_query(given: str, query: str) -> None:
    assert query_of(given) == query
