"""Files in an object store, in parts named by their content.

A file goes up part by part and counts for nothing until somebody writes down what :func:`send` gives; what a crash
leaves are parts that nobody names. Parts that are there already are not sent again, so a transfer that was cut goes on
where it was. What comes down is compared with its hashes before it has its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ganserve import files
from ganserve.objects import Objects
from ganserve.store import Missing, Unreadable

PART_BYTES = 16 << 20
# Parts that nobody named within a day are nobody's.
ABANDONED_SECONDS = 24 * 3600.0

Blob = dict[str, Any]


def send(store: Objects, prefix: str, path: Path) -> Blob:
    """Put a file's parts below ``prefix``; what is to be written down: ``{"sha256", "bytes", "parts"}``."""
    whole, parts, total = hashlib.sha256(), [], 0
    with path.open("rb") as file:
        while content := file.read(PART_BYTES):
            digest = hashlib.sha256(content).hexdigest()
            whole.update(content)
            total += len(content)
            store.put(part(prefix, digest), content)
            parts.append(digest)
    return {"sha256": whole.hexdigest(), "bytes": total, "parts": parts}


def fetch(store: Objects, prefix: str, blob: Mapping[str, Any], path: Path) -> None:
    """Write a file that is whole from the moment it has its name. Raises Missing, Unreadable, Away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}{files.PARTIAL}")
    try:
        with staged.open("wb") as file:
            for content in _checked(store, prefix, blob):
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def content(store: Objects, prefix: str, blob: Mapping[str, Any]) -> bytes:
    """A small file's content. Raises as :func:`fetch`."""
    return b"".join(_checked(store, prefix, blob))


def _checked(store: Objects, prefix: str, blob: Mapping[str, Any]) -> Iterator[bytes]:
    """The parts in their order, each compared with its name and all with the file's hash."""
    whole = hashlib.sha256()
    for digest in blob["parts"]:
        found = store.fetch(part(prefix, str(digest)))[0] or b""
        if hashlib.sha256(found).hexdigest() != digest:
            raise Unreadable(f"{prefix}: a part is not what its name says")
        whole.update(found)
        yield found
    if whole.hexdigest() != blob["sha256"]:
        raise Unreadable(f"{prefix}: the parts are not the file that was sent")


def forget(store: Objects, prefix: str, named: Iterable[str]) -> None:
    """Remove the parts below ``prefix`` that no blob names and that have been there for a day."""
    kept, before = {part(prefix, digest) for digest in named}, datetime.now(UTC) - timedelta(seconds=ABANDONED_SECONDS)
    for key, meta in list(store.below(f"{prefix}/parts")):
        if key not in kept and meta["last_modified"] <= before:
            with contextlib.suppress(Missing):
                store.delete(key)


def part(prefix: str, digest: str) -> str:
    """The key of a part."""
    return f"{prefix}/parts/{digest}.part"
