"""A user's own labelled images: a ZIP of class folders, checked whole before any of it is kept.

datasets/<name>/dataset.json        what it holds
datasets/<name>/<class>/000001.png  the images, renamed: of the archive's paths only class names survive
datasets/.staging-<id>/             an upload that is being checked; never read, removed when refused
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import time
import unicodedata
import uuid
import warnings
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from PIL import Image
from pydantic import BaseModel

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF"}
# Names that name something else in this service.
RESERVED = frozenset({"digits"})
# Names that are calls: /datasets/synthetic streams a model's images.
CALLS = frozenset({"synthetic"})
LISTED_PROBLEMS = 100
ABANDONED_SECONDS = 24 * 3600
_CHUNK = 1 << 20
_CLUTTER = frozenset({".ds_store", "thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Limits:
    """What an upload may hold, so that a small file cannot fill a disk or a memory."""

    archive_bytes: int = 1 << 30
    unpacked_bytes: int = 4 << 30
    files: int = 200_000
    file_bytes: int = 32 << 20
    pixels: int = 16_000_000
    classes: int = 1000
    class_name: int = 64
    # Images hardly compress; a thousandfold ratio is a bomb. Bitmaps of one colour stay below this.
    ratio: float = 200.0


class Problem(BaseModel):
    """One thing that is wrong, and where."""

    file: str
    reason: str


# UploadError
# ├── InvalidName       422
# ├── TooLarge          413  more bytes than an archive may have
# ├── InvalidUpload     422  with what is wrong, by file
# ├── NameTaken         409
# ├── DiskFull          507
# └── UnknownDataset    404
class UploadError(Exception):
    """An upload that is refused; the message says what would be right."""


class InvalidName(UploadError):  # noqa: N818
    """The data set's name cannot be used."""


class TooLarge(UploadError):  # noqa: N818
    """The archive is larger than the limit."""


class NameTaken(UploadError):  # noqa: N818
    """A data set of this name is kept already."""


class DiskFull(UploadError):  # noqa: N818
    """There is no room for the upload."""


class UnknownDataset(UploadError):  # noqa: N818
    """No upload has this name."""


class InvalidUpload(UploadError):  # noqa: N818
    """The archive is refused; ``problems`` says why, by file."""

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{first.file}: {first.reason}{more}")
        self.problems = problems[:LISTED_PROBLEMS]


class Upload(BaseModel):
    """A data set that is kept."""

    name: str
    classes: dict[str, int]
    images: int
    bytes: int
    created_at: datetime


