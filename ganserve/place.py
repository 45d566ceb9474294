"""A place: a folder, or the URL of an object store. Where it is told, and how it is opened.

    models                     a folder
    s3://bucket/models         S3 and what speaks its language
    gs://bucket/models         Google Cloud Storage
    az://container/models      Azure Blob Storage

Credentials, region and endpoint come from the clouds' usual environment variables, never from the URL.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from ganserve.store import FolderStore, Store

URL = re.compile(r"(s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?")
EXPECTED = (
    "expected a folder, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX; credentials come from the "
    "cloud's own environment variables, never from the URL"
)
CACHE_BYTES = 1 << 30

Place = Path | str


def place(text: str | Path) -> Place:
    """A folder as a path, a URL as a string without a slash at its end.

    Raises:
        ValueError: a URL of another kind, or with more in it than a place. The message does not repeat it.
    """
    told = str(text)
    if URL.fullmatch(told):
        return told.rstrip("/")
    if "://" in told or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", told):
        raise ValueError(EXPECTED)
    return Path(text)


def is_url(where: Place) -> bool:
    """Whether a place is in an object store."""
    return isinstance(where, str)


def inside(where: Place, name: str) -> Place:
    """A place within a place."""
    return f"{where}/{name}" if isinstance(where, str) else where / name


def data_folder() -> Path:
    """The data folder of this process, as it was told."""
    return Path(os.environ.get("GANSERVE_DATA") or "var")


def open_store(where: Place, *, data: Path | None = None, cache_bytes: int | None = None) -> Store:
    """The store at a place; what is read of a URL is kept below ``data``, up to ``cache_bytes``."""
    if isinstance(where, Path):
        return FolderStore(where)
    from ganserve.bucket import BucketStore
    from ganserve.cache import CachedStore

    folder = (data or data_folder()) / "cache" / hashlib.sha256(where.encode()).hexdigest()[:16]
    limit = cache_bytes or int(os.environ.get("GANSERVE_CACHE_BYTES") or CACHE_BYTES)
    return CachedStore(BucketStore(where), folder, limit)
