"""One picture, from bytes to pixels, as a viewer shows it.

Upright by what EXIF tells; the first frame; 16-bit samples scaled; colour profiles taken to sRGB; what is transparent
over one flat background. The content decides what a file is, never its name. Everything here may be hostile.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ganserve import kinds, profiles, samples, tiffs

# What lies behind transparent pixels.
BACKGROUND = (255, 255, 255)
MAX_PIXELS = 1 << 27
# Nothing else is opened: some formats of Pillow's start other programs, or are rarely tried. Several pictures in one
# JPEG, as phones write them (MPO), are opened as JPEG.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "ICO", "AVIF")
# JPEG can be decoded at a fraction of its size; so many times the edge that is wanted is left for a good resize.
_DRAFT = 3
# So many pixels are decoded by few threads at a time, however many read.
_LARGE, _LARGE_AT_ONCE = 1 << 25, threading.Semaphore(2)


class PictureError(ValueError):
    """A picture that cannot be read as it is meant; the message says why, and follows the file's name."""


class TooManyPixels(PictureError):  # noqa: N818
    """A picture that is sound, as far as can be told, and too large to be decoded."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture: ``image`` in Pillow's mode L or RGB, upright; ``size`` is (width, height) in the file,
    upright too, also where it was decoded smaller; ``notices`` say what was done to it."""

    image: Image.Image
    size: tuple[int, int]
    notices: tuple[str, ...] = ()


def measure(content: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Upright width and height. Raises PictureError."""
    with QUIET, _opened(content, max_pixels) as image:
        try:
            if image.format == "PNG":  # which may tell how it lies at its very end
                image.load()
            return _upright_size(image, image.size)
        except Exception as error:  # a broken file makes Pillow raise almost any kind
            raise PictureError(f"cannot be decoded: {_told(error)}") from error


def short_edge(content: bytes, *, max_pixels: int = MAX_PIXELS) -> int:
    """The shorter of width and height, by the header alone. Raises PictureError."""
    if content.startswith(b"\x89PNG\r\n\x1a\n") and content[12:16] == b"IHDR":
        return min(int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big"))
    return min(measure(content, max_pixels=max_pixels))


def decode(content: bytes, *, edge: int | None = None, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture; with ``edge``, perhaps decoded smaller, but never below a few times that short edge.

    Raises:
        PictureError: no picture, an unreadable or truncated one, one of too many pixels, or samples without a range.
    """
    notices: list[str] = []
    with QUIET, _opened(content, max_pixels) as image:
        try:
            size = image.size
            if edge is not None and image.format in ("JPEG", "MPO"):
                scale = _DRAFT * edge / min(image.size)
                image.draft(image.mode, (round(image.width * scale), round(image.height * scale)))
            with _LARGE_AT_ONCE if image.width * image.height > _LARGE else nullcontext():
                shown = _shown(image, content, notices)
            size = _upright_size(image, size)
        except (PictureError, samples.SampleError, profiles.HighRange) as error:
            raise PictureError(str(error)) from error
        except Exception as error:  # as above
            raise PictureError(f"cannot be decoded: {_told(error)}") from error
    return Picture(shown, size, tuple(notices))


def square(image: Image.Image, edge: int, channels: int) -> NDArray[np.uint8]:
    """The centred square of a picture, resized: uint8 [edge, edge, channels]; 1 is grey, 3 is colour."""
    mode = "L" if channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    if image.size != (edge, edge):
        width, height = image.size
        short = min(width, height)
        left, top = (width - short) // 2, (height - short) // 2
        box = (left, top, left + short, top + short)
        image = image.resize((edge, edge), Image.Resampling.BICUBIC, box=box)
    pixels: NDArray[np.uint8] = np.asarray(image)
    return pixels[..., None] if channels == 1 else pixels


def coloured(pixels: NDArray[np.uint8]) -> bool:
    """Whether uint8 [h, w, 3] shows colour: channels further apart than JPEG's noise, in more than a few pixels."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    return bool(((high - low) > _JPEG_NOISE).mean() > _FEW_PIXELS)


# Where a file may tell how it lies; and without which grey and colours of 8 bits are shown as they are. TIFF has tags.
_LIES = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif", "raw profile type exif"})
_HINTS = _LIES | {"transparency", "icc_profile", "gamma", "chromaticity", "code_points"}
Image.init()
_JPEG_NOISE, _FEW_PIXELS = 12, 0.005


class _Quiet:
    """No warning of Pillow's while anybody is inside: what matters of them is an error or a notice here. Filters belong
    to the process, and several threads read: the first one in sets them, the last one out puts them back."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\b")
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


