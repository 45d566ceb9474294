"""A user's own labelled images: a ZIP of class folders, checked whole before any of it is kept.

datasets/<name>/dataset.json        what it holds, with the report on it
datasets/<name>/.samples.png        one picture a class
datasets/<name>/<class>/000001.png  the images, renamed: of the archive's paths only class names survive
datasets/<name>/train/<class>/...   the same, where the archive parts its pictures
datasets/.staging-<id>/             an upload that is being checked; never read, removed when refused

What is kept is read by training as any folder is, and nothing is kept that would be read otherwise than it was told.
"""

from __future__ import annotations

import errno
import re
import shutil
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from ganserve import entries as set_files
from ganserve import inspection, kinds, sets
from ganserve.archives import LISTED, Limits, Refused, of_archive
from ganserve.kept import FolderSets, Sets
from ganserve.store import Missing

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# Names that name something else in this service.
RESERVED = frozenset({"digits"})
# Names that are calls: /datasets/synthetic streams a model's images.
CALLS = frozenset({"synthetic"})
SWEEP_SECONDS = 3600.0


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

    def __init__(self, refused: Refused) -> None:
        super().__init__(str(refused))
        self.problems = [Problem(file=one.file, reason=one.reason) for one in refused.problems]


class Upload(BaseModel):
    """A data set that is kept."""

    name: str
    classes: dict[str, int]
    images: int
    bytes: int
    created_at: datetime
    report: dict[str, Any] | None = Field(None, description="what it is in numbers, and what was skipped and why")
    left_out: list[Problem] = Field([], description="pictures that could not be decoded, where that was asked for")


class Uploads:
    """Uploads: checked in a folder of this machine, then kept.

    Args:
        root: that folder.
        kept: where they are kept; unset: in the folder itself.
    """

    def __init__(self, root: Path, limits: Limits = Limits(), kept: Sets | None = None) -> None:
        self.root, self.limits = root, limits
        self._staged = FolderSets(root)
        self.kept: Sets = kept or self._staged
        self._swept = float("-inf")

    def list(self) -> list[Upload]:
        """All uploads, by name."""
        return [self.get(name) for name in self.kept.names() if NAME.fullmatch(name)]

    def get(self, name: str) -> Upload:
        """One upload. Raises UnknownDataset."""
        try:
            record = self.kept.record(name) if NAME.fullmatch(name) else None
        except Missing:
            record = None
        if record is None:
            raise UnknownDataset(f"no uploaded data set is called {name!r}; GET /datasets lists them")
        kept = Upload.model_validate_json(record)
        return kept.model_copy(update={"left_out": kept.left_out[:LISTED]})

    def samples(self, name: str) -> bytes | None:
        """One picture a class as a PNG; None for a set that was kept without. Raises UnknownDataset."""
        self.get(name)
        return self.kept.samples(name)

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
        """Remove an upload, and what was read or learnt of it. Raises UnknownDataset."""
        self.get(name)
        self.kept.delete(name)

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
        if self.kept.taken(name):
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
            raise DiskFull(
                "the disk of GANSERVE_DATA is full, nothing of the archive is kept: make room, or name another folder"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what uploads left that were cut off by a crash: here each time, elsewhere once an hour."""
        self._staged.sweep()
        if self.kept is not self._staged and time.monotonic() - self._swept > SWEEP_SECONDS:
            self.kept.sweep()
            self._swept = time.monotonic()

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

    def keep(self, name: str, archive: Path, staging: Path, *, skip_invalid: bool = False) -> Upload:
        """Check every file of the archive, then keep all of it or nothing; with ``skip_invalid``, all but pictures that
        cannot be decoded.

        Raises:
            InvalidUpload, InvalidName, NameTaken
        """
        self.check_name(name)
        unpacked = staging / "unpacked"
        unpacked.mkdir()
        try:
            found = _unpack(archive, unpacked, self.limits, skip_invalid)
        except Refused as error:
            raise InvalidUpload(error) from error
        upload = Upload(
            name=name,
            classes=dict(found.report.classes),
            images=found.report.pictures,
            bytes=found.bytes,
            created_at=datetime.now(UTC),
            report=found.report.as_dict(),
            left_out=[Problem(file=one.file, reason=one.reason) for one in found.left_out],
        )
        record = (upload.model_dump_json(indent=1) + "\n").encode()
        if not self.kept.keep(name, unpacked, record, inspection.sheet(found.samples)):
            raise NameTaken(f"a data set called {name!r} was kept meanwhile: choose another name")
        return upload.model_copy(update={"left_out": upload.left_out[:LISTED]})


def _unpack(archive: Path, target: Path, limits: Limits, skip_invalid: bool) -> inspection.Inspected:
    """Write the archive's images below ``target``. Raises Refused."""
    counts: Counter[tuple[str | None, str]] = Counter()

    def keep(split: str | None, name: str, content: bytes) -> None:
        counts[split, name] += 1
        folder = (target / split if split else target) / name
        folder.mkdir(parents=True, exist_ok=True)
        kind = kinds.suffix(content[: kinds.HEAD_BYTES]) or ".ppm"
        (folder / f"{counts[split, name]:06d}{kind}").write_bytes(content)

    found = inspection.archive(archive, limits, skip_invalid=skip_invalid, keep=keep)
    _check_read_back(found, target)
    return found


def _check_read_back(found: inspection.Inspected, target: Path) -> None:
    """Raises Refused if training would read what is kept otherwise than the archive was read."""
    try:
        kept = sets.lay_out(set_files.folder_entries(target))
        same = (kept.classes, _counted(kept)) == (found.layout.classes, _counted(found.layout))
    except set_files.SetError:
        same = False
    if not same:
        raise of_archive(
            f"has classes whose names stand for something else in a folder: {', '.join(found.layout.classes[:10])}; "
            "rename them"
        )


def _counted(layout: sets.Layout) -> Counter[tuple[int, str]]:
    """Pictures by label and split."""
    splits = layout.splits or ("train",) * len(layout.pictures)
    return Counter(zip(layout.labels or (), splits, strict=False))
