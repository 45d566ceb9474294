"""Archives of strangers: every name is right or refused, and nothing in one costs more than it says."""

import io
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from ganserve.archives import Limits, Refused, entries, opened
from tests.ganserve.zips import Entry, archive, by_hand, picture

ONE, TWO = picture(1), picture(2)


def read(folder: Path, content: bytes, limits: Limits | None = None) -> dict[str, bytes]:
    path = folder / "upload.zip"
    path.write_bytes(content)
    limits = limits or Limits()
    with opened(path, limits) as found:
        return {entry.name: entry.read() for entry in entries(found, limits, len(content))}


def refusal(folder: Path, content: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(Refused) as caught:
        read(folder, content, limits)
    return " | ".join(f"{one.file}: {one.reason}" for one in caught.value.problems)


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_each_common_compression_gives_the_very_bytes(tmp_path: Path, compression: int) -> None:
    members = {"a/1.png": ONE, "b/1.png": TWO, "b/2.ppm": picture(3, 64, "PPM")}
    assert read(tmp_path, archive(members, compression)) == members


def test_backslashes_part_folders(tmp_path: Path) -> None:
    assert read(tmp_path, archive({"pets\\cat\\1.png": ONE, "pets\\dog\\": b""})) == {"pets/cat/1.png": ONE}


@pytest.mark.parametrize("name", ["./cat/1.png", "cat//1.png", "././cat/./1.png", ".\\cat\\1.png"])
def test_dots_and_doubled_slashes_that_change_nothing_are_passed_over(tmp_path: Path, name: str) -> None:
    assert list(read(tmp_path, archive({name: b"x", "./": b""}))) == ["cat/1.png"]


def test_two_files_of_one_name_are_refused_since_programs_take_the_one_or_the_other(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"cat/1\.png: is there twice"):
        read(tmp_path, by_hand(Entry(b"cat/1.png", b"x"), Entry(b"./cat/1.png", b"y")))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: only ZIP"),
        (b"Rar!\x1a\x07", "is a RAR archive"),
        (b"\x1f\x8b\x08", r"as \.tar\.gz is: only ZIP"),
        (b"\0\0\x08\3\0\0\xea\x60", "is an IDX array, as MNIST's are, which is not read here: save what it shows as"),
        (b"%PDF-1.7", "is a PDF document, which is not read here"),
        (bytes(257) + b"ustar", "is a tar archive"),
        (b"PAR1", "is a Parquet file, whose folder is to be named"),
        (picture(), "is a picture: expected a ZIP archive, or a folder"),
    ],
)
def test_what_is_brought_in_place_of_a_zip_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        read(tmp_path, content + bytes(100))


def test_names_in_utf8_are_read_with_and_without_the_flag(tmp_path: Path) -> None:
    names = ["café/1.png", "猫/1.png", "Ωμέγα/1.png"]
    for flags in (0, 0x800):
        made = by_hand(*(Entry(name.encode(), ONE, flags=flags) for name in names))
        assert list(read(tmp_path, made)) == names


@pytest.mark.parametrize(
    ("name", "codec"),
    [("café", "cp437"), ("猫", "shift_jis"), ("naïve", "cp1252"), ("狗", "gbk"), ("кот", "cp866"), ("말", "euc_kr")],
)
def test_a_name_of_an_encoding_that_nobody_tells_is_refused_by_name(tmp_path: Path, name: str, codec: str) -> None:
    made = by_hand(Entry(b"dog/1.png", ONE), Entry(name.encode(codec) + b"/1.png", TWO))
    told = refusal(tmp_path, made)
    assert told.count("has a name that is not ASCII") == 1
    assert "7-Zip with -mcu=on" in told
    assert "dog/1.png" not in told


def test_a_name_that_could_be_utf8_by_chance_is_not_taken_for_it_beside_one_that_is_not(tmp_path: Path) -> None:
    cat, dog = "猫".encode("gbk"), "狗".encode("gbk")
    assert cat.decode("utf-8") == "è"
    told = refusal(tmp_path, by_hand(Entry(cat + b"/1.png", ONE), Entry(dog + b"/1.png", TWO)))
    assert told.count("not ASCII") == 2


