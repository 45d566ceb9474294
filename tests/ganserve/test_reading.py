"""Many pictures are read once, and again only where something changed."""

from __future__ import annotations

import io
import threading
import time
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


def test_a_stray_colour_in_a_grey_set_is_read_by_its_light() -> None:
    def told(colour: tuple[int, int, int]) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
        return buffer.getvalue()

    greys = [Source(str(value), lambda value=value: told((value,) * 3)) for value in range(60)]  # type: ignore[misc]
    found = reading.read([*greys, Source("green", lambda: told((0, 255, 0)))], 8, None)
    assert found.images.shape == (61, 1, 8, 8)
    assert first(found)[-1] == 150, "of green, as ITU-R BT.601 weighs it"


def test_pictures_that_begin_alike_are_not_the_same() -> None:
    def bitmap(last: int) -> bytes:
        pixels = np.zeros((8, 8), np.uint8)
        pixels[0, -1] = last  # a bitmap begins at the bottom
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "BMP")
        return buffer.getvalue()

    found = reading.read([Source(str(last), lambda last=last: bitmap(last)) for last in (0, 1, 1)], 8, 1)  # type: ignore[misc]
    one, other, again = (seen.digest for seen in found.seen)
    assert one != other == again


def test_few_pictures_are_under_way_at_a_time_however_many_there_are() -> None:
    begun: list[int] = []
    results = reading.over_cores(begun.append, range(4000), told="pictures", workers=2)
    next(results)
    time.sleep(0.3)  # in which all would begin
    assert len(begun) <= 200
    assert len(list(results)) == 3999
    assert sorted(begun) == list(range(4000))


def test_few_large_pictures_take_every_thread() -> None:
    together = threading.Barrier(4, timeout=20)  # which breaks where one thread has two of them
    assert len(list(reading.over_cores(lambda _: together.wait(), range(4), told="pictures", workers=4))) == 4
