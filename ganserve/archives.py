"""ZIP archives of strangers: a directory that is bounded before it is read, and entries that are what they say.

Nothing is believed: entries are counted as they are walked, two of them never share bytes, what is unpacked never grows
past what was told. Names are UTF-8 or ASCII, by the format's flag, by Info-ZIP's extra field or because they can be
nothing else; a backslash parts folders, as Windows writes them.

The format: PKWARE, APPNOTE.TXT 6.3.10; overlapping entries: Fifield, "A better zip bomb", WOOT 2019.
"""

from __future__ import annotations

import re
import stat
import struct
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np

from ganserve import entries as set_files
from ganserve import kinds, sets
from ganserve.unpacking import AES, METHODS, READ, Damaged, unpack
from ganserve.zipnames import fields, name_of

ARCHIVE = "(archive)"
LISTED = 100
_END, _END64, _LOCATOR = struct.Struct("<4s4H2IH"), struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")
_CENTRAL, _LOCAL = struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s5H3I2H")
_MOST_COMMENT = 0xFFFF
_SENTINEL = 0xFFFFFFFF
_ENCRYPTED, _PATCHED, _MASKED = 0x1 | 0x40, 0x20, 0x2000
_NEWEST = 63
_HEAD_INPUT = 1 << 16
# Small files may well shrink a thousandfold: only real sizes are held to the ratio.
_SMALL = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What an archive may hold, so that a small file cannot fill a disk, a memory or a day."""

    archive_bytes: int = 1 << 30
    unpacked_bytes: int = 4 << 30
    files: int = 200_000
    # With folders and what machines leave: macOS writes a second entry for each file.
    entries: int = 500_000
    directory_bytes: int = 64 << 20
    file_bytes: int = 64 << 20
    pixels: int = 50_000_000
    total_pixels: int = 20_000_000_000
    # Of a core, to decode every picture once.
    seconds: float = 600.0
    classes: int = 1000
    class_name: int = 64
    class_bytes: int = 200
    # Images hardly compress; a thousandfold ratio is a bomb. Bitmaps of one colour stay below this.
    ratio: float = 200.0
    # Of the pictures, so many may be left out where that was asked for.
    left_out: float = 0.1


class Problem(NamedTuple):
    """One thing that is wrong, and where."""

    file: str
    reason: str


class Refused(ValueError):  # noqa: N818
    """A set that is not taken; ``problems`` says why, by file, and ``total`` how many there are."""

    def __init__(self, problems: Sequence[Problem], total: int | None = None) -> None:
        self.total = total or len(problems)
        more = f" (and {self.total - 1} more)" if self.total > 1 else ""
        super().__init__(f"{problems[0].file}: {problems[0].reason}{more}")
        self.problems = list(problems[:LISTED])


def of_archive(reason: str) -> Refused:
    """The archive as a whole is refused."""
    return Refused([Problem(ARCHIVE, reason)])


@dataclass(frozen=True)
class Member:
    """One file of the archive: its name with slashes, whether that is its name, and where its bytes are."""

    name: str
    known: bool
    guessed: bool  # UTF-8 because it can be, not because the archive tells
    raw: bytes = field(repr=False)
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int
    needed: int


@dataclass(frozen=True)
class Archive:
    """An archive that was walked: its files, how many entries were passed over, and where its directory begins."""

    file: BinaryIO = field(repr=False)
    members: tuple[Member, ...]
    skipped: int
    directory: int
    folders: tuple[str, ...] = ()  # that have an entry of their own, which may be empty
    hidden: tuple[str, ...] = ()  # folders of pictures that are passed over

    def read(self, member: Member) -> bytes:
        """The whole content. Raises Damaged, and Refused where it is more than the directory tells."""
        content = self._unpacked(member, member.packed, member.size + 1)
        if len(content) > member.size:
            raise Refused([Problem(member.name, f"unpacks to more than the {member.size} bytes that are told")])
        if len(content) < member.size:
            raise Damaged("cannot be unpacked: it is cut short")
        if zlib.crc32(content) != member.crc:
            raise Damaged("cannot be unpacked: Bad CRC-32, its bytes have changed since it was packed")
        return content

    def head(self, member: Member) -> bytes:
        """Its first bytes, as many as tell a kind of picture; none where they cannot be read."""
        if member.method not in READ or member.flags & (_ENCRYPTED | _PATCHED):
            return b""
        try:
            return self._unpacked(member, min(member.packed, _HEAD_INPUT), kinds.HEAD_BYTES)
        except Damaged:
            return b""

    def _unpacked(self, member: Member, packed: int, most: int) -> bytes:
        self.file.seek(member.offset)
        header = self.file.read(_LOCAL.size)
        if len(header) < _LOCAL.size or header[:4] != b"PK\3\4":
            raise Damaged("cannot be unpacked: no file begins where the directory says")
        *_, name_bytes, extra_bytes = _LOCAL.unpack(header)
        if self.file.read(name_bytes) != member.raw:
            raise Damaged("cannot be unpacked: the directory calls it otherwise than the file itself")
        begins = member.offset + _LOCAL.size + name_bytes + extra_bytes
        if begins + member.packed > self.directory:
            raise Damaged("cannot be unpacked: it ends behind the archive's files")
        self.file.seek(begins)
        return unpack(member.method, self.file.read(packed), most)


@contextmanager
def opened(path: Path, limits: Limits) -> Iterator[Archive]:
    """An archive whose every entry was looked at, without unpacking one.

    Raises:
        Refused: no archive, more than the limits allow, entries that share bytes, lead out of their folder, or are no
            files.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start, length, count, shift = _directory(file, size)
        if count > limits.entries:
            raise of_archive(f"has {count} entries; at most {limits.entries} are allowed")
        if length > limits.directory_bytes:
            raise of_archive(f"has a directory of {length} bytes; at most {limits.directory_bytes} are allowed")
        yield _walked(file, start, length, shift, limits)


