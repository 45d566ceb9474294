"""The files of a set are found once each, in folders and in the ZIPs of every program."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from ganserve.entries import Entry, SetError, archive_entries, folder_entries


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


def test_an_entry_is_marked_by_its_size_and_time_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(b"12345")
    os.utime(path, ns=(7, 7))
    (entry,) = folder_entries(tmp_path)
    assert entry.mark == (5, 7)
    assert entry.read() == b"12345"


def zipped(members: dict[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer


def renamed(name: bytes, *, extra: bytes = b"") -> io.BytesIO:
    """A ZIP of one file whose name is these bytes, without the flag that tells UTF-8."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("x" * len(name))
        info.extra = extra
        archive.writestr(info, b"content")
    return io.BytesIO(buffer.getvalue().replace(b"x" * len(name), name))


UNICODE_PATH = struct.pack("<HHBI", 0x7075, 5 + 11, 1, zlib.crc32(b"caf\x82/1.png")) + "caf\u00e9/1.png".encode()


def test_an_archive_is_read_as_the_folder_that_it_was(tmp_path: Path) -> None:
    members = {"pets/cat/1.png": b"cat" * 99, "pets/dog/1.png": b"dog"}
    members |= {"__MACOSX/pets/cat/._1.png": b"x", "pets/.DS_Store": b"x"}
    (tmp_path / "pets.zip").write_bytes(zipped(members).getvalue())
    cat, dog = archive_entries(tmp_path / "pets.zip")
    assert (cat.name, cat.read(), cat.head()) == ("pets/cat/1.png", b"cat" * 99, (b"cat" * 99)[:32])
    assert dog.read() == b"dog"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (zipped({"cat\\1.png": b""}), "cat/1.png"),
        (zipped({"caf\u00e9/\u732b.png": b""}), "caf\u00e9/\u732b.png"),
        (renamed("caf\u00e9/\u732b.png".encode()), "caf\u00e9/\u732b.png"),
        (renamed(b"caf\x82/1.png", extra=UNICODE_PATH), "caf\u00e9/1.png"),
    ],
)
def test_names_of_archives_are_read_as_they_were_written(content: io.BytesIO, name: str) -> None:
    assert names(archive_entries(content)) == [name]


def test_a_name_whose_encoding_nobody_tells_is_refused_and_not_guessed() -> None:
    with pytest.raises(SetError, match=r"encoding of the name .* cannot be known"):
        archive_entries(renamed(b"caf\x82/1.png"))


@pytest.mark.parametrize("name", ["../x.png", "cat/../../x.png", "/etc/x.png", "C:\\x.png", "..\\x.png"])
def test_no_name_leads_out_of_an_archive(name: str) -> None:
    with pytest.raises(SetError, match="leads out of the ZIP"):
        archive_entries(zipped({name: b""}))


def test_a_damaged_archive_is_refused_or_its_damaged_file_is(tmp_path: Path) -> None:
    with pytest.raises(SetError, match="not a sound ZIP"):
        archive_entries(io.BytesIO(b"PK\3\4 no more"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("cat/1.png", b"content of the file")
    (entry,) = archive_entries(io.BytesIO(buffer.getvalue().replace(b"content", b"CONTENT")))
    with pytest.raises(OSError, match="cannot be unpacked"):
        entry.read()


def test_a_file_that_is_too_large_for_a_picture_is_not_unpacked() -> None:
    (entry,) = archive_entries(zipped({"cat/bomb.png": bytes(1 << 20)}), max_bytes=1000)
    with pytest.raises(OSError, match="1,048,576 bytes, more than any picture"):
        entry.read()
    assert entry.head() == bytes(32)
