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


def test_only_plain_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"12345")
    assert files.read(plain, 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes; at most 4 are read"):
        files.read(plain, 4)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a plain file"):
        files.read(tmp_path / "pipe", 5)
    with pytest.raises(FileNotFoundError):
        files.read(tmp_path / "none", 5)