# Whoever reads many enters once around all of them.
QUIET = _Quiet()


def _opened(content: bytes, max_pixels: int) -> Image.Image:
    if not content:
        raise PictureError("is empty")
    if kinds.is_heic(content):
        raise PictureError(
            "is a HEIC picture, which is not read here: convert it, as with `magick photo.heic photo.jpg`, or let the "
            "phone save JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible)"
        )
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"has too many pixels: at most {max_pixels:,} are read") from error
    except Exception as error:  # as above
        raise PictureError(_unreadable(content)) from error
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise TooManyPixels(f"has {width} x {height} pixels: at most {max_pixels:,} are read")
    if (why := _misread(image, content)) is not None:
        image.close()
        raise PictureError(why)
    if image.format == "JPEG2000":
        image.info.update(_told_in_boxes(content))
    elif image.format == "AVIF":
        # Its boxes tell how it lies, whatever its XMP says (HEIF, ISO/IEC 23008-12).
        image.info.pop("xmp", None)
    return image


def _told_in_boxes(content: bytes) -> dict[str, bytes]:
    """The colour profile and the EXIF of a JPEG 2000 file (ISO/IEC 15444-1, I.5.3.3 and I.7.2)."""
    told, stream = {}, content.find(b"jp2c")
    for at in (one.start() for one in re.finditer(b"colr[\2\3]|uuidJpgTiffExif->JP2", content)):
        box = content[at + 4 : at - 4 + int.from_bytes(content[at - 4 : at], "big")]
        if content.startswith(b"colr", at) and at < stream:
            told["icc_profile"] = box[3:]
        elif content.startswith(b"uuid", at):
            told["exif"] = b"Exif\0\0" + box[16:]
    return told


def _misread(image: Image.Image, content: bytes) -> str | None:
    """Why a picture that Pillow opens would not be the one that is meant."""
    if samples.is_raw(image):
        return "is a camera's raw file, which is not read here: develop it to JPEG, PNG or TIFF"
    # Where its rounding passes the largest value, white becomes black.
    if image.format == "JPEG2000" and not image.mode.startswith("I") and samples.jpeg2000_bits(content) > 8:
        return "is a JPEG 2000 in colour of more than 8 bits, which is not read here: save it as PNG or TIFF"
    return None


def _unreadable(content: bytes) -> str:
    if kinds.looks_like(content[: kinds.HEAD_BYTES]):
        return "cannot be read: it is damaged, or of a rare variant: save it anew as PNG, JPEG or TIFF of 8 or 16 bits"
    return f"cannot be read: it {kinds.why_unread(content) or 'is no picture of a known kind'}"


def _shown(image: Image.Image, content: bytes, notices: list[str]) -> Image.Image:
    """The first frame upright, in sRGB, in mode L or RGB, over the background."""
    if getattr(image, "default_image", False):
        # What APNG holds before its frames is for programs that show no animations.
        image.seek(1)
    tiffs.mend(image)
    covered = _covered(image)
    if (code := profiles.code_points(image.format, content)) is not None:
        image.info["code_points"] = code
    image.load()
    plain = image.mode in ("L", "RGB") and image.format != "TIFF" and covered is None
    if plain and not _HINTS.intersection(image.info):
        return image
    if image.format == "PNG":
        _scale_clear(image, content)
    shown = samples.to_eight_bits(_upright(image, notices), image, notices)
    return _flattened(_in_srgb(shown, image, notices), notices, covered)


def _covered(image: Image.Image) -> tuple[int, int, int, int] | None:
    """The part of a GIF that its first frame covers, where that is not all of it."""
    tiles: Any = getattr(image, "tile", None)
    part: tuple[int, int, int, int] | None = tiles[0].extents if image.format == "GIF" and tiles else None
    return None if part == (0, 0, *image.size) else part


def _scale_clear(image: Image.Image, content: bytes) -> None:
    """The colour that a PNG calls transparent, in the samples that Pillow makes: they have 8 bits, it does not."""
    clear, bits = image.info.get("transparency"), content[24]
    if image.mode == "L" and isinstance(clear, int) and bits < 8:
        image.info["transparency"] = clear * 255 // (2**bits - 1)
    elif image.mode == "RGB" and isinstance(clear, tuple) and bits == 16:
        del image.info["transparency"]
        image.putalpha(Image.fromarray(_differs(image, content, clear)))