@pytest.mark.parametrize(("name", "codec"), [("猫", "gbk"), ("сад", "cp866"), ("café", "utf-8")])
def test_a_name_without_the_flag_from_windows_is_of_a_code_page_that_nobody_tells(
    tmp_path: Path, name: str, codec: str
) -> None:
    raw = name.encode(codec) + b"/1.png"
    assert raw.decode("utf-8"), "by chance, or because it is"
    assert "1.png: has a name that is not ASCII" in refusal(tmp_path, by_hand(Entry(raw, ONE, system=0)))
    told = Entry(f"{name}/1.png".encode(), ONE, system=0, flags=0x800)
    assert read(tmp_path, by_hand(told)) == {f"{name}/1.png": ONE}
    assert read(tmp_path, by_hand(Entry(b"cat/1.png", ONE, system=0))) == {"cat/1.png": ONE}


def test_a_name_that_says_it_is_utf8_and_is_not_is_refused(tmp_path: Path) -> None:
    assert "\\xff\\xfe/1.png: has a name" in refusal(tmp_path, by_hand(Entry(b"\xff\xfe/1.png", ONE, flags=0x800)))


def test_info_zips_extra_field_tells_the_name_if_it_is_this_names(tmp_path: Path) -> None:
    raw, name = "café/1.png".encode("cp437"), "café/1.png"

    def field(of: bytes) -> bytes:
        content = b"\1" + struct.pack("<I", zlib.crc32(of)) + name.encode()
        return struct.pack("<HH", 0x7075, len(content)) + content

    assert read(tmp_path, by_hand(Entry(raw, ONE, extra=field(raw)))) == {name: ONE}
    assert "not ASCII" in refusal(tmp_path, by_hand(Entry(raw, ONE, extra=field(b"another"))))
    assert "leaves its folder" in refusal(
        tmp_path, by_hand(Entry(b"\x82/1.png", ONE, extra=_evil(b"\x82/1.png", "../../evil.png")))
    )


def _evil(raw: bytes, name: str) -> bytes:
    content = b"\1" + struct.pack("<I", zlib.crc32(raw)) + name.encode()
    return struct.pack("<HH", 0x7075, len(content)) + content


def test_notes_of_an_unknown_encoding_are_passed_over_as_all_notes(tmp_path: Path) -> None:
    made = by_hand(Entry("説明".encode("shift_jis") + b".txt", b"x"), Entry(b"a/1.png", ONE))
    path = tmp_path / "a.zip"
    path.write_bytes(made)
    with opened(path, Limits()) as found:
        assert len(entries(found, Limits(), len(made))) == 2


@pytest.mark.parametrize(
    "name",
    ["../a.png", "a/../../b.png", "/etc/a.png", "\\\\host\\share\\1.png", "C:\\a\\1.png", "c:evil.png", "..\\a.png",
     "../.DS_Store", "a/../../.gitkeep"],
)  # fmt: skip
def test_no_name_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    assert "leaves its folder" in refusal(tmp_path, archive({"a/1.png": ONE, name: TWO}))


@pytest.mark.parametrize("mode", [0o120777, 0o060666, 0o010666, 0o020666, 0o140777])
def test_links_devices_and_pipes_are_refused(tmp_path: Path, mode: int) -> None:
    assert "a/l.png: is a link or a device" in refusal(tmp_path, by_hand(Entry(b"a/l.png", ONE, mode=mode)))


def test_an_entry_that_shares_bytes_with_another_is_refused(tmp_path: Path) -> None:
    same = by_hand(Entry(b"a/1.png", ONE), Entry(b"a/1.png", ONE, at=0, local=False))
    assert "overlap" in refusal(tmp_path, same)
    inside = by_hand(Entry(b"a/1.png", ONE, packed=len(ONE) + 20), Entry(b"a/2.png", TWO))
    assert "overlap" in refusal(tmp_path, inside)
    clutter = by_hand(Entry(b"a/1.png", ONE), Entry(b"__MACOSX/1", b"", at=20, local=False), Entry(b"a/2.png", TWO))
    assert "overlap" in refusal(tmp_path, clutter)


def test_the_number_of_entries_is_known_before_the_directory_is_read(tmp_path: Path) -> None:
    made = by_hand(Entry(b"a/1.png", ONE), count=60_000)
    assert refusal(tmp_path, made, Limits(entries=50_000)) == (
        "(archive): has 60000 entries; at most 50000 are allowed"
    )


def test_a_directory_that_tells_too_few_entries_is_left_when_there_are_more(tmp_path: Path) -> None:
    made = by_hand(*(Entry(b"__MACOSX/", b"") for _ in range(50)), count=1)
    assert "has more than 20 entries" in refusal(tmp_path, made, Limits(entries=20))


