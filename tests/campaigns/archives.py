"""Hostile archives: each is kept as it should be or refused with a sentence, and costs no more than it may."""

from __future__ import annotations

import io
import json
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import httpx
from PIL import Image

from benchmarks.serving import forget_peak, memory_mb
from tests.campaigns.journal import Journal
from tests.campaigns.serving import Serving, serving
from tests.ganserve.zips import Entry, archive, by_hand, picture

TITLE = "Hostile archives"
PROMISE = (
    "Archives by chance, kind after kind, given to `PUT /datasets/{name}`: each gets 201, 413 or 422 and nothing else, "
    "sound ones 201; what is refused leaves nothing on the disk; a directory costs 100 MiB at most and pictures 600; "
    "pictures are served meanwhile, and the log has no traceback."
)
CASES = 600
TAKEN = (201, 413, 422)
DIRECTORY_MIB, PICTURES_MIB = 100, 600
KINDS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")

Maker = Callable[[Random], bytes]


def sound(chance: Random, *, kinds: tuple[str, ...] = KINDS) -> dict[str, bytes]:
    """Files of a sound set."""
    found = {}
    for label in "abc"[: chance.randint(2, 3)]:
        for index in range(chance.randint(1, 8)):
            kind = chance.choice(kinds)
            found[f"{label}/{index}.{kind.lower()}"] = picture(chance.randrange(1000), chance.choice((8, 28, 33)), kind)
    return found


def mutated(chance: Random, content: bytes, start: int = 0) -> bytes:
    """Some bytes are others, or gone, or more."""
    made = bytearray(content)
    for _ in range(chance.choice((1, 2, 5, 20, 50))):
        at = chance.randrange(start, len(made))
        match chance.randrange(8):
            case 0:
                del made[at : at + chance.randint(1, 40)]
            case 1:
                made[at:at] = chance.randbytes(chance.randint(1, 40))
            case 2:
                made[at : at + 4] = struct.pack("<I", chance.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)))
            case _:
                made[at] = chance.randrange(256)
        if len(made) <= start + 1:
            break
    return bytes(made)


def whole(chance: Random) -> bytes:
    """Nothing is wrong."""
    return archive(sound(chance))


def bytes_(chance: Random) -> bytes:
    """A sound archive with other bytes anywhere."""
    return mutated(chance, whole(chance))


def directory(chance: Random) -> bytes:
    """A sound archive with other bytes in its directory."""
    made = whole(chance)
    return mutated(chance, made, made.find(b"PK\1\2"))


def cut(chance: Random) -> bytes:
    """Cut short, or pieces of several in a row."""
    made = whole(chance)
    pieces = [made[chance.randrange(len(made)) :], made[: chance.randrange(len(made))], chance.randbytes(50), made, b""]
    return b"".join(chance.choices(pieces, k=chance.randint(1, 3)))


def names(chance: Random) -> bytes:
    """Names that lead elsewhere, or are none."""
    parts = ["..", ".", "", "a", "C:", "\0", "\n", "\x1b[31m", "\u202e", "\U0001f600" * 70, "x" * 300, "con", " ", "~"]
    parts += ["%2e%2e", "dataset.json", ".samples.png", "train", "test", "é", "e\u0301", "__MACOSX", "<b>", "'\"", "ÿ"]
    entries = []
    for index in range(chance.randint(1, 12)):
        joined = chance.choice("//\\").join(chance.choices(parts, k=chance.randint(1, 5)))
        name = f"{joined}/{index}.png" if chance.random() < 0.8 else joined
        raw = name.encode(chance.choice(("utf-8", "utf-8", "utf-16-le", "cp437")), "replace")[:65000]
        mode = chance.choice((0o100644, 0o120777, 0o060666, 0o010666, 0o104777, 0o040755))
        entries.append(Entry(raw, picture(index), flags=chance.choice((0, 0x800)), mode=mode))
    return by_hand(*entries, Entry(b"a/ok.png", picture(1)))


def headers(chance: Random) -> bytes:
    """Entries whose headers are not true."""
    huge = (0, 1, 77, 1 << 16, (1 << 31) - 1, (1 << 32) - 1)
    entries = []
    for index in range(chance.randint(1, 6)):
        entry = Entry(f"a/{index}.png".encode(), picture(index))
        for _ in range(chance.randint(0, 3)):
            field = chance.choice(("flags", "method", "needed", "extra", "at", "packed", "size", "local"))
            values: dict[str, object] = {
                "flags": chance.choice((1, 0x20, 0x40, 0x41, 0x2000, chance.randrange(1 << 16))),
                "method": chance.choice((1, 6, 8, 9, 12, 14, 93, 99, 65535)),
                "needed": chance.choice((0, 45, 63, 99, 65535)),
                "extra": struct.pack("<HHQQ", 1, chance.choice((8, 16, 65535)), 1 << 60, 1 << 60),
                "at": chance.choice(huge),
                "packed": chance.choice(huge),
                "size": chance.choice(huge),
                "local": False,
            }
            setattr(entry, field, values[field])
        entries.append(entry)
    told = chance.choice((None, None, 0, 1, 65535))
    before, after = chance.choice((b"", b"MZ" + bytes(99))), chance.choice((b"", b"x"))
    return by_hand(*entries, count=told, before=before, after=after)


