"""One picture, from bytes to pixels, as a viewer shows it.

Upright by what EXIF tells; the first frame; 16-bit samples scaled; colour profiles taken to sRGB; what is transparent
over one flat background. The content decides what a file is, never its name. Everything here may be hostile.
"""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

# What lies behind transparent pixels.
BACKGROUND = (255, 255, 255)
MAX_PIXELS = 1 << 27
# Nothing else is opened: some formats of Pillow's start other programs, or are rarely tried. Several pictures in one
# JPEG, as phones write them (MPO), are opened as JPEG.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "ICO", "AVIF")
# JPEG can be decoded at a fraction of its size; so many times the edge that is wanted is left for a good resize.
_DRAFT = 3
_STATES_RANGE = ((340, 341), (280, 281))  # TIFF's SMin/SMaxSampleValue, Min/MaxSampleValue
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_MAGIC = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\x01\0",
    b"\xff\x4f\xff\x51",
    b"\0\0\0\x0cjP  ",
)


_SUFFIXES = dict(zip(_MAGIC, (".png", ".jpg", ".gif", ".bmp", *[".tif"] * 4, ".ico", ".jp2", ".jp2"), strict=True))


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


def looks_like(head: bytes) -> bool:
    """Whether a file that begins with these bytes (32 suffice) is of a kind of picture that is known here."""
    return (
        head.startswith(_MAGIC)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and (head[8:12] in _HEIC or head[8:12] in (b"avif", b"avis")))
        or (len(head) > 2 and head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n#")
    )