def test_two_million_entries_take_hardly_any_memory(tmp_path: Path) -> None:
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0) + b"d/"
    n = 2_000_000
    path = tmp_path / "many.zip"
    for told in (n, 1):
        with path.open("wb") as file:
            for _ in range(20):
                file.write(entry * (n // 20))
            size = n * len(entry)
            file.write(struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, told, told, size, 0))
            file.write(struct.pack("<4sIQI", b"PK\6\7", 0, size, 1))
            file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 0xFFFFFFFF, 0xFFFFFFFF, 0))
        tracemalloc.start()
        try:
            with pytest.raises(Refused), opened(path, Limits()):
                pass
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": 9}, "is compressed with Deflate64"),
        ({"method": 98}, "is compressed with PPMd"),
        ({"method": 93}, "is compressed with Zstandard"),
        ({"method": 777}, "is compressed with method 777"),
        ({"method": 99}, "is encrypted"),
        ({"flags": 1}, "is encrypted"),
        ({"flags": 0x41}, "is encrypted"),
        ({"flags": 0x20}, "needs patched data"),
        ({"needed": 99}, "needs version 9.9"),
        ({"size": 1 << 30, "packed": None}, "at most"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    told = refusal(tmp_path, by_hand(Entry(b"a/1.png", ONE, **change)))
    assert told.startswith("a/1.png: ")
    assert words in told


def test_what_unpacks_to_more_than_is_told_is_refused_after_one_byte_more(tmp_path: Path) -> None:
    content = archive({"a/1.png": bytes(60 << 20)})
    at = content.rfind(b"PK\1\2")
    made = bytearray(content)
    made[at + 24 : at + 28] = (100).to_bytes(4, "little")
    tracemalloc.start()
    try:
        assert "unpacks to more than the 100 bytes" in refusal(tmp_path, bytes(made))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content", [b"", b"PK\5\6", b"label,pixel0\n", archive({"a/1.png": ONE})[:-5], b"a/1.png" + bytes(512)]
)
def test_what_is_no_archive_is_said(tmp_path: Path, content: bytes) -> None:
    assert refusal(tmp_path, content).startswith("(archive): is not a sound ZIP")


def test_an_archive_behind_a_program_and_before_junk_is_read(tmp_path: Path) -> None:
    made = by_hand(Entry(b"a/1.png", ONE), before=b"MZ" + bytes(1000), after=b"junk")
    assert read(tmp_path, made) == {"a/1.png": ONE}


def test_a_comment_that_holds_an_end_of_a_directory_hides_nothing(tmp_path: Path) -> None:
    made = bytearray(archive({"a/1.png": ONE}))
    inner = archive({"b/2.png": TWO})[-22:]
    made[-2:] = struct.pack("<H", len(inner) + 5)
    assert read(tmp_path, bytes(made) + inner + b"after") == {"a/1.png": ONE}
    made[-2:] = struct.pack("<H", len(inner))
    assert "has two ends, of which programs take the one or the other" in refusal(tmp_path, bytes(made) + inner)


def test_zip64_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made, made.open("a/1.png", "w", force_zip64=True) as file:
        file.write(ONE)
    assert read(tmp_path, buffer.getvalue()) == {"a/1.png": ONE}
    wide = struct.pack("<HHQQ", 1, 16, len(ONE), len(ONE))
    hand = bytearray(by_hand(Entry(b"a/1.png", ONE, extra=wide)))
    at = hand.rfind(b"PK\1\2")
    hand[at + 20 : at + 28] = b"\xff" * 8
    assert read(tmp_path, bytes(hand)) == {"a/1.png": ONE}


def test_any_damage_is_a_refusal_or_a_damaged_file_and_never_another_error(tmp_path: Path) -> None:
    import random

    from ganserve.unpacking import Damaged

    whole = archive({f"{name}/{i}.png": picture(i) for name in "ab" for i in range(3)})
    chance = random.Random(5)
    for _ in range(300):
        made = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8))):
            made[chance.randrange(len(made))] = chance.randrange(256)
        try:
            read(tmp_path, bytes(made))
        except (Refused, Damaged):
            continue


def test_a_colon_is_a_letter_of_a_class(tmp_path: Path) -> None:
    assert set(read(tmp_path, archive({"a:b/1.png": ONE, "16:9/2.png": TWO}))) == {"a:b/1.png", "16:9/2.png"}
