"""What a file says of itself is read by its bytes; whatever a stranger sends ends in a sentence, at once."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from ganserve import carried, encode, marks, pictures, png
from ganserve.address import Address, Layout
from ganserve.carried import Carried
from ganserve.latents import consecutive
from ganserve.pictures import PictureError, TooManyPixels
from service.morph import animate
from tests.tiny import card

RANDOM = np.random.default_rng(0)
SHEET = RANDOM.integers(0, 256, (31, 45, 1), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (31, 45, 3), dtype=np.uint8)
ADDRESS = Address.of(card("m", sha256="ab" * 32), np.arange(4, dtype=np.int64) % 3, consecutive(42, 4), Layout(2, 2, 1))
PNG, WEBP = marks.picture(SHEET, ADDRESS), encode.webp(COLOUR, ADDRESS)


def read(content: bytes, max_pixels: int = 1 << 20) -> Carried:
    return carried.read(content, max_pixels=max_pixels)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(kind: bytes, data: bytes) -> bytes:
    """The picture with one chunk more behind its header."""
    return PNG[:33] + chunk(kind, data) + PNG[33:]


def test_png_and_webp_tell_size_and_address() -> None:
    for content in (PNG, WEBP):
        found = read(content)
        assert (found.width, found.height) == (45, 31)
        assert found.texts["Address"] == ADDRESS.query()
    assert {name: read(PNG).texts[name] for name in ADDRESS.text()} == ADDRESS.text()
    assert read(encode.webp(COLOUR)).texts == read(png.encode(SHEET)).texts == {}


def test_what_pixels_do_not_need_is_left_out_and_the_pixels_stay() -> None:
    for content, sheet in ((PNG, SHEET), (WEBP, COLOUR)):
        bare = read(content).bare
        assert b"adobe" not in bare
        assert b"padding" not in bare
        assert np.array_equal(np.asarray(pictures.decode(bare).image).reshape(sheet.shape), sheet)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_pictures_that_others_wrote_are_read(mode: str, form: str) -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(COLOUR).convert(mode)
    image.save(buffer, form)
    found = read(buffer.getvalue())
    assert (found.width, found.height, found.texts) == (45, 31, {})
    assert pictures.decode(found.bare).image.size == (45, 31)


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\xff\xd8\xff\xe0", b"--boundary\r\nContent-", animate(COLOUR[None], "gif", 9)]
)
def test_other_kinds_are_refused_by_their_bytes(content: bytes) -> None:
    with pytest.raises(PictureError, match="neither PNG nor WebP"):
        read(content)


@pytest.mark.parametrize("content", [PNG, WEBP])
def test_a_file_that_is_cut_off_anywhere_is_refused_or_is_whole(content: bytes) -> None:
    for length in range(len(content) - 1):
        with pytest.raises(PictureError):
            read(content[:length])


def test_animations_are_refused() -> None:
    frames = np.stack([COLOUR, 255 - COLOUR])
    apng = io.BytesIO()
    first, second = map(Image.fromarray, frames)
    first.save(apng, "PNG", save_all=True, append_images=[second])
    for content in (animate(frames, "webp", 50), apng.getvalue()):
        with pytest.raises(PictureError, match="one still picture"):
            read(content)


def test_bytes_and_pixels_have_a_bound() -> None:
    with pytest.raises(TooManyPixels, match="at most 1000 are taken"):
        read(PNG, 1000)
    with pytest.raises(TooManyPixels, match="has 4194305 bytes"):
        read(PNG + bytes((4 << 20) + 1 - len(PNG)))


def test_a_picture_of_more_pixels_than_its_bytes_can_hold_is_refused_without_decoding_it() -> None:
    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 0, 0, 0, 0)
    bomb = png.SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")
    with pytest.raises(TooManyPixels, match="2147483647 x 2147483647"):
        read(bomb)


def test_texts_of_any_size_are_passed_over_and_compressed_ones_are_never_unpacked() -> None:
    bomb = zlib.compress(bytes(200 << 20), 9)
    for kind, data in (
        (b"tEXt", b"Comment\0" + bytes(3 << 20)),
        (b"zTXt", b"Address\0\0" + bomb),
        (b"iTXt", b"Address\0\1\0\0\0" + bomb),
        (b"iCCP", b"profile\0\0" + bomb),
        (b"eXIf", bytes(1 << 20)),
    ):
        found = read(with_chunk(kind, data))
        assert found.texts == read(PNG).texts
        assert len(found.bare) < len(PNG)


def test_an_address_that_is_said_twice_is_refused() -> None:
    with pytest.raises(PictureError, match="says Address twice"):
        read(with_chunk(b"tEXt", b"Address\0seed=1"))
    with pytest.raises(PictureError, match="says Address twice"):
        read(with_chunk(b"iTXt", b"Address\0\0\0\0\0seed=1"))


def test_more_parts_than_any_encoder_writes_are_refused() -> None:
    with pytest.raises(PictureError, match="more than 4096 parts"):
        read(PNG[:33] + chunk(b"tEXt", b"") * 5000 + PNG[33:])
    body = b"WEBP" + b"JUNK\0\0\0\0" * 5000
    with pytest.raises(PictureError, match="more than 4096 parts"):
        read(b"RIFF" + struct.pack("<L", len(body)) + body)


def test_a_canvas_larger_than_the_pixels_on_it_is_never_made() -> None:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).convert("RGBA").resize((45, 31)).save(buffer, "WEBP", lossless=False)
    lossy = bytearray(buffer.getvalue())
    Image.fromarray(np.dstack([COLOUR, SHEET])).save(buffer := io.BytesIO(), "WEBP", lossless=False)
    layered = bytearray(buffer.getvalue())
    assert b"ALPH" in layered
    at = layered.index(b"VP8X") + 12
    layered[at : at + 6] = b"\xff\x3f\0\xff\x3f\0"
    for content in (lossy, layered):
        found = read(bytes(content))
        assert (found.width, found.height) == (45, 31)
        assert pictures.decode(found.bare, max_pixels=45 * 31).image.size == (45, 31)


def test_names_in_letters_of_any_script_are_read() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("X-Label", "猫")
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, "PNG", pnginfo=info)
    assert read(buffer.getvalue()).texts == {"X-Label": "猫"}


def test_exif_of_others_is_no_address() -> None:
    for description in ("a holiday", "x" * 100_000, "\0"):
        tags = Image.Exif()
        tags[0x010E] = description
        buffer = io.BytesIO()
        Image.fromarray(COLOUR).save(buffer, "WEBP", exif=tags.tobytes())
        assert read(buffer.getvalue()).texts == {}


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from([PNG, WEBP]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_file_with_any_bytes_changed_is_read_or_refused_with_a_sentence(
    content: bytes, changes: list[tuple[int, int]]
) -> None:
    changed = bytearray(content)
    for at, value in changes:
        changed[at] = value
    # Any other error fails the test.
    with suppress(PictureError):
        pictures.decode(read(bytes(changed)).bare, max_pixels=1 << 20)