def _differs(image: Image.Image, content: bytes, clear: tuple[int, ...]) -> NDArray[np.uint8]:
    """255 where colours of 16 bits, of which Pillow keeps the upper half, are others than this one."""
    again: Any = Image.open(io.BytesIO(content), formats=("PNG",))
    again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]  # the halves in the other order
    samples = np.asarray(image).astype(np.uint16) << 8 | np.asarray(again)
    return np.where((samples != clear).any(axis=-1), np.uint8(255), np.uint8(0))


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # EXIF is as free a form as any; without one the picture is as it is
        return 1


def _upright_size(image: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    """Of a file of this size, as it lies. Pillow tells TIFF's size upright already."""
    width, height = size
    sideways = image.format != "TIFF" and bool(_LIES.intersection(image.info)) and _orientation(image) in (5, 6, 7, 8)
    return (height, width) if sideways else (width, height)


def _upright(image: Image.Image, notices: list[str]) -> Image.Image:
    """Turned as EXIF says. TIFF was turned by Pillow when it was loaded."""
    if image.format == "TIFF":
        return image
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as above
        notices.append("its EXIF is broken: taken as it lies")
        return image


def _in_srgb(image: Image.Image, file: Image.Image, notices: list[str]) -> Image.Image:
    """In mode L, LA, RGB or RGBA, with its colours in sRGB."""
    alpha = _alpha(image)
    code = file.info.get("code_points")
    # PNG's chunk counts for more than a profile (PNG 3rd edition, 4.3), AVIF's box for less.
    profile = None if code and file.format == "PNG" else file.info.get("icc_profile")
    base = _plain(image, keep=bool(profile))
    if base.mode == "LAB":
        base = profiles.lab_to_rgb(base)
    elif profile:
        shown = profiles.to_srgb(base, profile)
        if shown is None:
            notices.append("its colour profile is broken or of another kind: passed over")
        base = shown or base
    elif code and base.mode in ("L", "RGB"):
        base = profiles.by_code_points(base, code)
    elif file.format == "PNG" and "srgb" not in file.info and base.mode in ("L", "RGB"):
        base = profiles.by_numbers(base, file.info.get("gamma"), file.info.get("chromaticity"))
    if base.mode not in ("L", "RGB"):
        base = base.convert("RGB")
    if alpha is not None:
        base.putalpha(alpha)
    return base


def _plain(image: Image.Image, *, keep: bool) -> Image.Image:
    """Without alpha or palette, in mode L, RGB or LAB; CMYK stays if a profile is to be applied (``keep``)."""
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    elif image.mode in ("P", "PA") and (image.mode == "PA" or "transparency" in image.info):
        image = image.convert("RGBA")
    if image.mode in ("L", "RGB", "LAB") or (keep and image.mode == "CMYK"):
        plain = image.copy()
    elif image.mode in ("1", "LA"):
        plain = image.convert("L")
    elif image.mode == "RGBA":
        plain = Image.merge("RGB", image.split()[:3])
    else:
        plain = image.convert("RGB")
    plain.info.pop("transparency", None)
    return plain


def _alpha(image: Image.Image) -> Image.Image | None:
    """The opacity, where anything is transparent."""
    if image.mode in ("LA", "RGBA", "PA", "La", "RGBa"):
        alpha = image.getchannel(image.getbands()[-1])
    elif "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        alpha = image.convert("RGBA").getchannel("A")
    else:
        return None
    return None if alpha.getextrema()[0] == 255 else alpha


def _flattened(
    image: Image.Image, notices: list[str], covered: tuple[int, int, int, int] | None = None
) -> Image.Image:
    if covered is not None:
        seen = Image.new("L", image.size)
        seen.paste(image.getchannel("A") if image.mode in ("LA", "RGBA") else 255, covered)
        image.putalpha(seen)
    if image.mode not in ("LA", "RGBA"):
        return image
    notices.append("it is transparent in places: laid over white")
    opaque = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    opaque.alpha_composite(image.convert("RGBA"))
    return opaque.convert("RGB") if image.mode == "RGBA" else opaque.convert("RGB").convert("L")