class Uploads:
    """The uploads under one folder."""

    def __init__(self, root: Path, limits: Limits = Limits()) -> None:
        self.root = root
        self.limits = limits

    def list(self) -> list[Upload]:
        """All uploads, by name."""
        found = sorted(self.root.glob("*/dataset.json")) if self.root.is_dir() else []
        return [self.get(path.parent.name) for path in found if not path.parent.name.startswith(".")]

    def get(self, name: str) -> Upload:
        """One upload. Raises UnknownDataset."""
        path = self.root / name / "dataset.json"
        if not NAME.fullmatch(name) or not path.is_file():
            raise UnknownDataset(f"no uploaded data set is called {name!r}; GET /datasets lists them")
        return Upload.model_validate_json(path.read_text(encoding="utf-8"))

    def untrainable(self, name: str) -> str | None:
        """Why a job cannot be trained on the data set that ``name`` names; None: nothing is known against it."""
        if "/" in name or name in RESERVED:
            return None
        try:
            self.get(name)
        except UnknownDataset:
            return (
                f"{name!r} is not uploaded: PUT /datasets/{name} first, or name one of "
                f"{', '.join(sorted(RESERVED))}, or a Hugging Face data set as owner/name"
            )
        return None

    def delete(self, name: str) -> None:
        """Remove an upload. Raises UnknownDataset."""
        self.get(name)
        # Renamed first: a crash while removing leaves rubbish, never half a data set.
        gone = self.root / f".staging-{uuid.uuid4().hex}"
        (self.root / name).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def check_name(self, name: str) -> None:
        """Raises InvalidName or NameTaken."""
        if not NAME.fullmatch(name):
            raise InvalidName(
                f"data set name {name!r}: expected small letters, digits and hyphens, 63 at most, "
                "beginning with a letter or a digit"
            )
        if name in CALLS:
            raise InvalidName(f"/datasets/{name} is a call of its own: choose another name")
        if name in RESERVED:
            raise InvalidName(f"data set name {name!r} is built in: choose another")
        if (self.root / name).exists():
            raise NameTaken(
                f"a data set called {name!r} is kept already: DELETE it first, or choose another name"
            )

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder for one upload; it is gone at the end, whatever happened. Raises DiskFull where it is."""
        folder = self.root / f".staging-{uuid.uuid4().hex}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep()
            folder.mkdir()
            yield folder
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DiskFull("the disk is full: nothing of the archive is kept") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what uploads left that were cut off by a crash."""
        for old in self.root.glob(".staging-*"):
            try:
                if time.time() - old.stat().st_mtime > ABANDONED_SECONDS:
                    shutil.rmtree(old, ignore_errors=True)
            except FileNotFoundError:
                continue

    async def receive(self, chunks: AsyncIterator[bytes], staging: Path) -> Path:
        """Stream a request's body to disk. Raises TooLarge as soon as it is."""
        archive = staging / "upload.zip"
        size = 0
        with archive.open("wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > self.limits.archive_bytes:
                    raise TooLarge(f"the archive is larger than {self.limits.archive_bytes} bytes")
                file.write(chunk)
        return archive

    def keep(self, name: str, archive: Path, staging: Path) -> Upload:
        """Check every file of the archive, then keep all of it or nothing.

        Raises:
            InvalidUpload, InvalidName, NameTaken
        """
        self.check_name(name)
        unpacked = staging / "unpacked"
        unpacked.mkdir()
        classes, size = _unpack(archive, unpacked, self.limits)
        upload = Upload(
            name=name, classes=classes, images=sum(classes.values()), bytes=size, created_at=datetime.now(UTC)
        )
        with (unpacked / "dataset.json").open("w", encoding="utf-8") as file:
            file.write(upload.model_dump_json(indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # The file system's caches hold all the images: without this, a power cut could keep names of empty
        # files.
        os.sync()
        try:
            unpacked.rename(self.root / name)
        except OSError as error:
            raise NameTaken(f"a data set called {name!r} was kept meanwhile: choose another name") from error
        return upload


def _unpack(archive: Path, target: Path, limits: Limits) -> tuple[dict[str, int], int]:
    """Write the archive's images below ``target``; returns images a class and bytes."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(opened, archive.stat().st_size, limits)
            return _write(opened, members, target, limits)
    except zipfile.BadZipFile as error:
        raise _of_archive(f"is not a sound ZIP: {error}") from error


Member = tuple[str, zipfile.ZipInfo]


def _members(archive: zipfile.ZipFile, archive_bytes: int, limits: Limits) -> list[Member]:
    """What to read, as (class, member), after everything that can be judged without unpacking."""
    infos = [info for info in archive.infolist() if not info.is_dir() and not _clutter(info.filename)]
    if refusal := _refused_whole(infos, archive_bytes, limits):
        raise _of_archive(refusal)
    reasons = [(info, _refused(info, limits)) for info in infos]
    if problems := [Problem(file=info.filename, reason=reason) for info, reason in reasons if reason]:
        raise InvalidUpload(problems)
    members = _classified(infos, limits)
    if len({name for name, _ in members}) > limits.classes:
        raise _of_archive(f"has more than {limits.classes} classes")
    return sorted(members, key=lambda member: (member[0], member[1].filename))


def _of_archive(reason: str) -> InvalidUpload:
    return InvalidUpload([Problem(file="(archive)", reason=reason)])


def _refused_whole(infos: list[zipfile.ZipInfo], archive_bytes: int, limits: Limits) -> str | None:
    """Why an archive of these files is not even looked into."""
    if not infos:
        return "holds no file: expected <class>/<image>"
    if len(infos) > limits.files:
        return f"holds {len(infos)} files; at most {limits.files} are allowed"
    total = sum(info.file_size for info in infos)
    if total > limits.unpacked_bytes:
        return f"unpacks to {total} bytes; at most {limits.unpacked_bytes} are allowed"
    if total > limits.ratio * max(archive_bytes, 1):
        return f"unpacks to {total / archive_bytes:.0f} times its size; at most {limits.ratio:.0f} is allowed"
    return None


def _classified(infos: list[zipfile.ZipInfo], limits: Limits) -> list[Member]:
    """Each file with its class, the folder that it is in. Raises InvalidUpload with each file that has none."""
    paths = [PurePosixPath(info.filename).parts for info in infos]
    # A folder that was zipped whole has its own name on top.
    top = 1 if all(len(parts) == 3 for parts in paths) and len({parts[0] for parts in paths}) == 1 else 0
    members: list[Member] = []
    problems: list[Problem] = []
    for info, parts in zip(infos, paths, strict=True):
        below = parts[top:]
        name = unicodedata.normalize("NFC", below[0]).strip() if len(below) == 2 else ""
        if len(below) != 2:
            problems.append(
                Problem(file=info.filename, reason="is not in a class folder: expected <class>/<image>")
            )
        elif not _usable(name, limits):
            right = f"printable, at most {limits.class_name} characters, not beginning with a dot"
            problems.append(Problem(file=info.filename, reason=f"has an unusable class name; expected {right}"))
        else:
            members.append((name, info))
    if problems:
        raise InvalidUpload(problems)
    return members


def _usable(name: str, limits: Limits) -> bool:
    """Whether a class may have this name."""
    return bool(name) and not name.startswith(".") and name.isprintable() and len(name) <= limits.class_name


def _clutter(path: str) -> bool:
    """What desktops put into archives unasked."""
    parts = PurePosixPath(path).parts
    return bool(parts) and (parts[0] == "__MACOSX" or parts[-1].lower() in _CLUTTER)


def _refused(info: zipfile.ZipInfo, limits: Limits) -> str | None:
    """Why a member cannot be read, judged by its entry alone."""
    path = info.filename
    if path.startswith("/") or "\\" in path or ":" in path.split("/")[0] or ".." in PurePosixPath(path).parts:
        return "leaves its folder: paths must be relative and without .."
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link or a device: only plain files are taken"
    if info.flag_bits & 1:
        return "is encrypted"
    if PurePosixPath(path).suffix.lower() not in SUFFIXES:
        return f"is not an image: expected {' '.join(SUFFIXES)}"
    if info.file_size > limits.file_bytes:
        return f"has {info.file_size} bytes; at most {limits.file_bytes} are allowed"
    # A tiny entry may well unpack a thousandfold: only real sizes are held to the ratio.
    if info.file_size > _CHUNK and info.file_size > limits.ratio * max(info.compress_size, 1):
        return f"unpacks to more than {limits.ratio:.0f} times its size"
    return None


def _write(
    archive: zipfile.ZipFile, members: list[Member], target: Path, limits: Limits
) -> tuple[dict[str, int], int]:
    problems: list[Problem] = []
    classes: dict[str, int] = {}
    size = 0
    for name, info in members:
        suffix = PurePosixPath(info.filename).suffix.lower()
        index = classes.get(name, 0) + 1
        path = target / name / f"{index:06d}{suffix}"
        path.parent.mkdir(exist_ok=True)
        reason: str | None
        try:
            with archive.open(info) as source, path.open("w+b") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
                sink.seek(0)
                reason = _undecodable(sink, SUFFIXES[suffix], limits)
                size += info.file_size
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
            ValueError,
        ) as error:
            reason = f"cannot be unpacked: {error}"
        if reason:
            problems.append(Problem(file=info.filename, reason=reason))
            if len(problems) >= LISTED_PROBLEMS:
                break
        classes[name] = index
    if problems:
        raise InvalidUpload(problems)
    return classes, size


def _undecodable(file: BinaryIO, expected: str, limits: Limits) -> str | None:
    """Why an image cannot be trained on. Every pixel is decoded, but none before the size is allowed."""
    try:
        with warnings.catch_warnings():
            # The limit below is ours and comes first; Pillow's own warning would only repeat it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=sorted(set(SUFFIXES.values()))) as image:
                width, height = image.size
                if width * height > limits.pixels:
                    return f"has {width} x {height} pixels; at most {limits.pixels} are allowed"
                if image.format != expected:
                    return f"is a {image.format}, not what its name says"
                image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, zlib.error) as error:
        return f"cannot be decoded: {_told(error)}"
    return None


def _told(error: BaseException) -> str:
    text = str(error)
    # Pillow names its own file object in one message, which tells the owner nothing.
    return "no image in a known format" if text.startswith("cannot identify") else text
