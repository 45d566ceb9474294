"""A file is what its first bytes say; what is no picture that is read is named, with what would be right."""

from __future__ import annotations

import pytest

from ganserve import kinds
from ganserve.pictures import PictureError, decode

UNREAD = {
    b"8BPS\0\1": "a Photoshop document",
    b"\xff\x0a\xfa": "a JPEG XL picture",
    b"\x76\x2f\x31\x01": "an OpenEXR picture",
    b"%PDF-1.7": "a PDF document",
    b"%!PS-Adobe-3.0": "a PostScript document",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>": "an SVG drawing",
    b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<svg/>": "an SVG drawing",
    bytes(128) + b"DICM": "a DICOM picture",
    b"\x93NUMPY\1\0": "a NumPy array",
    b"\0\0\x08\3\0\0\xea\x60": "an IDX array",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x80\2}q\1": "a pickle",
}


@pytest.mark.parametrize("content", UNREAD)
def test_a_picture_of_a_kind_that_is_not_read_is_named_with_what_would_be_right(content: bytes) -> None:
    assert not kinds.looks_like(content[: kinds.HEAD_BYTES])
    with pytest.raises(PictureError, match=f"it is {UNREAD[content]}.*, which is not read here: save what it shows"):
        decode(content + bytes(600))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"\r\n<!DOCTYPE html><html>404</html>", "web page"),
        (b"PK\3\4" + bytes(26), "a ZIP archive: unpack it"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
        (b"\x1f\x8b\x08", r"\.tar\.gz is: unpack it"),
    ],
)
def test_what_stands_in_for_a_picture_is_named(content: bytes, words: str) -> None:
    with pytest.raises(PictureError, match=words):
        decode(content)


@pytest.mark.parametrize(
    "content", [b"BMW, Audi and others", b"P1 was the first patient", b"P5", b"GIF8 is a format", bytes(32), b""]
)
def test_a_text_is_no_picture_for_beginning_as_one_does(content: bytes) -> None:
    assert not kinds.looks_like(content[: kinds.HEAD_BYTES])


def test_a_damaged_picture_is_not_called_unknown() -> None:
    with pytest.raises(PictureError, match="damaged, or of a rare variant: save it anew"):
        decode(b"\x89PNG\r\n\x1a\n" + bytes(40))
