"""A local copy of what is read from an object store, by content hash.

    objects/<sha256><suffix>    a content; compared with its name whenever it is read
    keys/<key>.json             which content a key had, and its entity tag
    lists/<prefix>.json         what a listing gave

Graphs, weights and samples never change, so they are read from here once they are; anything else is asked for each
time, and not sent again if it is as it was. While the store is away, what was last known answers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ganserve import files
from ganserve.bucket import BucketStore
from ganserve.store import COMMIT, Away, Missing

CONSTANT = re.compile(r"[^/]+/[1-9][0-9]*/(model\.onnx|samples\.png|weights\.safetensors)")
KEPT = re.compile(r"(?!.*(^|/)\.\.?(/|$))[A-Za-z0-9._-]{1,200}(/[A-Za-z0-9._-]{1,200})*")
# A store that was found away is not asked again for so long where there is a copy.
AWAY_SECONDS = 2.0


class CachedStore:
    """A bucket with a copy of what was read; see :class:`ganserve.store.Store`.

    Args:
        folder: of this bucket alone; several processes may share it.
        limit: bytes of the copies, the least used go first.
    """

    def __init__(self, bucket: BucketStore, folder: Path, limit: int) -> None:
        self.bucket, self.folder, self.limit = bucket, folder, limit
        self._hurried = bucket.hurried()
        self.pause = bucket.pause
        self._away_until = 0.0

    # -- reading

    def read(self, key: str, most: int | None = None) -> bytes:
        """The content of a key, from here where it cannot have changed, or the store is away."""
        known = self._known(key)
        if known is None:
            return self._fetched(key, most=most)
        content, tag = known
        if CONSTANT.fullmatch(key):
            return content
        try:
            return self._fetched(key, content, tag, most)
        except Away:
            return content

    def local(self, key: str) -> Path:
        """The copy's file."""
        content = self.read(key)
        return self._keep(content, Path(key).suffix)

    def names(self, prefix: str = "") -> list[str]:
        """As :meth:`ganserve.store.Store.names`."""
        return self._listed("names", prefix, BucketStore.names)

    def folders(self, prefix: str = "") -> list[str]:
        """As :meth:`ganserve.store.Store.folders`."""
        return self._listed("folders", prefix, BucketStore.folders)

    def created(self, prefix: str) -> list[str]:
        """As :meth:`ganserve.store.Store.created`."""
        return self._listed("created", prefix, BucketStore.created)

    def there(self) -> bool:
        """As :meth:`ganserve.store.Store.there`."""
        return self.bucket.there()

    def exists(self, prefix: str) -> bool:
        """As :meth:`ganserve.store.Store.exists`."""
        try:
            return bool(self.read(f"{prefix}/{COMMIT}"))
        except Missing:
            return False

    def lines(self, key: str) -> list[bytes]:
        """As :meth:`ganserve.store.Store.lines`; none while the store is away."""
        try:
            return self.bucket.lines(key)
        except Away:
            return []

    def signature(self) -> Hashable:
        """As :meth:`ganserve.store.Store.signature`."""
        return self._hurried.signature()

    # -- writing

    def ensure(self, prefix: str) -> None:
        """As :meth:`ganserve.store.Store.ensure`."""
        self.bucket.ensure(prefix)

    def create(self, prefix: str, parts: Mapping[str, bytes]) -> bool:
        """As :meth:`ganserve.store.Store.create`."""
        return self.bucket.create(prefix, parts)

    def seal(self, prefix: str) -> None:
        """As :meth:`ganserve.store.Store.seal`."""
        self.bucket.seal(prefix)

    def replace(self, key: str, content: bytes, expected: bytes | None) -> bool:
        """As :meth:`ganserve.store.Store.replace`."""
        return self.bucket.replace(key, content, expected)

    def remove(self, prefix: str) -> None:
        """As :meth:`ganserve.store.Store.remove`."""
        self.bucket.remove(prefix)
        self.forget(prefix)

    def append(self, key: str, line: bytes) -> None:
        """As :meth:`ganserve.store.Store.append`."""
        self.bucket.append(key, line)

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """As :meth:`ganserve.store.Store.exclusive`."""
        return self.bucket.exclusive(name)

    def sweep(self, name: str) -> None:
        """As :meth:`ganserve.store.Store.sweep`."""
        self.bucket.sweep(name)

    def forget(self, prefix: str) -> None:
        """Remove the copies of what was below ``prefix``."""
        for note in (self.folder / "keys" / prefix).rglob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                self._object(json.loads(note.read_bytes())["sha256"], Path(note.stem).suffix).unlink(missing_ok=True)
            note.unlink(missing_ok=True)

    # -- the copies

    def _fetched(
        self, key: str, content: bytes | None = None, tag: str | None = None, most: int | None = None
    ) -> bytes:
        """What the store has now, kept; ``content`` if that is it. Raises Away at once if it just was."""
        if content is not None and time.monotonic() < self._away_until:
            raise Away(f"{self.bucket.url} does not answer")
        try:
            new, now = (self.bucket if content is None else self._hurried).fetch(key, tag, most)
        except Away:
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise
        except Missing:
            self.forget(key.removesuffix(f"/{COMMIT}") if key.endswith(f"/{COMMIT}") else key)
            (self.folder / "keys" / f"{key}.json").unlink(missing_ok=True)
            raise
        if new is None:
            assert content is not None
            return content
        if KEPT.fullmatch(key):
            kept = self._keep(new, Path(key).suffix)
            note = {"sha256": kept.name[:64], "tag": now}
            with contextlib.suppress(OSError):
                files.replace(self.folder / "keys" / f"{key}.json", json.dumps(note).encode())
        return new

    def _known(self, key: str) -> tuple[bytes, str] | None:
        """The copy of a key and its entity tag, if there is a sound one."""
        if not KEPT.fullmatch(key):
            return None
        try:
            note = json.loads((self.folder / "keys" / f"{key}.json").read_bytes())
            path = self._object(note["sha256"], Path(key).suffix)
            content = path.read_bytes()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if hashlib.sha256(content).hexdigest() != note["sha256"]:
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return content, str(note.get("tag"))

    def _object(self, digest: str, suffix: str) -> Path:
        return self.folder / "objects" / f"{digest}{suffix}"

    def _keep(self, content: bytes, suffix: str) -> Path:
        """The file that holds a content, made if need be; a full disk costs the copy and no more."""
        path = self._object(hashlib.sha256(content).hexdigest(), suffix)
        if not path.exists():
            with contextlib.suppress(OSError):
                files.replace(path, content)
            self._shrink(path)
        return path

    def _shrink(self, latest: Path) -> None:
        """Let the least used copies go, never the latest."""
        found = []
        for path in (self.folder / "objects").iterdir() if (self.folder / "objects").is_dir() else ():
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                return
            if path != latest:
                path.unlink(missing_ok=True)
                total -= size

    def _listed(self, kind: str, prefix: str, ask: Callable[[BucketStore, str], list[str]]) -> list[str]:
        """What a listing gives, or gave last if the store is away."""
        note = self.folder / "lists" / kind / f"{prefix or '_'}.json"
        known: Any = None
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(note.read_bytes())
        try:
            if known is not None and time.monotonic() < self._away_until:
                raise Away(f"{self.bucket.url} does not answer")
            found = ask(self.bucket if known is None else self._hurried, prefix)
        except Away:
            if known is None:
                raise
            self._away_until = time.monotonic() + AWAY_SECONDS
            return [str(name) for name in known]
        if found != known and (not prefix or KEPT.fullmatch(prefix)):
            with contextlib.suppress(OSError):
                files.replace(note, json.dumps(found).encode())
        return found
