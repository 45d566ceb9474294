"""Where uploaded data sets are kept: in a folder, or in an object store where any worker fetches them.

In a folder, a set is a folder of class folders that training reads as any other::

    datasets/<name>/dataset.json        the record of the upload
    datasets/<name>/.samples.png        one picture a class

In a store::

    datasets/<name>/dataset.json        the commit: the record of the upload, and of which parts its pictures are made
    datasets/<name>/samples.png         one picture a class
    datasets/<name>/parts/<sha256>.part the folder of class folders, as one tar
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import time
import uuid
from pathlib import Path
from typing import Any, Protocol

from ganserve import blobs, files
from ganserve.bucket import BucketStore
from ganserve.store import Missing, Unreadable

ROOT, RECORD, SAMPLES = "datasets", "dataset.json", "samples.png"


class Sets(Protocol):
    """Data sets somewhere."""

    def names(self) -> list[str]:
        """Sets that are whole, sorted."""

    def record(self, name: str) -> bytes:
        """What was noted of an upload. Raises Missing."""

    def samples(self, name: str) -> bytes | None:
        """One picture a class, where there are some."""

    def taken(self, name: str) -> bool:
        """Whether something has this name."""

    def keep(self, name: str, folder: Path, record: bytes, samples: bytes | None) -> bool:
        """Add a folder's pictures under a name, all of it or nothing; False if the name is taken."""

    def fetch(self, name: str, data: Path) -> Path:
        """A folder of this machine with a set's pictures. Raises Missing, Unreadable."""

    def delete(self, name: str) -> None:
        """Remove a set, and what was read or learnt of it here. Raises Missing."""

    def sweep(self) -> None:
        """Remove what uploads left that were cut off more than a day ago."""


class FolderSets:
    """The data sets of a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """As :meth:`Sets.names`."""
        return sorted(path.parent.name for path in self.root.glob(f"[!.]*/{RECORD}"))

    def record(self, name: str) -> bytes:
        """As :meth:`Sets.record`."""
        try:
            return (self.root / name / RECORD).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise Missing(error.strerror) from error

    def samples(self, name: str) -> bytes | None:
        """As :meth:`Sets.samples`."""
        try:
            return (self.root / name / f".{SAMPLES}").read_bytes()
        except FileNotFoundError:
            return None

    def taken(self, name: str) -> bool:
        """As :meth:`Sets.taken`."""
        return (self.root / name).exists()

    def keep(self, name: str, folder: Path, record: bytes, samples: bytes | None) -> bool:
        """As :meth:`Sets.keep`; a folder that stands below this one is moved, any other is copied."""
        if self.taken(name):
            return False
        staged = self.root / f".staging-{uuid.uuid4().hex}"
        try:
            if folder.is_relative_to(self.root):
                folder.rename(staged)
            else:
                shutil.copytree(folder, staged)
            if samples is not None:
                (staged / f".{SAMPLES}").write_bytes(samples)
            files.replace(staged / RECORD, record)
            # The file system's caches hold all the images: without this, a power cut could keep names of empty files.
            os.sync()
            try:
                staged.rename(self.root / name)
            except OSError:
                return False
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return True

    def fetch(self, name: str, data: Path) -> Path:
        """The folder itself."""
        return self.root / name

    def delete(self, name: str) -> None:
        """As :meth:`Sets.delete`. Renamed first: a crash while removing leaves rubbish, never half a data set."""
        forget_learnt(self.root / name, self.root.parent)
        gone = self.root / f".staging-{uuid.uuid4().hex}"
        try:
            (self.root / name).rename(gone)
        except FileNotFoundError as error:
            raise Missing(error.strerror) from error
        shutil.rmtree(gone, ignore_errors=True)

    def sweep(self) -> None:
        """As :meth:`Sets.sweep`."""
        for old in self.root.glob(".staging-*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - old.stat().st_mtime > blobs.ABANDONED_SECONDS:
                    shutil.rmtree(old, ignore_errors=True)


class KeptSets:
    """The data sets of a store. Every method may raise Away."""

    def __init__(self, store: BucketStore) -> None:
        self.store = store

    def names(self) -> list[str]:
        """Sets that are whole, sorted."""
        found = [key.split("/") for key, _ in self.store.below(ROOT)]
        return sorted(parts[1] for parts in found if len(parts) == 3 and parts[2] == RECORD)

    def record(self, name: str) -> bytes:
        """What was noted of an upload. Raises Missing."""
        return json.dumps(self._read(name)["upload"]).encode()

    def samples(self, name: str) -> bytes | None:
        """One picture a class, where there are some."""
        with contextlib.suppress(Missing):
            return self.store.read(f"{ROOT}/{name}/{SAMPLES}")
        return None

    def taken(self, name: str) -> bool:
        """As :meth:`Sets.taken`."""
        return bool(self.store.tag(f"{ROOT}/{name}/{RECORD}"))

    def keep(self, name: str, folder: Path, record: bytes, samples: bytes | None) -> bool:
        """Put a folder's pictures and its record there; False, and nothing, if the name is taken."""
        self.store.ensure(ROOT)
        prefix = f"{ROOT}/{name}"
        packed = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tar")
        try:
            _pack(folder, packed)
            blob = blobs.send(self.store, prefix, packed)
        finally:
            packed.unlink(missing_ok=True)
        told = json.dumps({"upload": json.loads(record), "pictures": blob}).encode()
        kept = self.store.put(f"{prefix}/{RECORD}", told)
        # Also of the very same set, whose keeper may have been cut off here.
        if samples is not None and (kept or self.store.same(f"{prefix}/{RECORD}", told)):
            self.store.put(f"{prefix}/{SAMPLES}", samples)
        return kept

    def fetch(self, name: str, data: Path) -> Path:
        """The folder of a set on this machine, fetched unless it is here. Raises Missing, Unreadable."""
        pictures = self._read(name)["pictures"]
        folder = data / "cache" / ROOT / str(pictures["sha256"])[:32] / name
        if not folder.is_dir():
            packed = folder.with_name(".packed.tar")
            blobs.fetch(self.store, f"{ROOT}/{name}", pictures, packed)
            try:
                _unpack(packed, folder)
            finally:
                packed.unlink(missing_ok=True)
        os.utime(folder.parent)
        return folder

    def delete(self, name: str) -> None:
        """Remove a set, its record first. Raises Missing."""
        self._read(name)
        self.store.ensure(ROOT)
        self.store.delete(f"{ROOT}/{name}/{RECORD}")
        for key, _ in list(self.store.below(f"{ROOT}/{name}")):
            self.store.delete(key)

    def sweep(self) -> None:
        """Remove what uploads left that were cut off more than a day ago."""
        names = {key.split("/")[1] for key, _ in list(self.store.below(ROOT)) if key.count("/") > 1}
        for name in names:
            try:
                named = self._read(name)["pictures"]["parts"]
            except Missing:
                named = []
            blobs.forget(self.store, f"{ROOT}/{name}", named)

    def forget_gone(self, data: Path) -> None:
        """Remove this machine's copies of sets that were deleted, and what was read or learnt of them."""
        for copy in (data / "cache" / ROOT).glob("*/[!.]*"):
            try:
                there = str(self._read(copy.name)["pictures"]["sha256"])[:32] == copy.parent.name
            except Missing:
                there = False
            except Unreadable:
                continue
            if not there:
                _forget_copy(copy.parent, data)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.store.read(f"{ROOT}/{name}/{RECORD}"))
            found["pictures"], found["upload"]
        except (ValueError, KeyError, TypeError) as error:
            raise Unreadable(f"the record of data set {name!r} is damaged: delete it and upload it anew") from error
        return found


