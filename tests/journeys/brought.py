"""What people bring, drawn anew: a bright block a class at its own place; and how near a picture is to a class."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.float64]
# What a phone writes for a picture that it shows so: the transposition that undoes EXIF's (tag 0x0112).
LYING = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def drawn(place: int, of: int, edge: int, draw: np.random.Generator) -> Grey:
    """Greys 0 to 255, [edge, edge]: dark and noisy, with a block at one of ``of`` places, moved a little."""
    rows = 3 if of > 6 else 2
    height, width = edge // rows, edge // -(-of // rows)
    row, column = divmod(place, -(-of // rows))
    grey = np.full((edge, edge), 20.0)
    grey[row * height : (row + 1) * height, column * width : (column + 1) * width] = 230
    grey += draw.normal(0, 8, grey.shape)
    moved: Grey = np.roll(grey, draw.integers(-1, 2, 2), (0, 1)).clip(0, 255)
    return moved


def pictures(counts: Mapping[str, int], edge: int, seed: int = 0) -> dict[str, list[Grey]]:
    """So many of each class, each class at a place of its own."""
    draw = np.random.default_rng(seed)
    return {
        name: [drawn(place, len(counts), edge, draw) for _ in range(count)]
        for place, (name, count) in enumerate(counts.items())
    }


def photo(grey: Grey, orientation: int, margin: int) -> bytes:
    """A JPEG of warm colours, wider than high by two margins, that lies as a phone was held."""
    wide = np.pad(grey, ((0, 0), (margin, margin)), constant_values=90)
    tinted = Image.fromarray(np.stack([wide, wide * 0.8, wide * 0.5], -1).astype(np.uint8))
    turned = LYING[orientation]
    lying = tinted if turned is None else tinted.transpose(turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    lying.save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


def zipped_on_windows(files: Mapping[str, bytes]) -> bytes:
    """With backslashes, a folder around it all, and what Explorer leaves."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in {**files, "Thumbs.db": b"\xd0\xcf\x11\xe0", "desktop.ini": b"[.ShellClassInfo]"}.items():
            info = zipfile.ZipInfo("x")
            info.filename = "Camera Roll\\" + path.replace("/", "\\")
            archive.writestr(info, content)
    return buffer.getvalue()


def scans(root: Path, brought: Mapping[str, Sequence[Grey]]) -> None:
    """Class folders of 16-bit greys: TIFFs of either byte order, and PNGs."""
    for name, greys in brought.items():
        (root / name).mkdir(parents=True)
        for index, grey in enumerate(greys):
            samples = np.rint(grey * 257).astype(np.uint16)
            if index % 3 == 0:
                Image.frombytes("I;16B", grey.shape, samples.astype(">u2").tobytes()).save(root / name / f"{index}.TIF")
            else:
                Image.fromarray(samples).save(root / name / f"{index}.{('tiff', 'png')[index % 2]}")


def nearest(image: NDArray[np.uint8], brought: Mapping[str, Sequence[Grey]]) -> str:
    """The class whose pictures are nearest to an image uint8 [h, w, c], on average and in squares of greys."""
    grey = image.astype(float).mean(-1)
    grey = 20 + (grey - grey.min()) * (210 / max(1.0, np.ptp(grey)))  # a tint is no distance
    height, width = grey.shape
    far = {}
    for name, greys in brought.items():
        real = [np.asarray(Image.fromarray(one.astype(np.uint8)).resize((width, height)), float) for one in greys]
        far[name] = float(np.mean([((grey - one) ** 2).mean() for one in real]))
    return min(far, key=lambda name: far[name])


def right(served: Mapping[str, Sequence[NDArray[np.uint8]]], brought: Mapping[str, Sequence[Grey]]) -> float:
    """Of the class that does worst, the share of served images that are nearest to their own class's pictures."""
    return min(float(np.mean([nearest(image, brought) == name for image in images])) for name, images in served.items())


def swapped(served: Mapping[str, Sequence[NDArray[np.uint8]]]) -> dict[str, Sequence[NDArray[np.uint8]]]:
    """As if the labels were wrong: each class has the images of the next one."""
    names = list(served)
    return {name: served[other] for name, other in zip(names, names[1:] + names[:1], strict=True)}


def turned(served: Mapping[str, Sequence[NDArray[np.uint8]]]) -> dict[str, Sequence[NDArray[np.uint8]]]:
    """As if the pixels were wrong: each image upside down."""
    return {name: [image[::-1] for image in images] for name, images in served.items()}
