"""Samples of every width and sign are the greys that they mean; what nobody states is not guessed."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from ganserve.pictures import PictureError, decode


def tiff(
    data: bytes, bits: int, *more: tuple[int, int, int], form: int = 1, photometric: int = 1, order: str = "<"
) -> bytes:
    """A TIFF of two pixels side by side, tag by tag; ``more`` are (tag, type, value) beside the usual ones."""
    tags = [(256, 3, 2), (257, 3, 1), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 0), (277, 3, 1)]
    tags = sorted([*tags, (278, 4, 1), (279, 4, len(data)), (339, 3, form), *more])
    start = 8 + 2 + 12 * len(tags) + 4
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    for tag, kind, value in tags:
        told = struct.pack(order + {3: "HH", 4: "I", 9: "i"}[kind], *((value, 0) if kind == 3 else (value,)))
        head += struct.pack(order + "HHI", tag, kind, 1) + (struct.pack(order + "I", start) if tag == 273 else told)
    return head + bytes(4) + data


def greys(content: bytes) -> Sequence[int]:
    image = decode(content).image
    assert image.mode == "L"
    return np.asarray(image)[0].tolist()  # type: ignore[no-any-return]


ENDS = {
    "8 bits, signed": tiff(struct.pack("2b", -128, 127), 8, form=2),
    "12 bits": tiff(bytes([0x00, 0x0F, 0xFF]), 12),
    "16 bits, signed": tiff(struct.pack("<2h", -32768, 32767), 16, form=2),
    "16 bits, signed, big-endian": tiff(struct.pack(">2h", -32768, 32767), 16, form=2, order=">"),
    "16 bits, white is zero": tiff(struct.pack("<2H", 65535, 0), 16, photometric=0),
    "16 bits, white is zero, big-endian": tiff(struct.pack(">2H", 65535, 0), 16, photometric=0, order=">"),
    "32 bits, signed, stated": tiff(struct.pack("<2i", -9, 91), 32, (340, 9, -9), (341, 9, 91), form=2),
    "32 bits, beyond what is signed": tiff(struct.pack("<2I", 0, 4 * 10**9), 32, (340, 4, 0), (341, 4, 4 * 10**9)),
    "floats, white is zero": tiff(struct.pack("<2f", 1, 0), 32, form=3, photometric=0),
}


@pytest.mark.parametrize("kind", ENDS)
def test_the_ends_of_the_range_are_black_and_white(kind: str) -> None:
    assert greys(ENDS[kind]) == [0, 255]


def test_compressed_samples_are_scaled_as_plain_ones() -> None:
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        for samples in (np.array([[0, 25700]], np.uint16), np.array([[0, 100 / 255]], np.float32)):
            buffer = io.BytesIO()
            Image.fromarray(samples).save(buffer, "TIFF", compression=compression)
            assert greys(buffer.getvalue()) == [0, 100]


@pytest.mark.parametrize("data", [struct.pack("<2I", 0, 4 * 10**9), struct.pack("<2I", 0, 255)])
def test_whole_numbers_of_32_bits_without_a_range_are_refused(data: bytes) -> None:
    with pytest.raises(PictureError, match="does not state which are black and white"):
        decode(tiff(data, 32))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_float_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(PictureError, match="no numbers"):
        decode(tiff(struct.pack("<2f", 0, value), 32, form=3))


@pytest.mark.parametrize("tags", [[(50706, 4, 0x01040000)], [(254, 4, 1), (330, 4, 200)]])
def test_a_cameras_raw_file_is_refused_and_its_thumbnail_not_taken_for_it(tags: list[tuple[int, int, int]]) -> None:
    with pytest.raises(PictureError, match=r"raw file.*develop it"):
        decode(tiff(bytes([0, 255]), 8, *tags))


def test_a_tiff_of_another_variant_is_not_called_no_picture() -> None:
    with pytest.raises(PictureError, match="of a rare variant"):
        decode(tiff(struct.pack("<2Q", 0, 1), 64))


def test_the_range_in_which_imagej_shows_floats_is_the_one_they_state() -> None:
    buffer = io.BytesIO()
    told = "ImageJ=1.54f\nmin=-10.0\nmax=245.0\n"
    Image.fromarray(np.array([[-10, 90, 245]], np.float32)).save(buffer, "TIFF", tiffinfo={270: told})
    assert greys(buffer.getvalue()) == [0, 100, 255]


@pytest.mark.parametrize(("bits", "white"), [(12, 4095), (10, 65535), (16, 65535)])
def test_the_bits_that_a_microscope_calls_significant_are_black_to_white(bits: int, white: int) -> None:
    told = f'<?xml version="1.0"?><OME><Image><Pixels ID="P:0" SignificantBits="{bits}" SizeX="3"/></Image></OME>'
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, 2048, 4095]], np.uint16)).save(buffer, "TIFF", tiffinfo={270: told})
    assert greys(buffer.getvalue()) == [round(255 * sample / white) for sample in (0, 2048, 4095)]


@pytest.mark.parametrize("most", [4095, 65535])
def test_what_uses_a_corner_of_its_bits_only_is_said(most: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, most]], np.uint16)).save(buffer, "PNG")
    said = [told for told in decode(buffer.getvalue()).notices if "darkest sixteenth" in told]
    assert len(said) == (most == 4095)
