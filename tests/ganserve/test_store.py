from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from ganserve.store import Away, FolderStore, Missing, StoreError, Unreadable

PARTS = {"model": b"1", "card": b"2"}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    (tmp_path / "m").mkdir()
    return FolderStore(tmp_path)


def test_what_is_created_is_read_back_and_listed(store: FolderStore) -> None:
    assert store.create("m/1", PARTS)
    assert {name: store.read(f"m/1/{name}") for name in store.names("m/1")} == PARTS
    assert store.folders("m") == ["1"]
    assert store.folders() == ["m"]


def test_of_many_who_create_the_same_one_wins_and_nothing_is_mixed(store: FolderStore) -> None:
    def attempt(i: int) -> bool:
        return store.create("m/1", {"a": b"%d" % i, "b": b"%d" % i})

    with ThreadPoolExecutor(8) as threads:
        won = [i for i, made in enumerate(threads.map(attempt, range(16))) if made]
    assert len(won) == 1
    assert store.read("m/1/a") == store.read("m/1/b") == b"%d" % won[0]
    assert [name for name in store.names("m") if name.startswith(".staging")] == []


@pytest.mark.parametrize("stands", ["file", "folder", "link"])
def test_whatever_stands_in_the_place_is_left_alone(store: FolderStore, stands: str) -> None:
    place = store.path("m/1")
    link = partial(place.symlink_to, "nowhere")
    put: dict[str, Callable[[], None]] = {"file": place.touch, "folder": place.mkdir, "link": link}
    put[stands]()
    assert not store.create("m/1", PARTS)
    assert store.names("m") == ["1"]


def test_a_replacement_needs_the_content_that_was_read(store: FolderStore) -> None:
    assert not store.replace("m/live", b"new", b"old")
    assert store.replace("m/live", b"one", None)
    assert not store.replace("m/live", b"two", None)
    assert store.replace("m/live", b"two", b"one")
    assert store.read("m/live") == b"two"


def test_of_many_counters_no_step_is_lost(store: FolderStore) -> None:
    store.replace("m/count", b"0", None)

    def count(_: int) -> None:
        done = False
        while not done:
            before = store.read("m/count")
            done = store.replace("m/count", b"%d" % (int(before) + 1), before)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(20)))
    assert store.read("m/count") == b"20"


def test_a_line_follows_what_a_crash_cut_short(store: FolderStore) -> None:
    store.append("m/log", b"one")
    with store.path("m/log").open("ab") as file:
        file.write(b"tw")
    store.append("m/log", b"three")
    assert store.read("m/log") == b"one\ntw\nthree\n"


def test_nothing_is_missing_and_said_so(store: FolderStore) -> None:
    with pytest.raises(Missing):
        store.read("m/absent")
    assert store.names("absent") == store.folders("absent") == []


def test_what_no_file_system_can_call_so_is_missing(store: FolderStore) -> None:
    assert not store.exists("a" * 300)
    for key in ("a" * 300 + "/live.json", "live.json" * 100):
        with pytest.raises(Missing):
            store.read(key)


def test_a_pipe_is_refused_and_never_waited_for(store: FolderStore) -> None:
    os.mkfifo(store.path("m/pipe"))
    with pytest.raises(Unreadable, match="no regular file"):
        store.read("m/pipe")


def test_without_a_descriptor_left_the_store_is_away_and_nothing_is_known_against_a_file(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("m/1", PARTS)

    def full(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(Away, match="Too many open files"):
        store.read("m/1/card.json")


def test_a_link_is_refused_even_to_the_right_bytes(store: FolderStore) -> None:
    store.replace("m/real", b"x", None)
    store.path("m/link").symlink_to(store.path("m/real"))
    with pytest.raises(Unreadable, match="is a link"):
        store.read("m/link")


def test_a_disk_that_gives_back_something_else_is_told_of_and_nothing_is_created(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"rot")
    with pytest.raises(StoreError, match="is the disk sound"):
        store.create("m/1", PARTS)
    assert store.names("m") == []


def test_the_one_writer_may_write_inside_its_own_turn(store: FolderStore) -> None:
    with store.exclusive("m"), store.exclusive("m"):
        assert store.replace("m/live", b"one", None)


def test_a_folder_or_too_many_bytes_in_a_keys_place_are_unreadable_and_cost_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "large.onnx").write_bytes(b"12345")
    monkeypatch.setattr("ganserve.store.MOST_BYTES", 4)
    free = os.dup(0)
    os.close(free)
    with pytest.raises(Unreadable, match="no regular file"):
        store.read("folder")
    with pytest.raises(Unreadable, match="it has 5 bytes; at most 4 are read"):
        store.read("large.onnx")
    after = os.dup(0)
    os.close(after)
    assert after == free