def _directory(file: BinaryIO, size: int) -> tuple[int, int, int, int]:
    """Where the directory begins, its bytes and entries as they are told, and how far the archive is moved by what
    stands before it, as a program that unpacks itself."""
    if not size:
        raise of_archive("is not a sound ZIP: it is empty")
    tail_start = max(0, size - _END.size - _MOST_COMMENT - _LOCATOR.size)
    file.seek(tail_start)
    tail = file.read()
    if (found := _end(tail)) is None:
        raise of_archive(_no_zip(file))
    _, disk, first_disk, _, count, length, offset, _ = _END.unpack(tail[found : found + _END.size])
    end = tail_start + found
    if end >= _LOCATOR.size:
        file.seek(end - _LOCATOR.size)
        sign, _, told_at, disks = _LOCATOR.unpack(file.read(_LOCATOR.size))
        if sign == b"PK\6\7":
            if disks > 1:
                raise of_archive("is one part of several: join them first")
            end, count, length, offset = _ending64(file, (end - _LOCATOR.size - _END64.size, told_at))
            disk = first_disk = 0
    if disk or first_disk:
        raise of_archive("is one part of several: join them first")
    start = end - length
    if start < 0 or start < offset:
        raise of_archive("is not a sound ZIP: its directory lies outside of it")
    return start, length, count, start - offset


def _end(tail: bytes) -> int | None:
    """Where the record of the end begins: one whose comment reaches to the file's very end, or else, before junk, the
    last. Raises Refused where there are several, since a comment may hold what looks like one."""
    starts = [one.start() for one in re.finditer(b"PK\5\6", tail) if len(tail) - one.start() >= _END.size]
    whole = [at for at in starts if at + _END.size + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail)]
    if len(whole) > 1:
        raise of_archive("has two ends, of which programs take the one or the other: pack it anew without a comment")
    return next(iter(whole or starts[-1:]), None)


def _no_zip(file: BinaryIO) -> str:
    file.seek(0)
    head = file.read(512)
    if head[:4] != b"PK\3\4" and (kind := kinds.archive(head)) is not None:
        return f"is {kind}: only ZIP archives and folders are read"
    if kinds.looks_like(head[: kinds.HEAD_BYTES]):
        return "is a picture: expected a ZIP archive, or a folder, of class folders"
    if head[:4] != b"PK\3\4" and (why := kinds.why_unread(head)) is not None:
        return why
    return "is not a sound ZIP: its end is missing, so it is another kind of file, or was cut short"


