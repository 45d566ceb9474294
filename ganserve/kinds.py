"""What a file is, by its first bytes, never by its name; and what it is called where it is no picture that is read."""

from __future__ import annotations

import os
import re

# A kind is known by so many first bytes; few kinds that are not read need more of them.
HEAD_BYTES = 32
_HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_READ = (
    (b"\x89PNG\r\n\x1a\n", ".png"), (b"\xff\xd8\xff", ".jpg"), (b"GIF87a", ".gif"), (b"GIF89a", ".gif"),
    (b"II*\0", ".tif"), (b"MM\0*", ".tif"), (b"II+\0", ".tif"), (b"MM\0+", ".tif"),
    (b"\xff\x4f\xff\x51", ".jp2"), (b"\0\0\0\x0cjP  ", ".jp2"),
)  # fmt: skip
# The sizes of a bitmap's header: two letters alone begin many a text.
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_NETPBM = re.compile(rb"P[1-6]\s+(#|[0-9])")
_UNREAD = (
    (b"8BPS", "a Photoshop document"), (b"\xff\x0a", "a JPEG XL picture"), (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture"), (b"#?RADIANCE", "a Radiance HDR picture"), (b"DDS ", "a DDS texture"),
    (b"qoif", "a QOI picture"), (b"gimp xcf", "a GIMP document"), (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"), (b"<svg", "an SVG drawing"), (b"SIMPLE  =", "a FITS picture"),
    (b"\x93NUMPY", "a NumPy array"), (b"P7\n", "a PAM picture"), (b"Pf\n", "a PFM picture"), (b"PF\n", "a PFM picture"),
    (b"icns", "an Apple icon"), (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (b"\0\0\x08\3", "an IDX array, as MNIST's are"), (b"\0\0\x08\1", "an IDX array of labels"),
    (b"\x89HDF\r\n", "an HDF5 file"), (b"MATLAB 5.0", "a MATLAB file"), (b"\x80\2", "a pickle, as CIFAR-10's are"),
    (b"\x80\3", "a Python pickle"), (b"\x80\4\x95", "a Python pickle"), (b"\x80\5\x95", "a Python pickle"),
)  # fmt: skip
_ARCHIVES = (
    (b"PK\3\4", "a ZIP archive"), (b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"Rar!", "a RAR archive"),
    (b"\x1f\x8b", "a gzip file, as .tar.gz is"), (b"BZh", "a bzip2 file"), (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"), (b"PAR1", "a Parquet file, whose folder is to be named"),
)  # fmt: skip
PICTURE_SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".pbm", ".pgm",
    ".ppm", ".pnm", ".jp2", ".ico", ".avif", ".heic", ".heif",
})  # fmt: skip
# Cameras write them beside a JPEG; some begin as a TIFF does, which holds a thumbnail only.
RAW_SUFFIXES = frozenset({
    ".arw", ".cr2", ".cr3", ".crw", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw",
})  # fmt: skip
# Pictures, and what holds some, that are passed over in a set, and said: their owner will miss them.
UNREAD_SUFFIXES = frozenset({
    ".tga", ".psd", ".psb", ".jxl", ".exr", ".hdr", ".dds", ".pcx", ".xcf", ".svg", ".svgz", ".eps", ".ai", ".dcm",
    ".dicom", ".nii", ".mha", ".nrrd", ".fits", ".fit", ".pam", ".pfm", ".qoi", ".sgi", ".rgb", ".xpm", ".pict", ".wmf",
    ".emf", ".czi", ".lif", ".nd2", ".svs",
})  # fmt: skip
ARRAY_SUFFIXES = frozenset({
    ".npy", ".npz", ".mat", ".h5", ".hdf5", ".pkl", ".pickle", ".tfrecord", ".tfrecords", ".zarr", "-ubyte",
})  # fmt: skip
ARCHIVE_SUFFIXES = frozenset({".zip", ".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst"})


def looks_like(head: bytes) -> bool:
    """Whether a file that begins with these bytes (``HEAD_BYTES``) is of a kind of picture that is known here."""
    return suffix(head) is not None or is_heic(head)


def called_picture(name: str) -> bool:
    """Whether a file is called as pictures are that are read, or of which is told how to convert them."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def suffix(head: bytes) -> str | None:
    """What a file of a kind that is read is called at its end, such as ``.png``; None for any other."""
    if (found := _first(head, _READ)) is not None:
        return found
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    if head[4:8] == b"ftyp" and (head[8:12] in (b"avif", b"avis") or (head[8:12] in _HEIC and not is_heic(head))):
        return ".avif"
    if head[:2] == b"BM" and (int.from_bytes(head[14:18], "little") in _BMP_HEADERS or len(head) < 18):
        return ".bmp"
    if head[:4] == b"\0\0\1\0" and head[4:6] != b"\0\0" and head[9:10] == b"\0":
        return ".ico"
    return ".ppm" if _NETPBM.match(head) else None


def is_heic(head: bytes) -> bool:
    """AVIF may begin with a brand of HEIC's, and names its own among those it is compatible with."""
    if head[4:8] != b"ftyp" or head[8:12] not in _HEIC:
        return False
    length = min(int.from_bytes(head[:4], "big"), 256)
    return b"avif" not in [head[start : start + 4] for start in range(16, length, 4)]


def archive(head: bytes) -> str | None:
    """What an archive is called; None for anything else."""
    return "a tar archive" if head[257:262] == b"ustar" else _first(head, _ARCHIVES)


def why_unread(content: bytes) -> str | None:
    """Why a file that is no picture that is read cannot be one, and what would be right; None if that is not known."""
    text = content[:512].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if content.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS and not the picture: fetch the pictures with `git lfs pull`"
    if text.startswith((b"<!doctype html", b"<html")):
        return "is a web page: the picture was not downloaded, but what a server said instead"
    if (packed := archive(content[:512])) is not None:
        return f"is {packed}: unpack it"
    named = _first(content, _UNREAD) or ("a DICOM picture" if content[128:132] == b"DICM" else None)
    if named is None and b"<svg" in text:
        named = "an SVG drawing"
    return f"is {named}, which is not read here: save what it shows as PNG, JPEG, WebP or TIFF" if named else None


def _first(content: bytes, table: tuple[tuple[bytes, str], ...]) -> str | None:
    return next((told for begin, told in table if content.startswith(begin)), None)
