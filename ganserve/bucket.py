"""The model repository in an object store.

There is no lock. Every part is created only if it does not exist yet, the commit last; what is replaced must still be
as it was read; both are conditions that the store itself holds (``If-None-Match: *`` and ``If-Match``). A crash leaves
at most parts that no commit names. A commit that is empty seals its place: nobody ever gets it.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta

from ganserve.objects import Objects
from ganserve.store import COMMIT, Missing, StoreError, Unfit

STALE_SECONDS = 24 * 3600.0
# Names and what else moves seldom is looked at less often than pointers are.
PAUSE_SECONDS, SELDOM_SECONDS = 2.0, 6.0
ASKED_AT_ONCE = 16
PROBES = ".probes"
# A version that nothing has.
ANOTHER = {"e_tag": '"0"', "version": "1"}


class BucketStore(Objects):
    """A repository in a bucket; see :class:`ganserve.store.Store`. Made as :class:`ganserve.objects.Objects` is."""

    _fit = False
    _seldom: tuple[float, tuple[list[str], Hashable]] | None = None
    pause = PAUSE_SECONDS

    # -- reading

    def read(self, key: str, most: int | None = None) -> bytes:
        """The content of a key."""
        return self.fetch(key, most=most)[0] or b""

    def names(self, prefix: str = "") -> list[str]:
        """As :meth:`ganserve.store.Store.names`, sorted."""
        level = self.level(prefix)
        return sorted({_last(path) for path in (*level["common_prefixes"], *(o["path"] for o in level["objects"]))})

    def folders(self, prefix: str = "") -> list[str]:
        """As :meth:`ganserve.store.Store.folders`, sorted."""
        return sorted(map(_last, self.level(prefix)["common_prefixes"]))

    def there(self) -> bool:
        """A bucket that can be listed is there."""
        return True

    def exists(self, prefix: str) -> bool:
        """Whether the commit stands, and seals nothing."""
        try:
            return bool(self.head(f"{prefix}/{COMMIT}")["size"])
        except Missing:
            return False

    def created(self, prefix: str) -> list[str]:
        """As :meth:`ganserve.store.Store.created`: those with a commit that seals nothing. One listing."""
        found = [key.split("/") for key, meta in self.below(prefix) if meta["size"]]
        return sorted(parts[-2] for parts in found if parts[-1] == COMMIT and len(parts) == prefix.count("/") + 3)

    def lines(self, key: str) -> list[bytes]:
        """As :meth:`ganserve.store.Store.lines`: each line is a key of its own."""
        return [self.read(f"{_grown(key)}/{name}") for name in self.names(_grown(key))]

    def signature(self) -> Hashable:
        """Entity tags: of pointers each time, of what else moves every few seconds, with the names of models."""
        now = time.monotonic()
        if self._seldom is None or now - self._seldom[0] >= SELDOM_SECONDS:
            names = [name for name in self.folders() if not name.startswith(".")]
            others = self._tags(f"{name}/{key}" for name in names for key in (".removed", "config.pbtxt"))
            self._seldom = (now, (names, (*names, *others)))
        names, told = self._seldom[1]
        return told, self._tags(f"{name}/live.json" for name in names)

    def _tags(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Entity tags, asked for side by side: of a hundred models too, all are seen in time."""
        with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
            return tuple(threads.map(self.tag, keys))

    # -- writing

    def ensure(self, prefix: str) -> None:
        """As :meth:`ganserve.store.Store.ensure`: once, try that conditions are held, with a key that is removed."""
        if self._fit:
            return
        probe = f"{PROBES}/{uuid.uuid4().hex}"
        try:
            held = self.put(probe, b"1") and not self.put(probe, b"2") and not self.update(probe, b"3", ANOTHER)
        finally:
            with contextlib.suppress(StoreError):
                self.hurried().delete(probe)
        if not held:
            raise Unfit(
                f"{self.url} does not hold conditional requests (If-None-Match, If-Match), so two writers could "
                "overwrite each other: name a store that does; to read from it is safe"
            )
        self._fit = True

    def create(self, prefix: str, parts: Mapping[str, bytes]) -> bool:
        """Part by part, only where none stands or the very same does, the commit last and only where none stands."""
        self.ensure(prefix)
        *others, commit = parts
        for name in others:
            if not self.put(f"{prefix}/{name}", parts[name]) and not self.same(f"{prefix}/{name}", parts[name]):
                return False
        if not self.put(f"{prefix}/{commit}", parts[commit]):
            return False
        # A writer that slept for a day may have had its parts swept away.
        standing = {_last(key) for key, _ in self.below(prefix)}
        for name in others:
            if name not in standing:
                self.put(f"{prefix}/{name}", parts[name])
        return True

    def seal(self, prefix: str) -> None:
        """An empty commit, unless there is one."""
        self.put(f"{prefix}/{COMMIT}", b"")

    def replace(self, key: str, content: bytes, expected: bytes | None) -> bool:
        """As :meth:`ganserve.store.Store.replace`; the store compares entity tags."""
        self.ensure(key)
        if expected is None:
            return self.put(key, content)
        try:
            found, version = self.current(key)
        except Missing:
            return False
        return found == expected and self.update(key, content, version)

    def remove(self, prefix: str) -> None:
        """The commit first."""
        self.ensure(prefix)
        self.delete(f"{prefix}/{COMMIT}")
        for key, _ in self.below(prefix):
            self.delete(key)

    def append(self, key: str, line: bytes) -> None:
        """A key of its own, named by the time."""
        self.ensure(key)
        self.put(f"{_grown(key)}/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json", line)

    def forget(self, prefix: str) -> None:
        """Nothing to do: there are no copies."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """No lock: conditions do it."""
        return contextlib.nullcontext()

    def sweep(self, name: str) -> None:
        """Remove parts that no commit names, a day after the last of them came; seals stay, for they bar a number."""
        self.ensure(name)
        parts: dict[str, list[tuple[str, datetime]]] = {}
        committed: set[str] = set()
        for key, meta in self.below(name):
            folder, _, part = key.rpartition("/")
            if not folder.rpartition("/")[2].isdigit():
                continue
            if part == COMMIT:
                committed.update([folder] if meta["size"] else [])
            else:
                parts.setdefault(folder, []).append((key, meta["last_modified"]))
        old = datetime.now(UTC) - timedelta(seconds=STALE_SECONDS)
        for folder, left in parts.items():
            if folder not in committed and max(when for _, when in left) < old:
                for key, _ in left:
                    self.delete(key)

    # -- requests


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _grown(key: str) -> str:
    """Where the lines of ``measures.jsonl`` are keys of their own: below ``measures``."""
    return key.rpartition(".")[0]