def _ending64(file: BinaryIO, places: Sequence[int]) -> tuple[int, int, int, int]:
    """The ZIP64 record of the end: where it is, and the directory's entries, bytes and place."""
    for place in places:
        if place < 0:
            continue
        try:
            file.seek(place)
        except (OSError, ValueError, OverflowError):
            continue
        record = file.read(_END64.size)
        if len(record) == _END64.size and record[:4] == b"PK\6\6":
            *_, count, length, offset = _END64.unpack(record)
            return place, count, length, offset
    raise of_archive("is not a sound ZIP: its ZIP64 end is missing")


def _walked(file: BinaryIO, start: int, length: int, shift: int, limits: Limits) -> Archive:
    """Read the directory entry by entry, keeping what can be a file of the set."""
    members: list[Member] = []
    problems: list[Problem] = []
    begins, ends = array("Q"), array("Q")
    named: set[str] = set()
    folders: list[str] = []
    hidden: dict[str, None] = {}
    skipped = 0
    file.seek(start)
    while length > 0:
        if len(begins) >= limits.entries:
            raise of_archive(f"has more than {limits.entries} entries")
        member, taken = _entry(file, shift)
        length -= taken
        begins.append(member.offset)
        ends.append(member.offset + _LOCAL.size + len(member.raw) + member.packed)
        if (reason := _dangerous(member)) is not None:
            problems.append(Problem(_shown(member.name), reason))
        elif member.name.endswith("/"):
            if member.known and not set_files.clutter(member.name):
                folders.append(member.name.strip("/"))
        elif set_files.clutter(member.name):
            skipped += 1
            if kinds.called_picture(member.name) and (above := set_files.hidden_above(member.name.split("/"))):
                hidden[above] = None
        elif member.name in named:
            problems.append(Problem(_shown(member.name), "is there twice, and programs take the one or the other"))
        else:
            named.add(member.name)
            members.append(member)
            if len(members) > limits.files:
                raise of_archive(f"holds more than {limits.files} files")
    if length < 0:
        raise of_archive("is not a sound ZIP: its directory is longer than it says")
    _check_apart(begins, ends, start)
    if problems:
        raise Refused(problems)
    if any(not member.known for member in members):
        # Where one name is of another encoding, those that could be UTF-8 are so by chance.
        members = [replace(member, known=member.known and not member.guessed) for member in members]
    return Archive(file, tuple(members), skipped, start, tuple(folders), tuple(hidden))


def _entry(file: BinaryIO, shift: int) -> tuple[Member, int]:
    """One entry of the directory, and its bytes there."""
    header = file.read(_CENTRAL.size)
    if len(header) < _CENTRAL.size or header[:4] != b"PK\1\2":
        raise of_archive("is not a sound ZIP: its directory is damaged")
    (_, made_by, needed, flags, method, _, _, crc, packed, size, names, extras, comments, _, _, external, offset) = (
        _CENTRAL.unpack(header)
    )
    rest = file.read(names + extras + comments)
    if len(rest) < names + extras + comments:
        raise of_archive("is not a sound ZIP: its directory is cut short")
    raw, extra = rest[:names], rest[names : names + extras]
    name, known, told = name_of(raw, flags, extra, made_by >> 8)
    size, packed, offset = _wide(extra, size, packed, offset)
    guessed, mode, needed = known and not told, external >> 16, needed & 0xFF
    member = Member(name, known, guessed, raw, flags, method, crc, packed, size, offset + shift, mode, needed)
    return member, _CENTRAL.size + len(rest)


def _wide(extra: bytes, *told: int) -> list[int]:
    """Sizes and place, those that do not fit 32 bits from ZIP64's extra field."""
    wide = next((content for number, content in fields(extra) if number == 1), b"")
    values = []
    for value in told:
        if value == _SENTINEL:
            if len(wide) < 8:
                raise of_archive("is not a sound ZIP: a ZIP64 entry lacks its sizes")
            value, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        # So that sums of them stay within 64 bits.
        values.append(min(value, 1 << 62))
    return values


