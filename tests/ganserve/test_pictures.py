"""A picture reaches training as a viewer shows it; what cannot be shown is refused in a sentence."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from ganserve import kinds, pictures
from ganserve.pictures import PictureError, decode, measure

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 0)
RAMP = np.tile(np.linspace(0, 65535, 16).astype(np.uint16), (16, 1))
EIGHT_BITS = np.rint(RAMP / 257).astype(np.uint8)


def saved(image: Image.Image, form: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **more)
    return buffer.getvalue()


def pixels(content: bytes, **more: Any) -> np.ndarray:
    return np.asarray(decode(content, **more).image)


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Top left, top right, bottom left, bottom right, rounded to full colours."""
    width, height = image.size
    places = ((2, 2), (width - 3, 2), (2, height - 3), (width - 3, height - 3))
    found = [image.convert("RGB").getpixel(place) for place in places]
    return [tuple(255 * round(value / 255) if value != 128 else 128 for value in pixel) for pixel in found]  # type: ignore[union-attr]


def quarters() -> Image.Image:
    """24 x 16: red, green; blue, yellow."""
    image = Image.new("RGB", (24, 16))
    for index, colour in enumerate((RED, (0, 255, 0), BLUE, YELLOW)):
        image.paste(colour, (index % 2 * 12, index // 2 * 8, index % 2 * 12 + 12, index // 2 * 8 + 8))
    return image


# What is seen at the corners of a picture that lies as `quarters` and is tagged so (EXIF 2.3, tag 0x0112).
R, G, B, Y = RED, (0, 255, 0), BLUE, YELLOW
SHOWN = {
    1: [R, G, B, Y],
    2: [G, R, Y, B],
    3: [Y, B, G, R],
    4: [B, Y, R, G],
    5: [R, B, G, Y],
    6: [B, R, Y, G],
    7: [Y, G, B, R],
    8: [G, Y, R, B],
}


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize(
    ("form", "more"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {"quality": 95}),
    ],
)
def test_a_picture_is_upright_in_every_format_that_tells_how_it_lies(
    form: str, more: dict[str, Any], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(quarters(), form, exif=exif, **more)
    picture = decode(content)
    assert corners(picture.image) == SHOWN[orientation]
    upright = (24, 16) if orientation < 5 else (16, 24)
    assert picture.size == picture.image.size == measure(content) == upright


def boxed(content: bytes, kind: bytes, data: bytes, *, within: bool = False) -> bytes:
    """A JPEG 2000 file with one box more, in its header or before its code stream."""
    box = struct.pack(">I", 8 + len(data)) + kind + data
    header, stream = content.index(b"jp2h") - 4, content.index(b"jp2c") - 4
    if not within:
        return content[:stream] + box + content[stream:]
    size = int.from_bytes(content[header : header + 4], "big")
    inner = content[header + 8 : header + size]
    inner = inner[: inner.index(b"colr") - 4] + box  # in the place of what tells the colours otherwise
    return content[:header] + struct.pack(">I4s", 8 + len(inner), b"jp2h") + inner + content[header + size :]


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_jpeg_2000_tells_how_it_lies_in_a_box(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = boxed(saved(quarters(), "JPEG2000"), b"uuid", b"JpgTiffExif->JP2" + exif.tobytes()[6:])
    assert corners(decode(content).image) == SHOWN[orientation]
    assert measure(content) == decode(content).size == decode(content).image.size


def test_avif_lies_as_its_boxes_tell_and_not_as_its_xmp_does() -> None:
    told = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    content = saved(quarters(), "AVIF", quality=95, xmp=told)
    assert corners(decode(content).image) == SHOWN[1]
    assert measure(content) == (24, 16)


def test_broken_exif_leaves_the_picture_as_it_lies() -> None:
    content = saved(quarters(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert corners(decode(content).image) == SHOWN[1]


def png(rows: list[bytes], width: int, bits: int, colours: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of rows of packed samples, with ``chunks`` before them, byte by byte; ``colours`` is the colour type."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), bits, colours, 0, 0, 0)
    data = (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    parts = [(b"IHDR", header), *chunks, data, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def grey_png(samples: np.ndarray, bits: int, transparent: int | None = None) -> bytes:
    """A PNG of grey samples, with tRNS if asked."""
    rows = [row.astype(">u2" if bits == 16 else "u1").tobytes() for row in samples]
    clear = [] if transparent is None else [(b"tRNS", struct.pack(">H", transparent))]
    return png(rows, samples.shape[1], bits, 0, *clear)


def test_a_colour_of_sixteen_bits_is_transparent_to_its_last_bit() -> None:
    clear = (0x1234, 0x5678, 0x9ABC)
    near = [(0x1235, 0x5678, 0x9ABC), (0x1234, 0x5677, 0x9ABC), (0x1234, 0x5678, 0x9A00)]
    row = struct.pack(">12H", *clear, *(value for colour in near for value in colour))
    shown = pixels(png([row], 4, 16, 2, (b"tRNS", struct.pack(">3H", *clear))))
    assert shown[0].tolist() == [[255, 255, 255], [0x12, 0x56, 0x9A], [0x12, 0x56, 0x9A], [0x12, 0x56, 0x9A]]


SIXTEEN = {
    "PNG": grey_png(RAMP, 16),
    "TIFF, little-endian": saved(Image.fromarray(RAMP), "TIFF"),
    "TIFF, big-endian": saved(Image.frombytes("I;16B", (16, 16), RAMP.astype(">u2").tobytes()), "TIFF"),
    "TIFF, deflated": saved(Image.fromarray(RAMP), "TIFF", compression="tiff_deflate"),
    "PGM": b"P5 16 16 65535\n" + RAMP.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("kind", SIXTEEN)
def test_sixteen_bits_of_grey_are_scaled_in_every_byte_order(kind: str) -> None:
    assert np.array_equal(pixels(SIXTEEN[kind]), EIGHT_BITS)


def test_sixteen_bits_where_white_is_zero_are_turned_over() -> None:
    content = saved(Image.fromarray(RAMP), "TIFF", tiffinfo={262: 0})
    shown = pixels(content)
    assert np.array_equal(shown, 255 - EIGHT_BITS) or np.array_equal(shown, EIGHT_BITS)
    tag = Image.open(io.BytesIO(content)).tag_v2[262]  # type: ignore[attr-defined]
    assert np.array_equal(shown, 255 - EIGHT_BITS if tag == 0 else EIGHT_BITS)


def test_a_stated_range_is_black_to_white() -> None:
    twelve = (RAMP >> 4).astype(np.uint16)
    content = saved(Image.fromarray(twelve), "TIFF", tiffinfo={280: 0, 281: 4095})
    assert np.abs(pixels(content).astype(int) - EIGHT_BITS).max() <= 1
    floats = saved(Image.fromarray(RAMP.astype(np.float32) - 1000), "TIFF", tiffinfo={340: -1000.0, 341: 64535.0})
    assert np.array_equal(pixels(floats), EIGHT_BITS)


def test_floats_from_0_to_1_are_black_to_white() -> None:
    assert np.array_equal(pixels(saved(Image.fromarray((RAMP / 65535).astype(np.float32)), "TIFF")), EIGHT_BITS)


@pytest.mark.parametrize(
    "samples", [RAMP.astype(np.int32), RAMP.astype(np.float32), RAMP.astype(np.float32) / 65535 - 0.5]
)
def test_samples_whose_range_nobody_states_are_refused_with_what_would_be_right(samples: np.ndarray) -> None:
    with pytest.raises(PictureError, match=r"does not state which are black and white.*SMinSampleValue"):
        decode(saved(Image.fromarray(samples), "TIFF"))


def test_samples_that_are_no_numbers_are_refused() -> None:
    samples = np.full((4, 4), np.nan, np.float32)
    with pytest.raises(PictureError, match="no numbers"):
        decode(saved(Image.fromarray(samples), "TIFF"))


def alpha_ramp(mode: str) -> Image.Image:
    """Black, from clear on the left to opaque on the right."""
    image = Image.new(mode, (16, 16))
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 16).astype(np.uint8), (16, 1))))
    return image


@pytest.mark.parametrize(("mode", "form"), [("LA", "PNG"), ("RGBA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF")])
def test_what_is_transparent_lies_over_white(mode: str, form: str) -> None:
    more = {"lossless": True, "exact": True} if form == "WEBP" else {}
    picture = decode(saved(alpha_ramp(mode), form, **more))
    shown = np.asarray(picture.image.convert("L"))[0].astype(int)
    assert np.abs(shown - np.linspace(255, 0, 16).astype(int)).max() <= 2
    assert picture.image.mode == ("L" if mode == "LA" else "RGB")
    assert any("white" in notice for notice in picture.notices)


def test_a_colour_that_is_called_transparent_lies_over_white() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((0, 0), 0)
    grey = Image.fromarray(np.array([[0, 200], [200, 0]], np.uint8))
    for content, clear, kept in (
        (saved(palette, "PNG", transparency=0), (0, 0), (1, 1)),
        (saved(palette, "GIF", transparency=0), (0, 0), (1, 1)),
        (saved(grey, "PNG", transparency=0), (0, 0), (1, 0)),
        (saved(quarters(), "PNG", transparency=RED), (0, 0), (20, 2)),
        (grey_png(np.array([[0, 51400], [51400, 0]], np.uint16), 16, transparent=0), (0, 0), (1, 0)),
    ):
        image = decode(content).image.convert("RGB")
        assert image.getpixel(clear) == pictures.BACKGROUND
        assert image.getpixel(kept) != pictures.BACKGROUND


def test_a_png_that_tells_at_its_end_how_it_lies_is_measured_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    told = exif.tobytes().removeprefix(b"Exif\0\0")
    late = struct.pack(">I", len(told)) + b"eXIf" + told + struct.pack(">I", zlib.crc32(b"eXIf" + told))
    content = saved(Image.new("L", (8, 4)), "PNG")
    assert measure(content[:-12] + late + content[-12:]) == (4, 8)


def test_every_entry_of_a_palette_may_be_transparent_in_part() -> None:
    content = png([b"\0\1\2"], 3, 8, 3, (b"PLTE", bytes([255, 0, 0, 0, 0, 255, 0, 255, 0])), (b"tRNS", b"\x80\xff\0"))
    assert pixels(content)[0].tolist() == [[255, 127, 127], [0, 0, 255], [255, 255, 255]]


def test_the_value_that_is_transparent_is_told_in_the_files_own_samples() -> None:
    two_bits = png([bytes([0b00011011])], 4, 2, 0, (b"tRNS", struct.pack(">H", 1)))
    assert pixels(two_bits)[0].tolist() == [0, 255, 170, 255]
    one_bit = png([bytes([0b10000001])], 8, 1, 0, (b"tRNS", struct.pack(">H", 0)))
    assert pixels(one_bit)[0].tolist() == [255] * 8
    row = struct.pack(">6H", 1000, 2000, 3000, 40000, 2000, 3000)
    colours = png([row], 2, 16, 2, (b"tRNS", struct.pack(">3H", 1000, 2000, 3000)))
    assert np.abs(pixels(colours)[0].astype(int) - [[255, 255, 255], [156, 8, 12]]).max() <= 1


def test_an_opaque_alpha_changes_no_pixel_and_is_not_spoken_of() -> None:
    image = quarters()
    image.putalpha(255)
    picture = decode(saved(image, "PNG"))
    assert np.array_equal(np.asarray(picture.image), np.asarray(quarters()))
    assert picture.notices == ()


@pytest.mark.parametrize(("form", "more"), [("JPEG", {"quality": 100}), ("TIFF", {})])
def test_printers_inks_are_shown_as_light(form: str, more: dict[str, Any]) -> None:
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = decode(saved(inks, form, **more)).image.getpixel((8, 8))  # type: ignore[misc]
    assert red > 200
    assert max(green, blue) < 60


def test_lab_is_shown_as_light() -> None:
    lightness = Image.new("LAB", (8, 8), (255, 128, 128))
    assert min(decode(saved(lightness, "TIFF")).image.getpixel((4, 4))) > 240  # type: ignore[arg-type]


def test_one_bit_and_palettes_are_what_they_show() -> None:
    board = np.indices((16, 16)).sum(0) % 2 == 0
    bits = Image.fromarray(board)
    for form, more in (("PNG", {}), ("TIFF", {}), ("BMP", {}), ("TIFF", {"compression": "group4"})):
        assert np.array_equal(pixels(saved(bits, form, **more)), board * np.uint8(255)), form
    assert corners(decode(saved(quarters().quantize(4), "PNG")).image) == SHOWN[1]


def profile(gamma: float, name: str = "Ours") -> bytes:
    """sRGB's primaries under another tone curve: a profile whose pixels are lighter or darker than they say."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", made[128:132])[0]
    for index in range(count):
        tag, offset, _ = struct.unpack(">4sII", made[132 + 12 * index : 144 + 12 * index])
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            made[offset : offset + 14] = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
        if tag == b"desc":
            at = made.find("sRGB".encode("utf-16-be"), offset)
            if at > 0:
                made[at : at + 8] = name.encode("utf-16-be")
    return bytes(made)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_an_embedded_colour_profile_is_taken_to_srgb(form: str) -> None:
    image = Image.new("RGB", (16, 16), (100, 150, 200))
    more = {"lossless": True} if form == "WEBP" else {}
    plain = np.asarray(decode(saved(image, form, **more)).image).astype(int)
    linear = np.asarray(decode(saved(image, form, icc_profile=profile(1.0), **more)).image).astype(int)
    # Linear light of 100 / 255 is 169 in sRGB, of 150 it is 200.
    assert np.abs(linear[8, 8] - [169, 200, 228]).max() <= 3
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(np.asarray(decode(saved(image, form, icc_profile=srgb, **more)).image), plain)


@pytest.mark.parametrize("method", [2, 3])
def test_a_jpeg_2000_keeps_its_profile_in_a_box(method: int) -> None:
    content = saved(Image.new("RGB", (16, 16), (100, 150, 200)), "JPEG2000")
    shown = pixels(boxed(content, b"colr", bytes([method, 0, 0]) + profile(1.0), within=True)).astype(int)
    assert np.abs(shown[8, 8] - [169, 200, 228]).max() <= 3
    assert pixels(content)[8, 8].tolist() == [100, 150, 200]


def test_a_profile_that_is_near_to_srgb_is_applied_too() -> None:
    shown = pixels(saved(Image.new("RGB", (4, 4), (100, 100, 100)), "PNG", icc_profile=profile(2.0)))[0, 0].astype(int)
    light = (100 / 255) ** 2.0
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert expected > 105
    assert np.abs(shown - expected).max() <= 2


def test_a_broken_profile_is_passed_over_with_a_word() -> None:
    picture = decode(saved(quarters(), "PNG", icc_profile=b"no profile"))
    assert corners(picture.image) == SHOWN[1]
    assert any("profile is broken" in notice for notice in picture.notices)


def test_a_profile_is_srgb_by_its_colours_and_not_by_its_name() -> None:
    image = Image.new("RGB", (4, 4), (100, 150, 200))
    assert pixels(saved(image, "PNG", icc_profile=profile(1.0, name="sRGB")))[0, 0].tolist() != [100, 150, 200]
    ours = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().replace(
        "sRGB".encode("utf-16-be"), "Ours".encode("utf-16-be")
    )
    assert pixels(saved(image, "PNG", icc_profile=ours))[0, 0].tolist() == [100, 150, 200]


def test_a_grey_picture_with_a_profile_of_colours_stays_as_it_is_and_is_not_spoken_of() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = decode(saved(Image.new("L", (16, 16), 77), "JPEG", quality=100, icc_profile=srgb))
    assert (picture.image.getpixel((8, 8)), picture.notices) == (77, ())


def test_a_palette_and_an_alpha_keep_what_a_profile_makes_of_their_colours() -> None:
    image = Image.new("RGB", (4, 4), (100, 150, 200))
    wanted = pixels(saved(image, "PNG", icc_profile=profile(1.0)))
    for other in (image.quantize(2), image.convert("RGBA")):
        assert np.array_equal(pixels(saved(other, "PNG", icc_profile=profile(1.0))), wanted)


@pytest.mark.parametrize(("form", "more"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_of_several_frames_the_first_is_taken(form: str, more: dict[str, Any]) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    content = saved(frames[0], form, save_all=True, append_images=frames[1:], **more)
    assert decode(content).image.convert("RGB").getpixel((4, 4)) == RED


def test_what_an_animated_png_shows_where_nothing_moves_is_not_its_first_frame() -> None:
    for_others, *frames = (Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE, YELLOW))
    content = saved(for_others, "PNG", save_all=True, default_image=True, append_images=frames)
    assert decode(content).image.getpixel((4, 4)) == BLUE


def test_a_phones_jpeg_with_a_second_picture_is_its_first() -> None:
    content = saved(Image.new("RGB", (16, 16), RED), "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    assert decode(content).image.getpixel((8, 8))[0] > 250  # type: ignore[index]


def test_heic_is_named_with_how_to_convert_it() -> None:
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    assert kinds.looks_like(content[:32])
    with pytest.raises(PictureError, match=r"HEIC.*convert it"):
        decode(content)


def test_avif_that_begins_as_heic_does_is_read() -> None:
    content = saved(quarters(), "AVIF", quality=95)
    assert b"avif" in content[16:32]
    assert corners(decode(content[:8] + b"mif1" + content[12:]).image) == SHOWN[1]


@pytest.mark.parametrize("content", [b"", b"hello", bytes(60)])
def test_what_is_no_picture_of_a_known_kind_is_refused_and_not_taken_for_one(content: bytes) -> None:
    assert not kinds.looks_like(content[:32])
    with pytest.raises(PictureError, match=r"is empty|no picture of a known kind"):
        decode(content)


def numbered(gamma: int | None, places: tuple[int, ...] | None = None, srgb: bool = False) -> bytes:
    """A PNG of reds, greens and greys, with the chunks gAMA and cHRM, in hundred-thousandths."""
    chunks = [(b"gAMA", struct.pack(">I", gamma))] if gamma else []
    chunks += [(b"cHRM", struct.pack(">8I", *places))] if places else []
    chunks += [(b"sRGB", b"\0")] if srgb else []
    row = b"".join(bytes(colour) for colour in ((128, 128, 128), (255, 0, 0), (0, 255, 0), (255, 255, 255)))
    return png([row], 4, 8, 2, *chunks)


def test_the_gamma_of_a_png_is_seen_as_browsers_show_it() -> None:
    assert pixels(numbered(100_000))[0].tolist() == [[188] * 3, [255, 0, 0], [0, 255, 0], [255] * 3]
    for same in (numbered(45_455), numbered(None), numbered(100_000, srgb=True)):
        assert pixels(same)[0, 0].tolist() == [128] * 3
    grey = png([np.full(4, 32896, ">u2").tobytes()], 4, 16, 0, (b"gAMA", struct.pack(">I", 100_000)))
    assert pixels(grey).tolist() == [[188] * 4]


def test_the_primaries_of_a_png_are_taken_to_srgb() -> None:
    display_p3 = (31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)
    shown = pixels(numbered(45_455, display_p3))[0].astype(int)
    assert abs(shown[0] - 128).max() <= 1
    assert abs(shown[3] - 255).max() <= 1  # what is grey stays grey
    half = png([bytes((200, 100, 100))], 1, 8, 2, (b"cHRM", struct.pack(">8I", *display_p3)))
    red, green, blue = pixels(half)[0, 0].astype(int)
    assert red > 205
    assert green < 100
    assert blue <= 100
    white = (34_567, 35_850, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)  # of D50
    assert abs(pixels(numbered(None, white))[0, 3].astype(int) - 255).max() <= 1, "its white is white"
    usual = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)
    assert pixels(numbered(None, usual))[0, 0].tolist() == [128] * 3
    assert pixels(numbered(None, (0,) * 8))[0, 0].tolist() == [128] * 3  # no colours at all


def coded(primaries: int, transfer: int, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG of a grey and a red, with the chunk cICP."""
    return png([bytes((10, 10, 10, 200, 100, 100))], 2, 8, 2, (b"cICP", bytes((primaries, transfer, 0, 1))), *more)


def test_the_colours_that_a_png_tells_by_number_are_taken_to_srgb() -> None:
    assert pixels(coded(1, 13))[0].tolist() == [[10] * 3, [200, 100, 100]]
    grey, red = pixels(coded(12, 13, (b"gAMA", struct.pack(">I", 100_000))))[0].astype(int)
    assert abs(grey - 10).max() <= 1, "what is grey stays grey, and cICP counts for more than gAMA"
    assert np.abs(red - [215, 93, 97]).max() <= 1, "by the matrix of CSS Color 4, section 17"
    assert abs(pixels(coded(1, 8))[0, 0].astype(int) - 56).max() <= 1, "linear light of 10 / 255"


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_refused_and_not_shown_pale(transfer: int) -> None:
    avif = saved(quarters(), "AVIF")
    at = avif.index(b"colrnclx")
    for content in (coded(9, transfer), avif[: at + 8] + struct.pack(">HH", 9, transfer) + avif[at + 12 :]):
        with pytest.raises(PictureError, match=r"high dynamic range \(PQ or HLG\).*save it for usual screens"):
            decode(content)


def test_grey_with_a_profile_of_grey_is_taken_to_srgb_and_stays_grey() -> None:
    """Of linear light, of 8 and of 16 bits."""
    made = bytearray(profile(1.0))
    made[16:20] = b"GRAY"
    at = made.index(b"rTRC", 132)
    made[at : at + 4] = b"kTRC"
    eight = saved(Image.new("L", (4, 4), 100), "PNG", icc_profile=bytes(made))
    sixteen = saved(Image.fromarray(np.full((4, 4), 100 * 257, np.uint16)), "PNG", icc_profile=bytes(made))
    for content in (eight, sixteen):
        shown = decode(content)
        assert (shown.image.mode, shown.notices) == ("L", ())
        assert abs(int(np.asarray(shown.image)[0, 0]) - 169) <= 1


def test_what_the_first_frame_of_a_gif_leaves_uncovered_is_transparent() -> None:
    whole, part = Image.new("P", (8, 8), 1), Image.new("P", (4, 4), 1)
    for image in (whole, part):
        image.putpalette([0, 0, 255, 255, 0, 0])
    content = bytearray(saved(part, "GIF"))
    content[6:10] = struct.pack("<2H", 8, 8)  # the screen is larger than its first frame
    shown = pixels(bytes(content))
    assert shown[0, 0].tolist() == [255, 0, 0]
    assert shown[6, 6].tolist() == [255, 255, 255]
    assert np.array_equal(pixels(saved(whole, "GIF")), np.full((8, 8, 3), [255, 0, 0], np.uint8))


def test_colours_of_16_bits_in_jpeg_2000_are_refused_since_their_white_would_be_black() -> None:
    content = bytearray(saved(quarters(), "JPEG2000"))
    assert pixels(bytes(content)).shape == (16, 24, 3)
    at = content.find(b"\xff\x4f\xff\x51") + 42
    content[at : at + 7 : 3] = b"\x0f\x0f\x0f"
    with pytest.raises(PictureError, match="JPEG 2000 in colour of more than 8 bits"):
        decode(bytes(content))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "JPEG2000", "AVIF"])
def test_a_picture_that_was_cut_short_is_refused(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), form)
    with pytest.raises(PictureError):
        decode(content[: len(content) // 2])


def test_too_many_pixels_are_refused_before_any_is_decoded() -> None:
    content = saved(Image.new("1", (4000, 4000)), "PNG")
    with pytest.raises(PictureError, match="4000 x 4000 pixels: at most 1,000,000"):
        decode(content, max_pixels=1_000_000)
    bomb = bytearray(content)
    bomb[16:24] = struct.pack(">II", 60000, 60000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    with pytest.raises(PictureError, match="pixels"):
        measure(bytes(bomb))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "ICO", "AVIF"])
def test_every_format_is_known_by_its_first_bytes(form: str) -> None:
    assert kinds.looks_like(saved(quarters(), form)[:32])


@pytest.mark.parametrize("edge", [32, 64, 256])
def test_a_photo_decoded_at_a_fraction_of_its_size_looks_as_decoded_whole(edge: int) -> None:
    y, x = np.mgrid[0:1536, 0:2048] / 200
    photo = np.stack([np.sin(x + c) * np.cos(y * (c + 1)) * 110 + 127 for c in range(3)], -1)
    photo += np.random.default_rng(0).normal(0, 12, photo.shape)
    content = saved(Image.fromarray(photo.clip(0, 255).astype(np.uint8)), "JPEG", quality=92)
    small, whole = decode(content, edge=edge), decode(content)
    assert 3 * edge <= min(small.image.size) < min(whole.image.size), "enough is left for a good resize"
    assert small.size == whole.size == (2048, 1536)
    apart = pictures.square(small.image, edge, 3).astype(float) - pictures.square(whole.image, edge, 3)
    assert np.abs(apart).mean() <= 1


def test_a_square_is_the_middle_and_keeps_what_fits_already() -> None:
    wide = np.zeros((8, 16), np.uint8)
    wide[:, 4:12] = 200
    assert (pictures.square(Image.fromarray(wide), 8, 1) == 200).all()
    noise = np.random.default_rng(1).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(pictures.square(Image.fromarray(noise), 8, 3), noise)


def test_colour_is_more_than_the_noise_of_a_jpeg() -> None:
    grey = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    as_jpeg = pixels(saved(Image.fromarray(np.stack([grey] * 3, -1)), "JPEG", quality=60))
    assert not pictures.coloured(as_jpeg)
    assert pictures.coloured(np.asarray(quarters()))


def test_colour_is_noise_up_to_a_dozen_levels_and_a_few_pixels_of_it_are_none() -> None:
    grey = np.full((100, 100, 3), 100, np.uint8)
    noisy, spotted, stained = grey.copy(), grey.copy(), grey.copy()
    noisy[..., 0] += 12
    spotted[:4, :10, 0] = 200  # 0.4 %
    stained[:2, :, 0] = 200  # 2 %
    assert [pictures.coloured(one) for one in (noisy, spotted, stained)] == [False, False, True]


def test_what_imagej_shows_as_black_and_white_is() -> None:
    floats = np.linspace(-50, 150, 64, dtype=np.float32).reshape(8, 8)
    told = "ImageJ=1.53t\nimages=1\nmin=-50.0\nmax=150.0\n"
    shown = pixels(saved(Image.fromarray(floats), "TIFF", tiffinfo={270: told}))
    assert np.array_equal(shown, np.rint(np.linspace(0, 255, 64)).reshape(8, 8))


def test_sixteen_bits_of_which_only_twelve_are_used_are_spoken_of() -> None:
    dark = Image.fromarray(np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8))
    assert any("darkest sixteenth" in notice for notice in decode(saved(dark, "PNG")).notices)
    bright = Image.fromarray(np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8))
    assert decode(saved(bright, "PNG")).notices == ()
