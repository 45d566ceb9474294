"""The mark of pictures made by a machine: the same in every format, for programs to read.

An XMP packet with IPTC's ``DigitalSourceType`` (IPTC Photo Metadata Standard 2023.1), uncompressed and the same in
every picture, so that it is found by its bytes alone; the program and the picture's address as text beside it.
Documents and tables have the same as fields. ``docs/marks.md`` lists what is written where.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganserve import png
from ganserve.address import Address

SOFTWARE = "ganserve"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP_KEY, ADDRESS_KEY = "XML:com.adobe.xmp", "Address"
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
).encode()
# Members of a document, columns of a table.
FIELDS: Mapping[str, str] = {"software": SOFTWARE, "digital_source_type": SOURCE_TYPE}
# The picture of a row that is one of many carries the packet itself only where it is not more than a part of it.
_PART = 10

PNG = png.international_chunk(XMP_KEY, XMP) + png.text_chunk("Software", SOFTWARE)
# Of EXIF (CIPA DC-008), tags 0x010E and 0x0131.
EXIF_ADDRESS, _SOFTWARE = 0x010E, 0x0131
# What lets a reader of GIF that knows no XMP get over the packet (Adobe, XMP specification, part 3, section 1.1.2).
_GIF_XMP = b"\x21\xff\x0bXMP DataXMP" + XMP + b"\x01" + bytes(range(255, -1, -1)) + b"\0"


def picture(image: NDArray[np.uint8], address: Address | None = None, text: Mapping[str, str] | None = None) -> bytes:
    """A PNG of uint8 [h, w, c] that says what it is: by itself, with its address where it has one, and ``text``."""
    told = dict(text or {})
    if address is not None:
        told = {**address.text(), **told, ADDRESS_KEY: address.query()}
    return png.encode(image, told, PNG)


def row(image: NDArray[np.uint8]) -> bytes:
    """A PNG that is one of many in a file whose fields carry the mark: marked itself only where that adds no tenth."""
    content = png.encode(image)
    return insert(content) if _PART * len(PNG) <= len(content) else content


def insert(content: bytes) -> bytes:
    """A PNG with the mark, which it may have already; anything else as it is."""
    start = len(png.SIGNATURE) + png.HEADER_BYTES
    if not content.startswith(png.SIGNATURE) or XMP in content[: start + len(PNG)]:
        return content
    return content[:start] + PNG + content[start:]


def webp(address: Address | None = None) -> dict[str, Any]:
    """What Pillow is told to write into a WebP: the packet, and EXIF with the program and the address."""
    tags = {_SOFTWARE: SOFTWARE} if address is None else {EXIF_ADDRESS: address.query(), _SOFTWARE: SOFTWARE}
    return {"xmp": XMP, "exif": _exif(tags)}


def gif(content: bytes) -> bytes:
    """A GIF with the packet and the program's name, behind its header and its table of colours."""
    flags = content[10]
    start = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
    comment = b"\x21\xfe" + bytes([len(SOFTWARE)]) + SOFTWARE.encode() + b"\0"
    return content[:start] + _GIF_XMP + comment + content[start:]


def _exif(tags: Mapping[int, str]) -> bytes:
    """TIFF's layout, little-endian: one directory of ASCII values, in the order of their tags."""
    at = 8 + 2 + 12 * len(tags) + 4
    directory, values = b"", b""
    for tag, text in sorted(tags.items()):
        value = text.encode("ascii") + b"\0"
        directory += struct.pack("<HHLL", tag, 2, len(value), at + len(values))
        # Offsets are even.
        values += value + bytes(len(value) % 2)
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + directory + bytes(4) + values