def measure(content: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Upright width and height, by the header alone. Raises PictureError."""
    with _opened(content, max_pixels) as image:
        return _upright_size(image)


def suffix(content: bytes) -> str:
    """What a file of this content is called at its end, such as ``.png``; by its bytes alone."""
    if content[4:8] == b"ftyp":
        return ".avif"
    if content[8:12] == b"WEBP":
        return ".webp"
    return next((end for begin, end in _SUFFIXES.items() if content.startswith(begin)), ".ppm")


def decode(content: bytes, *, edge: int | None = None, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture; with ``edge``, perhaps decoded smaller, but never below a few times that short edge.

    Raises:
        PictureError: no picture, an unreadable or truncated one, one of too many pixels, or samples without a range.
    """
    notices: list[str] = []
    with _opened(content, max_pixels) as image:
        try:
            size = _upright_size(image)
            if edge is not None and image.format in ("JPEG", "MPO"):
                scale = _DRAFT * edge / min(image.size)
                image.draft(image.mode, (round(image.width * scale), round(image.height * scale)))
            image.load()
            shown = _upright(image, notices)
            shown = _eight_bits(shown, image)
            shown = _flattened(_in_srgb(shown, image, notices), notices)
        except PictureError:
            raise
        except Exception as error:  # a broken file makes Pillow raise almost any kind
            raise PictureError(f"cannot be decoded: {_told(error)}") from error
    return Picture(shown, size, tuple(notices))


def square(image: Image.Image, edge: int, channels: int) -> NDArray[np.uint8]:
    """The centred square of a picture, resized: uint8 [edge, edge, channels]; 1 is grey, 3 is colour."""
    image = image.convert("L" if channels == 1 else "RGB")
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
    low, high = pixels.min(-1), pixels.max(-1)
    return bool(((high - low) > _JPEG_NOISE).mean() > _FEW_PIXELS)


_JPEG_NOISE, _FEW_PIXELS = 12, 0.005
_FILTERS = threading.Lock()


def _opened(content: bytes, max_pixels: int) -> Image.Image:
    if not content:
        raise PictureError("is empty")
    if content[4:8] == b"ftyp" and content[8:12] in _HEIC:
        raise PictureError(
            "is a HEIC picture, which is not read here: convert it, as with `magick photo.heic photo.jpg`, or let the "
            "phone save JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible)"
        )
    # Filters belong to the process, and several threads read.
    with _FILTERS, warnings.catch_warnings():
        # Our own limit comes first; Pillow's warning would only repeat it.
        warnings.simplefilter("ignore")
        try:
            Image.init()
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise TooManyPixels(f"has too many pixels: at most {max_pixels:,} are read") from error
        except Exception as error:  # as above
            raise PictureError(f"cannot be read: {_told(error)}") from error
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise TooManyPixels(f"has {width} x {height} pixels: at most {max_pixels:,} are read")
    return image


def _told(error: Exception) -> str:
    text = str(error)
    # Pillow names its own file object in this one, which tells the owner nothing.
    if text.startswith("cannot identify"):
        return "it is no picture of a known kind"
    return text or type(error).__name__


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # EXIF is as free a form as any; without one the picture is as it is
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    # Pillow tells TIFF's size upright already.
    sideways = image.format != "TIFF" and _orientation(image) in (5, 6, 7, 8)
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


def _eight_bits(image: Image.Image, file: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, whole or floating, scaled to 0..255; other modes as they are."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    samples = np.asarray(image).astype(np.float64)
    low, high = _range(samples, image.mode, file)
    scaled = np.rint((samples - low) * (255.0 / (high - low))).clip(0, 255).astype(np.uint8)
    if _tag(file, _PHOTOMETRIC) == 0:
        scaled = 255 - scaled
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        return Image.merge("LA", [Image.fromarray(scaled), Image.fromarray(np.uint8(samples != clear) * np.uint8(255))])
    grey = Image.fromarray(scaled)
    grey.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    return grey


def _range(samples: NDArray[np.float64], mode: str, file: Image.Image) -> tuple[float, float]:
    """What is black and what is white."""
    if not np.isfinite(samples).all():
        raise PictureError("holds samples that are no numbers")
    for low_tag, high_tag in _STATES_RANGE:
        low, high = _tag(file, low_tag), _tag(file, high_tag)
        if high is not None and high > (low or 0):
            return float(low or 0), float(high)
    bits = _tag(file, _BITS)
    if mode == "F":
        if samples.min() >= 0 and samples.max() <= 1:
            return 0.0, 1.0
    elif mode.startswith("I;16") or file.format in ("PNG", "PPM") or bits == 16:
        return (-32768.0, 32767.0) if _tag(file, _SAMPLE_FORMAT) == 2 else (0.0, 65535.0)
    found = f"{samples.min():g} to {samples.max():g}"
    raise PictureError(
        f"has samples from {found} and does not state which are black and white: save it with 8 or 16 bits, as floats "
        "from 0 to 1, or with TIFF's SMinSampleValue and SMaxSampleValue"
    )


def _tag(file: Image.Image, number: int) -> float | None:
    """A TIFF tag's first number; None where there is none."""
    value: Any = getattr(file, "tag_v2", {}).get(number)
    if isinstance(value, tuple):
        value = value[0] if value else None
    return None if value is None else float(value)


def _in_srgb(image: Image.Image, file: Image.Image, notices: list[str]) -> Image.Image:
    """In mode L, LA, RGB or RGBA, with its colours in sRGB."""
    alpha = _alpha(image)
    profile = file.info.get("icc_profile")
    base = _plain(image, keep=profile is not None or image.mode == "LAB")
    if image.mode == "LAB":
        base = _converted(base, ImageCms.createProfile("LAB"))
    elif profile:
        try:
            base = _converted(base, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            notices.append("its colour profile is broken or of another kind: passed over")
    if base.mode not in ("L", "RGB"):
        base = base.convert("RGB")
    if alpha is not None:
        base.putalpha(alpha)
    return base


def _plain(image: Image.Image, *, keep: bool) -> Image.Image:
    """Without alpha or palette, in mode L or RGB; CMYK and LAB stay if a profile is to be applied (``keep``)."""
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.mode in ("L", "RGB") or (keep and image.mode in ("CMYK", "LAB")):
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


def _converted(image: Image.Image, profile: Any) -> Image.Image:
    """To sRGB; what is in it already keeps its very pixels. Raises PyCMSError for a profile of another colour space."""
    if isinstance(profile, ImageCms.ImageCmsProfile) and "sRGB" in (ImageCms.getProfileDescription(profile) or ""):
        return image
    converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    return converted.convert("L") if image.mode == "L" else converted


def _flattened(image: Image.Image, notices: list[str]) -> Image.Image:
    if image.mode not in ("LA", "RGBA"):
        return image
    notices.append("it is transparent in places: laid over white")
    opaque = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    opaque.alpha_composite(image.convert("RGBA"))
    return opaque.convert("RGB") if image.mode == "RGBA" else opaque.convert("RGB").convert("L")
