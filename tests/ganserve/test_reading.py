"""Many pictures are read once, and again only where something changed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganserve import reading
from ganserve.reading import Cache, Pictures, Source, Unreadable, read_once


def png(value: int, edge: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (edge, edge), (value, 0, 255 - value)).save(buffer, "PNG")
    return buffer.getvalue()


def sources(*values: int, edge: int = 8) -> list[Source]:
    return [Source(f"{value}.png", lambda value=value: png(value, edge)) for value in values]  # type: ignore[misc]


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "KEPT_SECONDS", -1.0)


def first(found: Pictures) -> list[int]:
    return found.images[:, 0, 0, 0].tolist()  # type: ignore[no-any-return]


def test_each_part_of_a_place_has_a_reading_of_its_own_and_the_last_is_kept(tmp_path: Path, keeping: None) -> None:
    caches = [Cache(tmp_path, "pets", part, key) for part, key in (("train", 1), ("test", 1), ("train", 2))]
    for value, cache in enumerate(caches):
        read_once(sources(value), 8, 3, cache=cache)
    old, test, new = (cache.get() for cache in caches)
    assert old is None
    assert test is not None
    assert new is not None
    assert (first(test), first(new)) == ([1], [2])
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {reading.place_mark("pets")}


def test_a_reading_that_is_damaged_or_of_another_length_is_made_anew(tmp_path: Path, keeping: None) -> None:
    cache = Cache(tmp_path, "pets", None, 1)
    read_once(sources(1, 2), 8, 3, cache=cache)
    assert first(read_once(sources(5, 6), 8, 3, cache=cache)) == [1, 2]
    assert first(read_once(sources(5, 6, 7), 8, 3, cache=cache)) == [5, 6, 7]
    whole = cache.path.read_bytes()
    for content in (b"", b"PK\3\4", whole[:-100], whole[: len(whole) // 2]):
        cache.path.write_bytes(content)
        assert first(read_once(sources(5, 6, 7), 8, 3, cache=cache)) == [5, 6, 7]


def test_nothing_is_measured_again_where_a_reading_is_kept(
    tmp_path: Path, keeping: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path, "pets", None, 1)
    kept = read_once(sources(1, edge=12), None, None, cache=cache)
    assert kept.images.shape == (1, 3, 12, 12)
    monkeypatch.setattr(reading, "fitting_edge", None)
    assert np.array_equal(read_once(sources(1), None, None, cache=cache).images, kept.images)


def test_more_than_the_memory_holds_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_ARRAY", 1000)
    monkeypatch.setattr(reading, "read", None)
    with pytest.raises(Unreadable, match=r"2 pictures of 64 x 64 pixels .*name a smaller size"):
        read_once(sources(1, 2, edge=64), None, None, cache=None)


def test_a_picture_that_cannot_be_read_is_named() -> None:
    with pytest.raises(Unreadable, match=r"'broken\.png'.*known kind"):
        read_once([*sources(1), Source("broken.png", lambda: b"oops")], 8, 3, cache=None)
