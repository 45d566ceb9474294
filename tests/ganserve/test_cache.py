"""A reader's local copy: right to the byte, bounded, and enough to start from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ganserve.bucket import BucketStore
from ganserve.cache import CachedStore
from ganserve.card import ModelUnreadable, VersionRemoved
from ganserve.repository import Repository
from ganserve.store import Away, Missing
from tests import stores
from tests.tiny import publish


def cached(url: str, folder: Path, limit: int = 1 << 30) -> CachedStore:
    return CachedStore(BucketStore(url, patience=0.3), folder, limit)


def copies(folder: Path) -> list[Path]:
    return sorted((folder / "objects").glob("*"))


def test_a_graph_is_fetched_once_and_the_rest_is_asked_for_and_not_sent_again(
    bucket: str, proxy: stores.Proxy, tmp_path: Path
) -> None:
    version = publish(Repository(bucket), "m")
    for folder in (tmp_path, tmp_path):
        reader = Repository(bucket, cached(bucket, folder))
        reader.read("m", version)
        reader.live("m")
    proxy.asked.clear()
    reader.read("m", version)
    assert [path for _, path in proxy.asked if path.endswith("model.onnx")] == []
    assert len(proxy.asked) <= 3


def test_every_byte_of_a_copy_is_checked_and_what_is_wrong_is_fetched_anew(bucket: str, tmp_path: Path) -> None:
    version = publish(Repository(bucket), "m")
    reader = Repository(bucket, cached(bucket, tmp_path))
    sound = reader.read("m", version)
    for path in copies(tmp_path):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert Repository(bucket, cached(bucket, tmp_path)).read("m", version) == sound
    assert reader.model_path("m", version).read_bytes() == sound[1]


def test_a_reader_starts_from_its_copy_while_the_store_is_away(
    bucket: str, proxy: stores.Proxy, tmp_path: Path
) -> None:
    version = publish(Repository(bucket), "m")
    sound = Repository(bucket, cached(bucket, tmp_path)).read("m", version)
    assert Repository(bucket, cached(bucket, tmp_path)).names() == ["m"]
    assert Repository(bucket, cached(bucket, tmp_path)).live("m") == version
    proxy.fault = lambda method, path: "cut"
    reader = Repository(bucket, cached(bucket, tmp_path))
    assert (reader.names(), reader.versions("m"), reader.live("m")) == (["m"], [version], version)
    assert reader.read("m", version) == sound
    with pytest.raises(ModelUnreadable, match="does not answer"):
        Repository(bucket, cached(bucket, tmp_path / "new")).read("m", version)
    with pytest.raises(Away):
        reader.store.replace("m/live.json", b"x", b"y")


def test_a_removed_version_is_gone_for_every_reader_and_no_copy_of_it_is_kept(bucket: str, tmp_path: Path) -> None:
    writer = Repository(bucket)
    first = publish(writer, "m", seed=1)
    publish(writer, "m", seed=2)
    reader = Repository(bucket, cached(bucket, tmp_path))
    content = reader.read("m", first)[1]
    writer.remove("m", first)
    with pytest.raises(VersionRemoved):
        reader.read("m", first)
    assert all(path.read_bytes() != content for path in copies(tmp_path))


def test_copies_are_bounded_and_the_least_used_go_first(bucket: str, tmp_path: Path) -> None:
    store, seen = BucketStore(bucket), cached(bucket, tmp_path, limit=3500)
    for number in range(1, 5):
        store.put(f"m/{number}/model.onnx", bytes([number]) * 1000)
        seen.read(f"m/{number}/model.onnx")
        for age, path in enumerate(sorted(copies(tmp_path), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(path, (age, age + number))
        seen.read("m/1/model.onnx")
    kept = {path.read_bytes()[0] for path in copies(tmp_path)}
    assert (len(kept), {1, 4} <= kept) == (3, True)
    assert seen.read("m/2/model.onnx") == bytes([2]) * 1000


def test_what_is_not_there_is_missing_also_where_a_copy_was(bucket: str, tmp_path: Path) -> None:
    store, seen = BucketStore(bucket), cached(bucket, tmp_path)
    store.put("m/live.json", b"1")
    assert seen.read("m/live.json") == b"1"
    store.delete("m/live.json")
    for _ in range(2):
        with pytest.raises(Missing):
            seen.read("m/live.json")