def many(chance: Random) -> bytes:
    """A directory of very many entries for one place, or none."""
    count = chance.choice((70_000, 300_000, 600_000, 1_000_000, 2_000_000))
    name = chance.choice((b"d/", b"a/1.png", b"__MACOSX/x"))
    content = b"" if name == b"d/" else chance.choice((b"", picture(1)))
    one = by_hand(Entry(name, content))
    split = one.find(b"PK\1\2")
    local, entry = one[:split], one[split : one.find(b"PK\5\6")]
    listed = entry * count
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(listed), len(local))
    end += struct.pack("<4sIQI", b"PK\6\7", 0, len(local) + len(listed), 1)
    limit = 0xFFFFFFFF
    return local + listed + end + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, limit, limit, 0)


def overlapping(chance: Random) -> bytes:
    """Entries that share bytes."""
    inner = picture(1, 28)
    entries = [Entry(b"a/0.png", inner)]
    for index in range(1, chance.choice((2, 50, 3000))):
        entries.append(Entry(f"a/{index}.png".encode(), inner, at=chance.choice((0, 0, 1, 30)), local=False))
    return by_hand(*entries)


def bombs(chance: Random) -> bytes:
    """Little that unpacks to much."""
    method = chance.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    size, count = chance.choice(((1 << 27, 1), (1 << 23, 12), (1 << 20, 150)))
    files = {f"a/{index}.png": bytes(size) for index in range(count)}
    made = archive(files, method)
    if chance.random() < 0.3:
        made = archive({"a/1.png": made, "a/2.zip": made})
    return made


