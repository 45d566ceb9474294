"""Many pictures into one array: sizes by their headers, pixels over all cores, once for as long as nothing changed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganserve import files, pictures, progress
from ganserve.entries import said
from ganserve.pictures import PictureError
from ganserve.sets import Seen, median_edge, shows_colour
from ganserve.unpacking import Damaged

# To be raised with every change of a pixel that is read from the same file.
READER = 8
# Bytes of an array of pictures; training needs several times as much.
MAX_ARRAY = 16 << 30
# What took longer than this to read is kept.
KEPT_SECONDS = 2.0
_IN_FLIGHT, _GROUP = 3, 16

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


class Unreadable(ValueError):  # noqa: N818
    """A picture of the set that cannot be read; the message names it."""


@dataclass(frozen=True)
class Source:
    """One picture's name, for messages, and its bytes."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Pictures:
    """What was read: uint8 [n, channels, size, size], and of each picture what a report needs."""

    images: NDArray[np.uint8]
    seen: tuple[Seen, ...]


def threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_cores(function: Callable[[T], R], items: Sequence[T], *, told: str, workers: int | None = None) -> Iterator[R]:
    """``function`` of each item, in order; a thread has one item at a time, and a few groups of them are under way."""
    workers = workers or threads()
    # Few photos take every thread; many small pictures are not handed over one by one.
    size = min(_GROUP, max(1, len(items) // (_IN_FLIGHT * workers)))
    groups = [items[start : start + size] for start in range(0, len(items), size)]
    done = 0
    bar = progress.Bar(told, len(items), "pictures", shown=progress.wanted(None))
    with pictures.QUIET, ThreadPoolExecutor(workers) as pool, bar:
        under_way: deque[Future[list[R]]] = deque()
        try:
            for group in groups:
                under_way.append(pool.submit(lambda group: [function(item) for item in group], group))
                if len(under_way) >= _IN_FLIGHT * workers:
                    yield from (found := under_way.popleft().result())
                    bar.to(done := done + len(found))
            while under_way:
                yield from (found := under_way.popleft().result())
                bar.to(done := done + len(found))
        finally:
            for future in under_way:
                future.cancel()


def fitting_edge(sources: Sequence[Source], *, workers: int | None = None) -> int:
    """The median of the pictures' short edges, by their headers. Raises Unreadable."""

    def edge(source: Source) -> int:
        try:
            return pictures.short_edge(source.read())
        except (PictureError, Damaged, OSError) as error:
            raise Unreadable(f"cannot read picture {source.name!r}: {said(error)}") from error

    return median_edge(list(over_cores(edge, sources, told="sizes", workers=workers)))


def read(sources: Sequence[Source], size: int, channels: int | None, *, workers: int | None = None) -> Pictures:
    """Every picture at an edge of ``size``; without ``channels``, grey where hardly any shows colour.

    Raises:
        Unreadable: a picture cannot be read.
    """
    squares, seen = [], []
    for pixels, told in _decoded(sources, size, channels, workers):
        squares.append(pixels)
        seen.append(told)
    if channels is None:
        channels = 3 if shows_colour(sum(one.coloured for one in seen), len(seen)) else 1
    images = np.empty((len(squares), channels, size, size), np.uint8)
    for index, pixels in enumerate(squares):
        images[index] = _in_channels(pixels, channels).transpose(2, 0, 1)
    return Pictures(images, tuple(seen))


def _decoded(
    sources: Sequence[Source], size: int, channels: int | None, workers: int | None
) -> Iterator[tuple[NDArray[np.uint8], Seen]]:
    """Each picture's square, uint8 [size, size, 1 or 3], grey where it is kept so, and what a report needs of it."""

    def one(source: Source) -> tuple[NDArray[np.uint8], Seen]:
        try:
            content = source.read()
            picture = pictures.decode(content, edge=size)
        except (PictureError, Damaged, OSError) as error:
            raise Unreadable(f"cannot read picture {source.name!r}: {said(error)}") from error
        grey = picture.image.mode == "L"
        pixels = pictures.square(picture.image, size, 1 if grey else channels or 3)
        shown = pixels if grey or channels != 1 else pictures.square(picture.image, size, 3)
        coloured = shown.shape[-1] == 3 and pictures.coloured(shown)
        digest = hashlib.sha256(content).digest()[:16]
        return pixels, Seen(picture.size, coloured, digest, picture.notices)

    return over_cores(one, sources, told="pictures", workers=workers)


def _in_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    if pixels.shape[-1] > channels:
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return pixels  # grey is broadcast over three channels


class Cache:
    """What was read of a place, kept in a folder by what stands there: names, sizes and times of the files.

    Of each ``part`` of the place, such as a split at a size, one reading is kept: the last.
    """

    def __init__(self, folder: Path, place: str, part: Any, key: Any) -> None:
        self._beside = f"{place_mark(place)}-{_mark(part)[:16]}"
        self.path = folder / f"{self._beside}-{_mark([READER, key])[:32]}.npz"

    def get(self) -> Pictures | None:
        """None where nothing, or nothing whole, is kept."""
        try:
            # Opened here, since of a damaged file np.load keeps hold.
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                return Pictures(kept["images"], tuple(_seen(one) for one in json.loads(str(kept["seen"]))))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def put(self, read: Pictures) -> None:
        """Keep it in place of what was read of the same place before; where nothing can be kept, it is not."""
        told = [{**asdict(one), "digest": one.digest.hex()} for one in read.seen]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for old in self.path.parent.glob(f"{self._beside}-*.npz"):
                old.unlink(missing_ok=True)
            staged = self.path.with_name(f".{self.path.stem}.{os.getpid()}{files.PARTIAL}.npz")
            np.savez(staged, images=read.images, seen=np.array(json.dumps(told)))
            os.replace(staged, self.path)
        except OSError as error:
            log.warning("what was read cannot be kept in %s: %s", self.path.parent, error)


def _mark(key: Any) -> str:
    told = json.dumps(key, sort_keys=True, default=str)
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()


def _seen(told: dict[str, Any]) -> Seen:
    width, height = told["size"]
    return Seen((width, height), told["coloured"], bytes.fromhex(told["digest"]), tuple(told["notices"]))


def place_mark(place: str) -> str:
    """What names of kept readings of a place begin with."""
    return hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def read_once(
    sources: Sequence[Source],
    size: int | None,
    channels: int | None,
    *,
    fit: Callable[[int], int] = lambda edge: edge,
    cache: Cache | None,
    workers: int | None = None,
) -> Pictures:
    """As :func:`read`, or what was kept of it; without a size, at what ``fit`` makes of the median edge.

    Raises:
        Unreadable: a picture cannot be read, or the array would be larger than ``MAX_ARRAY``.
    """
    if cache is not None and (kept := cache.get()) is not None and len(kept.images) == len(sources):
        return kept
    began = time.monotonic()
    size = size or fit(fitting_edge(sources, workers=workers))
    if (needed := len(sources) * size * size * (channels or 3)) > MAX_ARRAY:
        raise Unreadable(
            f"{len(sources):,} pictures of {size} x {size} pixels would take {needed / 2**30:.0f} GiB of memory: name "
            "a smaller size"
        )
    found = read(sources, size, channels, workers=workers)
    if cache is not None and time.monotonic() - began > KEPT_SECONDS:
        cache.put(found)
    return found