def forget_copies(data: Path, limit: int, using: Path) -> None:
    """Let the least used copies of sets go until they have no more bytes than ``limit``, never the one in use."""
    found = []
    for folder in (data / "cache" / ROOT).glob("*"):
        with contextlib.suppress(OSError):
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            found.append((folder.stat().st_mtime, size, folder))
    total = sum(size for _, size, _ in found)
    for _, size, folder in sorted(found):
        if total > limit and folder != using.parent:
            _forget_copy(folder, data)
            total -= size


def _forget_copy(folder: Path, data: Path) -> None:
    for named in folder.glob("*"):
        forget_learnt(named, data)
    shutil.rmtree(folder, ignore_errors=True)


def forget_learnt(folder: Path, data: Path) -> None:
    """Remove the caches and judges that trainings keep in a data folder under the mark of a set's place."""
    mark = hashlib.sha256(os.fsencode(str(folder.resolve()))).hexdigest()[:16]
    for kept in ("pictures", "judges"):
        for old in (data / kept).glob(f"{mark}-*"):
            old.unlink(missing_ok=True)


def _pack(folder: Path, packed: Path) -> None:
    """A tar of a folder's pictures, the same bytes for the same pictures."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = 0
        member.mode = 0o755 if member.isdir() else 0o644
        return member

    with tarfile.open(packed, "w") as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith(".") and path != folder / RECORD:
                tar.add(path, str(path.relative_to(folder)), recursive=False, filter=plain)


def _unpack(packed: Path, folder: Path) -> None:
    """The folder, whole from the moment it has its name."""
    staged = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}{files.PARTIAL}")
    try:
        with tarfile.open(packed) as tar:
            tar.extractall(staged, filter="data")
        with contextlib.suppress(OSError):
            staged.rename(folder)
        if not folder.is_dir():
            raise Unreadable(f"{folder} cannot be made")
    except tarfile.TarError as error:
        raise Unreadable(f"the pictures of {folder.name!r} cannot be unpacked ({error})") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