def damaged(chance: Random) -> bytes:
    """A sound archive of pictures with other bytes in them."""
    files = sound(chance)
    return archive({name: mutated(chance, content) for name, content in files.items()} | {"a/ok.png": picture(1)})


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def sizes(chance: Random) -> bytes:
    """PNGs that say they are large, or unpack to much, in pixels or in text."""
    large = (0, 1, 8, 4000, 7071, 50_000, 1 << 24, 0x7FFFFFFF, 0xFFFFFFFF)
    width, height = chance.choice(large), chance.choice(large)
    depth, colour = chance.choice(((8, 0), (8, 2), (16, 6), (1, 3), (8, 6), (16, 0)))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, chance.choice((0, 1))))
    text = zlib.compress(bytes(chance.choice((10, 1 << 20, 1 << 27))), 9)
    more = chance.choice((b"", chunk(b"zTXt", b"k\0\0" + text), chunk(b"iCCP", b"k\0\0" + text), chunk(b"eXIf", text)))
    needed = min(height * (1 + width * depth * 4 // 8), 1 << 27)
    length = chance.choice((needed, needed, 0, 1 << 26))
    made = b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(bytes(length), 9)) + chunk(b"IEND", b"")
    return archive({f"a/{index}.png": made for index in range(chance.choice((1, 3)))} | {"b/ok.png": picture(1)})


def moving(chance: Random) -> bytes:
    """Pictures of very many frames, or of a large screen."""
    kind = chance.choice(("GIF", "WEBP", "PNG"))
    side, count = chance.choice(((8, 800), (64, 200), (1500, 12)))
    frames = [Image.new("P", (side, side), index % 256) for index in range(count)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    screen = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
    return archive({f"a/1.{kind.lower()}": buffer.getvalue(), "a/2.gif": screen, "b/ok.png": picture(1)})


def strangers(chance: Random) -> bytes:
    """Files of another kind under a picture's name."""
    found = [
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"<html><script>alert(1)</script>",
        b"#!/bin/sh",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"II*\0" + b"\xff" * 200,
        b"8BPS" + bytes(200),
        b"\0\0\0\0\x11\xaf" + bytes(200),
        b"%PDF-1.7",
        b"\x7fELF",
        b"PK\3\4",
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\xff\xff\xff\xffWEBP",
        b"BM"
        + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 100_000, -100_000, 1, 24, *[0] * 6),
    ]
    files = {f"a/{index}.{chance.choice(KINDS).lower()}": chance.choice(found) for index in range(chance.randint(1, 4))}
    return archive(files | {"b/ok.png": picture(1)})


def lists(chance: Random) -> bytes:
    """Lists of pictures and their classes that do not fit the pictures, or are none."""
    files = {f"{index}.png": picture(index) for index in range(4)}
    value = chance.choice(["a", "../a", "", "a" * 5000, "\0", "1e400", "NaN", "-1", "é"])
    rows = [f"{name},{chance.choice([value, 'b'])}" for name in (*files, "nothing.png", "../../x.png", "/etc/passwd")]
    chance.shuffle(rows)
    text = "\n".join([chance.choice(["file_name,label", "file_name", "label,label", "filename,class", ""]), *rows])
    told = [chance.choice([{"file_name": name, "label": value}, [name], {name: 1}, None]) for name in files]
    lines = [json.dumps(row) for row in told]
    listed = chance.choice((text.encode(), "\n".join(lines).encode(), text.encode("utf-16"), chance.randbytes(300)))
    return archive(files | {chance.choice(("metadata.csv", "metadata.jsonl", "train/metadata.csv")): listed})


def classes(chance: Random) -> bytes:
    """Very many classes, or classes that are alike."""
    count = chance.choice((1, 999, 1000, 1001, 1500))
    alike = {"a/1.png": picture(1), "A/1.PNG": picture(2), "é/1.png": picture(3), "e\u0301/1.png": picture(4)}
    return archive(alike if chance.random() < 0.3 else {f"c{index}/1.png": picture(1) for index in range(count)})


def noise(chance: Random) -> bytes:
    """No archive at all."""
    return chance.randbytes(chance.choice((0, 1, 21, 22, 23, 1000, 100_000)))


MAKERS: tuple[Maker, ...] = (
    whole,
    bytes_,
    directory,
    cut,
    names,
    headers,
    many,
    overlapping,
    bombs,
    damaged,
    sizes,
    moving,
    strangers,
    lists,
    classes,
    noise,
)
OF_DIRECTORY = (directory, headers, many, overlapping, noise)


def run(journal: Journal, folder: Path) -> None:
    """One archive after the other, while pictures are asked for."""
    with serving(folder, "--max-upload-seconds", "60") as running:
        expected = running.image()
        told = ""
        for number in journal.open():
            maker, chance = MAKERS[number % len(MAKERS)], journal.random(number)
            forget_peak(running.process.pid)
            before = memory_mb(running.process.pid, "VmHWM")
            status, seconds, wrong = _upload(running, maker(chance), chance.choice(("", "?skip=invalid")), expected)
            grown = memory_mb(running.process.pid, "VmHWM") - before
            log = running.told()
            reasons = [
                wrong,
                "" if status in TAKEN else f"answered with {status}",
                "" if maker is not whole or status == 201 else "a sound archive is refused",
                "" if grown <= (DIRECTORY_MIB if maker in OF_DIRECTORY else PICTURES_MIB) else f"took {grown:.0f} MiB",
                log if log != told else "",
            ]
            told = log
            broken = "; ".join(filter(None, reasons))
            journal.add((maker.__doc__ or "").rstrip("."), status, broken, mib=round(grown), seconds=round(seconds, 2))


def _upload(running: Serving, content: bytes, query: str, expected: bytes) -> tuple[int, float, str]:
    """Its status, the seconds that it took, and what was wrong on the way."""
    wrong: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        while True:
            try:
                if running.image() != expected:
                    wrong.append("another picture was served meanwhile")
            except (AssertionError, httpx.HTTPError) as error:
                wrong.append(f"no picture was served meanwhile: {error!r}")
            if ended.wait(0.05):
                return

    asking = threading.Thread(target=ask)
    asking.start()
    began = time.monotonic()
    try:
        answer = running.client.put(
            f"/datasets/hostile{query}",
            content=content,
            headers={"Content-Type": "application/zip"},
            timeout=300,
        )
        status = answer.status_code
    except httpx.HTTPError as error:
        return 0, time.monotonic() - began, repr(error)
    finally:
        ended.set()
        asking.join()
    seconds = time.monotonic() - began
    if status == 201:
        kept = answer.json()
        if not sum(kept["classes"].values()) == kept["images"] > 0:
            wrong.append("what is kept does not add up")
        if running.client.delete("/datasets/hostile").status_code != 204:
            wrong.append("what is kept cannot be removed")
    elif not answer.json().get("detail"):
        wrong.append("no reason is given")
    left = [str(path) for path in (running.data / "datasets").glob("*")] if running.data.exists() else []
    if left:
        wrong.append(f"left on the disk: {left}")
    return status, seconds, "; ".join(wrong[:3])