def _dangerous(member: Member) -> str | None:
    """Why no archive with this entry is taken, wherever it stands."""
    name = member.name if member.known else member.raw.decode("latin-1").replace("\\", "/")
    # A colon is a letter like others but on Windows, where one may name a drive.
    if name.startswith("/") or re.match(r"[A-Za-z]:(/|[^/]*$)", name) or ".." in PurePosixPath(name).parts:
        return "leaves its folder: paths must be relative and without .."
    if "\0" in name:
        return "has a name with a zero byte in it"
    kind = stat.S_IFMT(member.mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device: only plain files are taken"
    return None


def _check_apart(begins: array[int], ends: array[int], directory: int) -> None:
    """Raises Refused if two entries share bytes, or one reaches into the directory."""
    if not begins:
        return
    first, last = np.asarray(begins, np.uint64), np.asarray(ends, np.uint64)
    order = np.argsort(first, kind="stable")
    first, last = first[order], last[order]
    if int(last.max()) > directory:
        raise of_archive("is not a sound ZIP: entries lie outside of it")
    if bool((last[:-1] > first[1:]).any()):
        raise of_archive("has entries that overlap: the same bytes are told to be several files")


def _shown(name: str) -> str:
    """A name as it can be told: a megabyte of it would be an answer of its own."""
    return name if len(name) <= 200 else f"{name[:200]}..."


def unreadable(member: Member, limits: Limits) -> str | None:
    """Why a file cannot be read, by its entry alone."""
    if not member.known:
        return (
            "has a name that is not ASCII, in an encoding that the archive does not tell: pack it anew with a tool "
            "that writes UTF-8 (7-Zip with -mcu=on, Info-ZIP 3, macOS, Windows 11), or rename it"
        )
    if member.flags & (_ENCRYPTED | _MASKED) or member.method == AES:
        return "is encrypted: pack it without a password"
    if member.flags & _PATCHED or member.needed > _NEWEST:
        needed = f"version {member.needed // 10}.{member.needed % 10}" if member.needed > _NEWEST else "patched data"
        return f"needs {needed} of the ZIP format, which is not read: pack it with Deflate"
    if member.method not in READ:
        told = METHODS.get(member.method, f"method {member.method}")
        return f"is compressed with {told}: expected Deflate, BZip2, LZMA, or stored as it is"
    if member.size > limits.file_bytes:
        return f"has {member.size} bytes; at most {limits.file_bytes} are allowed"
    if member.size > _SMALL and member.size > limits.ratio * max(member.packed, 1):
        return f"unpacks to more than {limits.ratio:.0f} times its size"
    return None


def entries(archive: Archive, limits: Limits, archive_bytes: int) -> list[set_files.Entry]:
    """The archive's files as those of a folder are read; of one that is no picture, only its first bytes are looked at.

    Raises:
        Refused: a picture, or what names pictures, cannot be read by its entry alone; or all of them are too much.
    """
    found, wanted = [], []
    for member in archive.members:
        entry = set_files.Entry(member.name, _later(archive.read, member), _later(archive.head, member))
        found.append(entry)
        if sets.counts(entry):
            wanted.append(member)
    problems = [Problem(_shown(one.name), why) for one in wanted if (why := unreadable(one, limits)) is not None]
    if problems:
        raise Refused(problems)
    total = sum(member.size for member in wanted)
    if total > limits.unpacked_bytes:
        raise of_archive(f"unpacks to {total} bytes; at most {limits.unpacked_bytes} are allowed")
    if total > limits.ratio * max(archive_bytes, 1):
        times = f"{total / archive_bytes:.0f} times its size; at most {limits.ratio:.0f} is allowed"
        raise of_archive(f"unpacks to {times}")
    return found


def _later(read: Callable[[Member], bytes], member: Member) -> Callable[[], bytes]:
    return lambda: read(member)
