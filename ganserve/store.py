"""Where the model repository keeps its bytes: a narrow interface, and the folder behind it.

Keys are names with slashes, ``mnist-projgan/2/card.json``. The interface asks for no more than an object store gives
too: read a key, list one level, create what does not exist yet, replace what is still as it was read. The other store
is :mod:`ganserve.bucket`; :mod:`ganserve.place` opens either.

    StoreError
    ├── Missing       nothing stands at the key
    ├── Unreadable    something does, and it cannot be read; the message says why
    │   └── Away      the store does not answer; it may again in a moment
    └── Unfit         it cannot be written to, whatever is tried; the message says what would be right
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import threading
import time
import uuid
from collections.abc import Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from ganserve import files

STALE_SECONDS = 3600.0
# The part whose creation is the commit of what stands beside it, where not all of it can appear at once.
COMMIT = "card.json"
# A graph of more bytes is none: protobuf reads no further. What else is read whole is a few lines of text.
MOST_BYTES, MOST_TEXT_BYTES = (1 << 31) - 1, 16 << 20
LARGE = re.compile(r"\.(onnx|safetensors|png|part)$")
# What the system refuses just now, whatever the file: it lacks descriptors or memory.
PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class StoreError(OSError):
    """A store that does not give or take what it is asked to."""


class Missing(StoreError):  # noqa: N818
    """Nothing stands at this key."""


class Unreadable(StoreError):  # noqa: N818
    """What stands at this key cannot be read."""


class Away(Unreadable):
    """The store does not answer just now."""


class Unfit(StoreError):  # noqa: N818
    """A store that nobody may write to: it does not keep what writers rely on, or what reaches it is not for that."""


def most_bytes(key: str) -> int:
    """How many bytes a key of this name may have, whoever wrote it: all of them are taken into memory."""
    return MOST_BYTES if LARGE.search(key) else MOST_TEXT_BYTES


def refuse_larger(size: int, most: int) -> None:
    """Raises Unreadable for more bytes than are read."""
    if size > most:
        raise Unreadable(f"it has {size} bytes; at most {most} are read")


class Store(Protocol):
    """Bytes by key.

    Attributes:
        pause: seconds between two looks at :meth:`signature`, at least.
    """

    pause: float

    def read(self, key: str, most: int | None = None) -> bytes:
        """The content of a key, of so many bytes at most (None: by :func:`most_bytes`). Raises Missing, Unreadable."""

    def names(self, prefix: str = "") -> list[str]:
        """Whatever stands directly below ``prefix``, hidden or not; none where nothing does."""

    def folders(self, prefix: str = "") -> list[str]:
        """Those of :meth:`names` that hold keys of their own."""

    def there(self) -> bool:
        """Whether there is a place to read from at all."""

    def exists(self, prefix: str) -> bool:
        """Whether something was created at ``prefix``, to its end."""

    def created(self, prefix: str) -> list[str]:
        """Those of :meth:`folders` that were created to their end."""

    def local(self, key: str) -> Path:
        """A file of this machine with the content of a key. Raises Missing, Unreadable."""

    def ensure(self, prefix: str) -> None:
        """Let there be room for keys below ``prefix``, and make sure that this store may be written to.

        Raises:
            Unfit
        """

    def create(self, prefix: str, parts: Mapping[str, bytes]) -> bool:
        """Put all parts below ``prefix``, the last of them (``COMMIT``) as the commit; False if it is taken."""

    def seal(self, prefix: str) -> None:
        """See to it that whoever creates at ``prefix`` and is not at the end yet never gets there."""

    def replace(self, key: str, content: bytes, expected: bytes | None) -> bool:
        """Put a new content where ``expected`` stands still (None: nothing does); False if something else does."""

    def remove(self, prefix: str) -> None:
        """Take away everything below ``prefix``, at once for whoever reads."""

    def append(self, key: str, line: bytes) -> None:
        """Add a line to what :meth:`lines` reads."""

    def lines(self, key: str) -> list[bytes]:
        """The lines that were appended to ``key``, oldest first; none where nothing was."""

    def forget(self, prefix: str) -> None:
        """What is below ``prefix`` is gone for good: no copy of it is kept here."""

    def sweep(self, name: str) -> None:
        """Remove what crashed writers of a model left; to be called by one that is about to write."""

    def signature(self) -> Hashable:
        """What changes when a pointer is replaced, or versions come and go. Raises StoreError."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """One writer of a model at a time, where the medium can promise that."""


class FolderStore:
    """A folder on a disk that every process sees. Links are never followed; every name is whole or absent."""

    pause = 0.0

    def __init__(self, root: Path) -> None:
        self.root = root
        self._held = threading.local()

    def path(self, key: str) -> Path:
        """Where a key's file is."""
        return self.root / key

    def read(self, key: str, most: int | None = None) -> bytes:
        """The content of a regular file; a pipe or a device would make the reader wait for ever."""
        try:
            if self._linked(key.rpartition("/")[0]):
                raise Unreadable("a folder above it is a link; put the folder itself in its place")
            descriptor = os.open(self.path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except StoreError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                raise Missing(error.strerror) from error
            if error.errno == errno.ELOOP:
                raise Unreadable("it is a link; put the file itself in its place") from error
            raise (Away if error.errno in PASSING else Unreadable)(error.strerror) from error
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise Unreadable("it is no regular file")
            refuse_larger(found.st_size, most_bytes(key) if most is None else most)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read()
        except StoreError:
            raise
        except OSError as error:
            raise Unreadable(error.strerror) from error
        finally:
            os.close(descriptor)

    def names(self, prefix: str = "") -> list[str]:
        """As :meth:`Store.names`, sorted."""
        try:
            return sorted(os.listdir(self.path(prefix)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def folders(self, prefix: str = "") -> list[str]:
        """As :meth:`Store.folders`, sorted."""
        try:
            with os.scandir(self.path(prefix)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def there(self) -> bool:
        """Whether the folder is there."""
        return self.root.is_dir()

    def exists(self, prefix: str) -> bool:
        """Whether a folder is there: it had no name before it was whole."""
        try:
            return self.path(prefix).is_dir() and not self._linked(prefix)
        except OSError as error:
            # What cannot be a name here is none.
            if error.errno == errno.ENAMETOOLONG:
                return False
            raise

    def _linked(self, prefix: str) -> bool:
        """Whether a folder between the store's own and this one, or this one, is a link."""
        parts = prefix.split("/") if prefix else []
        return any(self.path("/".join(parts[: depth + 1])).is_symlink() for depth in range(len(parts)))

    def created(self, prefix: str) -> list[str]:
        """As :meth:`folders`: a folder has no name before it is whole."""
        return self.folders(prefix)

    def local(self, key: str) -> Path:
        """The file itself."""
        return self.path(key)

    def ensure(self, prefix: str) -> None:
        """Make the folder."""
        self.path(prefix).mkdir(parents=True, exist_ok=True)

    def seal(self, prefix: str) -> None:
        """Nothing to do: nobody is half way where all of it appears at once."""

    def create(self, prefix: str, parts: Mapping[str, bytes]) -> bool:
        """Write into a staging folder, read back, then rename: a crash leaves nothing that counts."""
        target = self.path(prefix)
        target.parent.mkdir(parents=True, exist_ok=True)
        files.sync_folder(self.root)
        staging = target.parent / f".staging-{uuid.uuid4().hex}"
        try:
            staging.mkdir()
            for name, content in parts.items():
                files.write(staging / name, content)
            files.sync_folder(staging)
            for name, content in parts.items():
                if (staging / name).read_bytes() != content:
                    raise StoreError(f"{name}: what was read back is not what was written; is the disk sound?")
            if os.path.lexists(target):
                return False
            os.rename(staging, target)
            files.sync_folder(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return True

    def replace(self, key: str, content: bytes, expected: bytes | None) -> bool:
        """As :meth:`Store.replace`; the comparison and the rename are one under the model's lock."""
        with self.exclusive(key.partition("/")[0]):
            try:
                found: bytes | None = self.read(key)
            except Missing:
                found = None
            if found != expected:
                return False
            files.replace(self.path(key), content)
        return True

    def remove(self, prefix: str) -> None:
        """Rename a folder, or a file, then remove: a crash leaves what counts for nothing, and is swept up."""
        target = self.path(prefix)
        gone = target.parent / f".staging-{uuid.uuid4().hex}"
        os.rename(target, gone)
        files.sync_folder(target.parent)
        if gone.is_dir():
            shutil.rmtree(gone, ignore_errors=True)
        else:
            gone.unlink()

    def append(self, key: str, line: bytes) -> None:
        """As :meth:`Store.append`; a line that a crash cut short is ended first."""
        with self.exclusive(key.partition("/")[0]), self.path(key).open("ab+") as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                line = b"\n" + line
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self, key: str) -> list[bytes]:
        """As :meth:`Store.lines`."""
        try:
            return self.read(key).splitlines()
        except Missing:
            return []

    def forget(self, prefix: str) -> None:
        """Nothing to do: there are no copies."""

    def signature(self) -> Hashable:
        """Times and sizes of a few files. A rename into a folder changes its time, so new versions show too."""
        found: set[tuple[str, int, int, int]] = set()
        try:
            names = self.folders()
        except OSError:
            return frozenset()
        for name in names:
            for path in () if name.startswith(".") else (self.path(name), self.path(f"{name}/live.json")):
                try:
                    status = os.stat(path)
                except OSError:
                    continue
                found.add((str(path), status.st_mtime_ns, status.st_size, status.st_ino))
        return frozenset(found)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """One writer a model, over processes; the kernel frees the lock of a process that dies.

        A thread that has it already gets it again.
        """
        held: set[str] = self._held.__dict__.setdefault("names", set())
        if name in held:
            yield
            return
        with (self.path(name) / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            held.add(name)
            try:
                yield
            finally:
                held.discard(name)

    def sweep(self, name: str) -> None:
        """Remove what crashed writers left; to be called by the one writer of a model."""
        for pattern in (".staging-*", f"*{files.PARTIAL}", f"*/*{files.PARTIAL}"):
            for leftover in self.path(name).glob(pattern):
                if time.time() - leftover.lstat().st_mtime <= STALE_SECONDS:
                    continue
                if leftover.is_dir() and not leftover.is_symlink():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink(missing_ok=True)
