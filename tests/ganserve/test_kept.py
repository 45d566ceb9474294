"""Data sets in an object store: whole or not there, the same pictures everywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ganserve import blobs, kept, reading
from ganserve.bucket import BucketStore
from ganserve.kept import KeptSets
from ganserve.store import Missing, Unreadable
from tests import stores

RECORD = b'{"name": "pets"}'
PICTURES = {"cat/000001.png": b"1" * 5000, "dog/000001.png": b"2" * 5000, "train/\u732b/000001.png": b"3"}


@pytest.fixture
def sets(bucket: str) -> KeptSets:
    return KeptSets(BucketStore(bucket))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "unpacked"
    for name, content in PICTURES.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(content)
    (made / "dataset.json").write_bytes(RECORD)
    (made / ".samples.png").write_bytes(b"sheet")
    return made


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_one_machine_keeps_another_fetches_to_the_byte(sets: KeptSets, folder: Path, tmp_path: Path) -> None:
    assert sets.keep("pets", folder, RECORD, b"sheet")
    assert (sets.names(), sets.samples("pets"), sets.record("pets")) == (["pets"], b"sheet", RECORD)
    there = sets.fetch("pets", tmp_path / "worker")
    assert (there.name, tree(there)) == ("pets", PICTURES)
    assert sets.fetch("pets", tmp_path / "worker") == there
    assert sorted(path.name for path in folder.parent.iterdir()) == ["unpacked", "worker"]


def test_a_name_is_had_once_and_free_again_when_its_set_is_deleted(sets: KeptSets, folder: Path) -> None:
    assert sets.keep("pets", folder, RECORD, None)
    assert not sets.keep("pets", folder, b'{"name": "others"}', None)
    assert sets.record("pets") == RECORD
    sets.delete("pets")
    assert sets.names() == []
    with pytest.raises(Missing):
        sets.delete("pets")
    assert list(sets.store.below("datasets")) == []


def test_nothing_is_seen_of_an_upload_that_was_cut_and_it_goes_on_with_the_parts_that_are_there(
    bucket: str, proxy: stores.Proxy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "PART_BYTES", 4096)
    sets = KeptSets(BucketStore(bucket, patience=0.2))
    sets.store.ensure("datasets")
    proxy.fault = lambda method, path: "503" if len(proxy.asked) > 9 else None
    with pytest.raises(OSError, match="does not answer"):
        sets.keep("pets", folder, RECORD, None)
    proxy.fault = lambda method, path: None
    sent = [key for key, _ in sets.store.below("datasets")]
    assert sent
    assert sets.names() == []
    assert sets.keep("pets", folder, RECORD, None)
    assert set(sent) < {key for key, _ in sets.store.below("datasets")}


def test_what_was_cut_is_swept_after_a_day_and_what_is_whole_stays(
    sets: KeptSets, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sets.keep("pets", folder, RECORD, None)
    (tmp_path / "cut").write_bytes(b"half an upload")
    blobs.send(sets.store, "datasets/cut", tmp_path / "cut")
    sets.sweep()
    assert sets.store.folders("datasets") == ["cut", "pets"]
    monkeypatch.setattr(blobs, "ABANDONED_SECONDS", -5.0)
    sets.sweep()
    assert sets.store.folders("datasets") == ["pets"]
    assert tree(sets.fetch("pets", tmp_path / "worker")) == PICTURES


def test_a_part_that_is_not_what_its_name_says_is_refused_and_leaves_nothing(
    sets: KeptSets, folder: Path, tmp_path: Path
) -> None:
    sets.keep("pets", folder, RECORD, None)
    key = next(key for key, _ in sets.store.below("datasets") if key.endswith(".part"))
    content = sets.store.read(key)
    sets.store.replace(key, content[:-1] + b"x", content)
    with pytest.raises(Unreadable, match="not what its name says"):
        sets.fetch("pets", tmp_path / "worker")
    assert tree(tmp_path / "worker") == {}


def test_copies_of_sets_are_bounded_and_the_one_in_use_stays(sets: KeptSets, folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "worker"
    for number, name in enumerate(("a", "b", "c")):
        (folder / "cat" / "000001.png").write_bytes(bytes([number]) * 5000)
        sets.keep(name, folder, RECORD, None)
        os.utime(sets.fetch(name, data).parent, (number, number))
    (data / "pictures").mkdir()
    using = sets.fetch("c", data)
    kept.forget_copies(data, 21_000, using)
    assert sorted(path.name for path in (data / "cache" / "datasets").glob("*/*")) == ["b", "c"]
    kept.forget_copies(data, 0, using)
    assert [path.name for path in (data / "cache" / "datasets").glob("*/*")] == ["c"]


def test_copies_of_a_deleted_set_go_with_what_was_learnt_of_it_and_no_other(
    sets: KeptSets, folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "worker"
    for number, name in enumerate(("a", "b")):
        (folder / "cat" / "000001.png").write_bytes(bytes([number]) * 5000)
        sets.keep(name, folder, RECORD, None)
        for kind in ("pictures", "judges"):
            (data / kind).mkdir(parents=True, exist_ok=True)
            (data / kind / f"{reading.place_mark(str(sets.fetch(name, data).resolve()))}-{name}.npz").write_bytes(b"x")
    sets.delete("a")
    sets.forget_gone(data)
    assert [path.name for path in (data / "cache" / "datasets").glob("*/*")] == ["b"]
    assert [path.name[17:] for kind in ("pictures", "judges") for path in (data / kind).iterdir()] == ["b.npz"] * 2
    sets.delete("b")
    sets.keep("b", folder / "cat", RECORD, None)
    sets.forget_gone(data)
    assert not list(data.rglob("*.*")), "another set of its name is not it"
