"""Images to bytes: PNG grid, WebP, ZIP, NPZ, JSON."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganserve import marks
from ganserve.address import Address, squarest
from ganserve.labels import plain

Pixels = NDArray[np.uint8]

WEBP_SIDE = 16383


def grid(images: Pixels, columns: int | None = None, padding: int = 2, scale: int = 1) -> Pixels:
    """Tiles uint8 [n, h, w, c] row by row on black, ``padding`` pixels between and around: uint8 [H, W, c]."""
    n, height, width, channels = images.shape
    columns = min(columns or squarest(n), n)
    rows = -(-n // columns)
    if scale > 1:
        images = images.repeat(scale, axis=1).repeat(scale, axis=2)
        height, width = height * scale, width * scale
    down, across = height + padding, width + padding
    sheet = np.zeros((rows * down + padding, columns * across + padding, channels), np.uint8)
    # The cells of the sheet, each a tile with the padding above it and to its left; a view, so tiles are copied once.
    cells = sheet[: rows * down, : columns * across].reshape(rows, down, columns, across, channels, copy=False)
    tiles = cells[:, padding:, :, padding:].transpose(0, 2, 1, 3, 4)
    whole = n // columns
    tiles[:whole] = images[: whole * columns].reshape(whole, columns, height, width, channels)
    if whole < rows:
        tiles[whole, : n - whole * columns] = images[whole * columns :]
    return sheet


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def webp(image: Pixels, address: Address | None = None) -> bytes:
    """A lossless WebP of uint8 [h, w, c], marked as made by a machine, with its address where it has one."""
    buffer = io.BytesIO()
    _image(image).save(buffer, "WEBP", lossless=True, quality=20, method=0, **marks.webp(address))
    return buffer.getvalue()


def zip_archive(
    images: Pixels,
    labels: Sequence[int] | None,
    seeds: Sequence[int],
    classes: Sequence[str],
    meta: Mapping[str, Any],
) -> bytes:
    """One PNG an image and ``manifest.json``; equal input gives equal bytes."""
    buffer = io.BytesIO()
    meta = _told(meta, labels, classes)
    entries = []
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for index, (pixels, seed) in enumerate(zip(images, seeds, strict=True)):
            entry: dict[str, Any] = {"file": f"{index:06d}.png", "seed": int(seed)}
            if labels is not None:
                entry |= {"label": int(labels[index]), "class": classes[labels[index]]}
            entries.append(entry)
            archive.writestr(_entry(entry["file"]), marks.row(pixels))
        manifest = json.dumps({**meta, "images": entries}, indent=1, ensure_ascii=False)
        archive.writestr(_entry("manifest.json"), manifest)
    return buffer.getvalue()


def _told(meta: Mapping[str, Any], labels: Sequence[int] | None, classes: Sequence[str]) -> dict[str, Any]:
    """What is said of all images: the mark, and the names, where they are more than their indices."""
    told = {**meta, **marks.FIELDS}
    return told if labels is None or plain(classes) else {**told, "class_names": list(classes)}


def _entry(name: str) -> zipfile.ZipInfo:
    """An archive entry without the time of day in it."""
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


def npz(
    images: Pixels,
    labels: Sequence[int] | None,
    seeds: Sequence[int],
    classes: Sequence[str] = (),
    address: Address | None = None,
) -> bytes:
    """Arrays ``images`` uint8 [n, h, w, c], ``labels`` int64 [n] (-1 without classes), ``seeds`` uint64 [n].

    And ``class_names``, text [classes], where names are more than their indices; ``address``, text, where it is given;
    and the mark: ``software`` and ``digital_source_type``, text.
    """
    arrays: dict[str, NDArray[Any]] = {
        "images": images,
        "labels": np.asarray(labels if labels is not None else [-1] * len(images), np.int64),
        "seeds": np.asarray(seeds, np.uint64),
    }
    if labels is not None and not plain(classes):
        arrays["class_names"] = np.asarray(classes)
    if address is not None:
        arrays["address"] = np.asarray(address.query())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            archive.writestr(_entry(f"{name}.npy"), npy(array))
        for name, content in MARK_ARRAYS.items():
            archive.writestr(_entry(name), content)
    return buffer.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    """The file of one array."""
    part = io.BytesIO()
    np.lib.format.write_array(part, array, allow_pickle=False)
    return part.getvalue()


MARK_ARRAYS = {f"{name}.npy": npy(np.asarray(text)) for name, text in marks.FIELDS.items()}


def json_document(
    images: Pixels,
    labels: Sequence[int] | None,
    seeds: Sequence[int],
    classes: Sequence[str],
    meta: Mapping[str, Any],
) -> bytes:
    """Base64 PNGs with label, class and seed."""
    meta = _told(meta, labels, classes)
    entries = []
    for index, (pixels, seed) in enumerate(zip(images, seeds, strict=True)):
        entry: dict[str, Any] = {"seed": int(seed)}
        if labels is not None:
            entry |= {"label": int(labels[index]), "class": classes[labels[index]]}
        entry["png"] = base64.b64encode(marks.row(pixels)).decode("ascii")
        entries.append(entry)
    return json.dumps({**meta, "images": entries}, ensure_ascii=False, separators=(",", ":")).encode()
