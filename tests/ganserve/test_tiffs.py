"""A TIFF is read as its writer meant it: in either byte order, packed or not, its planes together or apart."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from ganserve.pictures import decode, measure

HEIGHT, WIDTH = 6, 8
GREY = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
COLOURS = np.stack([GREY, 255 - GREY, np.tile(np.linspace(0, 250, HEIGHT).astype(np.uint8)[:, None], (1, WIDTH))], -1)
DEFLATE = 8


def tiff(planes: list[bytes], order: str, bits: list[int], tags: dict[int, tuple[int, list[int]]]) -> bytes:
    """A TIFF of a strip a plane; ``tags`` are numbers to (type, values), beside the usual ones."""
    usual = {256: (3, [WIDTH]), 257: (3, [HEIGHT]), 258: (3, bits), 259: (3, [1]), 262: (3, [1]), 277: (3, [len(bits)])}
    strips = {273: (4, [0] * len(planes)), 278: (4, [HEIGHT]), 279: (4, [len(plane) for plane in planes])}
    entries = sorted({**usual, **strips, **tags}.items())
    behind = 8 + 2 + 12 * len(entries) + 4
    longer = {number: struct.pack(order + "HI"[kind == 4] * len(told), *told) for number, (kind, told) in entries}
    begins = behind + sum(len(data) for data in longer.values() if len(data) > 4)
    places = [begins + sum(len(plane) for plane in planes[:index]) for index in range(len(planes))]
    longer[273] = struct.pack(order + "I" * len(planes), *places)
    head, rest = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries)), b""
    for number, (kind, told) in entries:
        data = longer[number]
        head += struct.pack(order + "HHI", number, kind, len(told))
        head += data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(order + "I", behind + len(rest))
        rest += data if len(data) > 4 else b""
    return head + bytes(4) + rest + b"".join(planes)


SAMPLES: dict[str, tuple[np.ndarray, str, int]] = {
    "16 bits": (GREY.astype(np.uint16) * 257, "u2", 1),
    "16 bits, signed": (GREY.astype(np.int32) * 257 - 32768, "i2", 2),
    "floats": (GREY / 255, "f4", 3),
    "floats of 64 bits": (GREY / 255, "f8", 3),
    "32 bits, stated": (GREY.astype(np.int64) * 0x01010101, "u4", 1),
    "32 bits, signed, stated": (GREY.astype(np.int32) * 257, "i4", 2),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize("kind", SAMPLES)
def test_grey_is_the_same_in_either_byte_order_packed_or_not(kind: str, zero: int, packed: bool, order: str) -> None:
    samples, dtype, form = SAMPLES[kind]
    data = samples.astype(order + dtype).tobytes()
    tags = {339: (3, [form]), 259: (3, [DEFLATE if packed else 1]), 262: (3, [zero])}
    white = {"i4": 65535, "u4": 0xFFFFFFFF}
    stated = {340: (4, [0]), 341: (4, [white[dtype]])} if dtype in white else {}
    content = tiff([zlib.compress(data) if packed else data], order, [8 * int(dtype[1])], {**tags, **stated})
    assert np.array_equal(np.asarray(decode(content).image), GREY if zero else 255 - GREY)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("apart", [False, True])
def test_colours_are_the_same_with_their_planes_together_or_apart(
    apart: bool, bits: int, packed: bool, order: str
) -> None:
    samples = (COLOURS.astype(int) * (257 if bits == 16 else 1)).astype(f"{order}u{bits // 8}")
    planes = [plane.tobytes() for plane in samples.transpose(2, 0, 1)] if apart else [samples.tobytes()]
    tags = {262: (3, [2]), 284: (3, [2 if apart else 1]), 259: (3, [DEFLATE if packed else 1])}
    content = tiff([zlib.compress(plane) for plane in planes] if packed else planes, order, [bits] * 3, tags)
    assert np.array_equal(np.asarray(decode(content).image), COLOURS)
    assert measure(content) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("alpha", [1, 2])
def test_opacity_in_a_plane_of_its_own_is_opacity(alpha: int, order: str) -> None:
    """1: colours are kept times their opacity, 2: as they are."""
    opacity = np.tile(np.repeat([0, 32768, 65535], [2, 2, 4]), (HEIGHT, 1))[..., None] / 65535
    kept = COLOURS.astype(int) * 257 * (opacity if alpha == 1 else 1)
    planes = [np.rint(p).astype(f"{order}u2").tobytes() for p in (*kept.transpose(2, 0, 1), opacity[..., 0] * 65535)]
    content = tiff(planes, order, [16] * 4, {262: (3, [2]), 284: (3, [2]), 338: (3, [alpha])})
    wanted = COLOURS * opacity + 255 * (1 - opacity)
    assert np.abs(np.asarray(decode(content).image) - wanted).max() <= 2


@pytest.mark.parametrize("times", [1, 256, 257])
def test_a_palette_of_8_bits_is_not_black(times: int) -> None:
    """As some programs write it; the format asks for 16."""
    table = np.stack([np.arange(256), 255 - np.arange(256), np.arange(256) * 7 % 256])
    content = tiff([GREY.tobytes()], "<", [8], {262: (3, [3]), 320: (3, (table * times).ravel().tolist())})
    assert np.array_equal(np.asarray(decode(content).image), table[:, GREY].transpose(1, 2, 0))


def test_whole_numbers_of_32_bits_without_a_sign_reach_beyond_those_with_one() -> None:
    samples = GREY.astype(np.uint64) * 0x01010101
    stated = {339: (3, [1]), 340: (4, [0]), 341: (4, [0xFFFFFFFF])}
    content = tiff([samples.astype("<u4").tobytes()], "<", [32], stated)
    assert np.array_equal(np.asarray(decode(content).image), GREY)


def test_twelve_bits_that_are_packed_are_black_to_white() -> None:
    twelve = (GREY.astype(int) * 4095 // 255).ravel()
    pairs = twelve.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    content = tiff([packed.astype(np.uint8).tobytes()], "<", [12], {})
    assert np.abs(np.asarray(decode(content).image).astype(int) - GREY).max() <= 1
