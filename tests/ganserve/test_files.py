from __future__ import annotations

import os
from pathlib import Path

import pytest

from ganserve import files


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.replace(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        files.replace(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_copy_is_whole_and_makes_the_folders_above_it(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "a" / "b" / "copy"
    source.write_bytes(b"content")
    files.copy(source, target)
    assert target.read_bytes() == b"content"
    assert list(target.parent.iterdir()) == [target]


def test_a_full_disk_is_said_as_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.unwritable(tmp_path / "new") == ""
    found = os.statvfs(tmp_path)

    def full(place: Path) -> os.statvfs_result:
        return os.statvfs_result((found.f_bsize, found.f_frsize, found.f_blocks, 0, 0, *tuple(found)[5:]))

    monkeypatch.setattr(os, "statvfs", full)
    assert files.unwritable(tmp_path / "new") == "the disk is full"
