"""The files of a set are found once each, whatever links and names there are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ganserve.entries import Entry, folder_entries


def names(entries: list[Entry]) -> list[str]:
    return [entry.name for entry in entries]


def put(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def test_links_are_followed_but_never_round_in_a_circle(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/cat/1.png", "set/dog/1.png")
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    (tmp_path / "set" / "dog" / "again").symlink_to(tmp_path / "set")
    (tmp_path / "elsewhere" / "cat" / "self").symlink_to(".")
    assert names(folder_entries(tmp_path / "set")) == ["cat/1.png", "dog/1.png"]


def test_a_link_to_nothing_is_there_and_fails_whoever_reads_it(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (entry,) = folder_entries(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        entry.read()


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(put(tmp_path, "a.png") / "pipe.png")
    assert names(folder_entries(tmp_path)) == ["a.png"]


def test_an_entry_is_marked_by_its_size_and_times_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(b"12345")
    os.utime(path, ns=(7, 7))
    (entry,) = folder_entries(tmp_path)
    assert entry.mark[:2] == (5, 7)
    assert entry.read() == b"12345"
    path.write_bytes(b"54321")
    os.utime(path, ns=(7, 7))
    assert folder_entries(tmp_path)[0].mark != entry.mark, "as touch -r, rsync -t and archives set it back"
