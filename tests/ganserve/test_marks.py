"""Every picture says, for programs to read, that a machine made it; a strict reader of others' make finds it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganserve import encode, marks, png
from ganserve.address import Address, Layout
from ganserve.latents import consecutive
from service.morph import animate
from tests.tiny import card

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
ADDRESS = Address.of(card("m", sha256="ab" * 32), np.arange(4, dtype=np.int64) % 3, consecutive(42, 4), Layout(2, 2, 1))
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SHEETS = {"grey": encode.grid(GREY), "colour": encode.grid(COLOUR)}
PICTURES = {f"png-{name}": marks.picture(sheet, ADDRESS) for name, sheet in SHEETS.items()}
PICTURES |= {f"webp-{name}": encode.webp(sheet, ADDRESS) for name, sheet in SHEETS.items()}
ANIMATIONS = {"animated-webp": animate(COLOUR, "webp", 100), "animated-gif": animate(GREY, "gif", 100)}


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and data of each chunk of a PNG; checksums hold."""
    found, at = [], 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + data).to_bytes(4, "big") == content[at + 8 + length : at + 12 + length]
        found.append((kind, data))
        at += 12 + length
    return found


def exiftool(tmp_path: Path, name: str, content: bytes) -> dict[str, Any]:
    program = shutil.which("exiftool")
    if program is None:
        pytest.skip("exiftool is not installed")
    file = tmp_path / f"picture.{name}"
    file.write_bytes(content)
    command = [program, "-j", "-G", "-n", "-a", "-validate", "-all", str(file)]
    ran = subprocess.run(command, capture_output=True, check=True)
    told: dict[str, Any] = json.loads(ran.stdout)[0]
    return told


def test_the_packet_is_well_formed_and_names_the_term_of_iptc() -> None:
    text = marks.XMP.decode("utf-8")
    assert text.startswith('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>')
    assert text.endswith('<?xpacket end="r"?>')
    (described,) = ElementTree.fromstring(text).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert described.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType") == SOURCE_TYPE


@pytest.mark.parametrize("name", [*PICTURES, *ANIMATIONS])
def test_the_packet_stands_in_every_picture_as_it_is(name: str) -> None:
    content = (PICTURES | ANIMATIONS)[name]
    assert content.count(marks.XMP) == 1
    Image.open(io.BytesIO(content)).load()


def test_a_png_carries_packet_software_and_address_as_uncompressed_text_before_its_pixels() -> None:
    found = chunks(PICTURES["png-grey"])
    kinds = [kind for kind, _ in found]
    assert kinds[0] == b"IHDR"
    assert kinds[-2:] == [b"IDAT", b"IEND"]
    assert found[1] == (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + marks.XMP)
    text = dict(data.split(b"\0", 1) for kind, data in found if kind == b"tEXt")
    assert text[b"Software"] == b"ganserve"
    assert text[b"Address"].decode() == ADDRESS.query()
    assert {name: text[name.encode()].decode() for name in ADDRESS.text()} == ADDRESS.text()


def test_a_webp_carries_software_and_address_as_exif() -> None:
    tags = Image.open(io.BytesIO(PICTURES["webp-colour"])).getexif()
    assert (tags[0x010E], tags[0x0131]) == (ADDRESS.query(), "ganserve")


@pytest.mark.parametrize("name", [*PICTURES, *ANIMATIONS])
def test_a_strict_reader_sees_the_mark(name: str, tmp_path: Path) -> None:
    kind = name.removeprefix("animated-").partition("-")[0]
    told = exiftool(tmp_path, kind, (PICTURES | ANIMATIONS)[name])
    assert told["XMP:DigitalSourceType"] == SOURCE_TYPE
    assert told["ExifTool:Validate"] == "0 0 0", told.get("ExifTool:Warning")
    if name in PICTURES:
        group, place = ("PNG", "Address") if kind == "png" else ("EXIF", "ImageDescription")
        assert told[f"{group}:{place}"] == ADDRESS.query()
        assert told[f"{group}:Software"] == "ganserve"


@pytest.mark.parametrize("name", list(ANIMATIONS))
def test_an_animation_is_the_same_frames_with_the_mark(name: str) -> None:
    frames: Any = Image.open(io.BytesIO(ANIMATIONS[name]))
    images = COLOUR if "webp" in name else GREY
    assert frames.n_frames == len(images)
    for index, image in enumerate(images):
        frames.seek(index)
        assert np.array_equal(np.asarray(frames.convert("RGB")), np.broadcast_to(image, (*image.shape[:2], 3)))
    assert frames.info["loop"] == 0


def test_a_row_carries_the_packet_itself_only_where_it_is_no_tenth_of_the_picture() -> None:
    small, large = GREY[0], RANDOM.integers(0, 256, (80, 80, 1), dtype=np.uint8)
    assert marks.row(small) == png.encode(small)
    assert marks.row(large) == png.encode(large, None, marks.PNG)
    for image in (small, large):
        assert len(marks.row(image)) <= 1.1 * len(png.encode(image))


def test_a_file_from_before_there_were_marks_gets_one_and_no_second() -> None:
    old = png.encode(GREY[0], {"X-Seed": "1"})
    marked = marks.insert(old)
    assert dict(chunks(marked)) | dict(chunks(old)) == dict(chunks(marked))
    assert marks.insert(marked) == marked
    assert marks.insert(marks.picture(GREY[0])) == marks.picture(GREY[0])
    assert marks.insert(b"no picture") == b"no picture"


def test_documents_and_arrays_have_the_mark_as_fields() -> None:
    meta = {"model": "m", "version": 1, "latent_recipe": "r/v1"}
    document = json.loads(encode.json_document(GREY, None, range(4), [], meta))
    with zipfile.ZipFile(io.BytesIO(encode.zip_archive(GREY, None, range(4), [], meta))) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    arrays = np.load(io.BytesIO(encode.npz(GREY, None, range(4), address=ADDRESS)), allow_pickle=False)
    for told in (document, manifest, {name: arrays[name].item() for name in ("software", "digital_source_type")}):
        assert (told["software"], told["digital_source_type"]) == ("ganserve", SOURCE_TYPE)
    assert arrays["address"].item() == ADDRESS.query()
