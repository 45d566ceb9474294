"""A ZIP of class folders is kept whole, or refused whole with the reason by file."""

import errno
import hashlib
import io
import stat
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from PIL import Image

from ganserve import sets
from ganserve.archives import Limits
from service.uploads import (
    DiskFull,
    InvalidName,
    InvalidUpload,
    NameTaken,
    TooLarge,
    UnknownDataset,
    Upload,
    Uploads,
)


def picture(colour: int = 0, size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, colour).save(buffer, kind)
    return buffer.getvalue()


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for path, content in members.items():
            opened.writestr(path, content)
    return buffer.getvalue()


GOOD = {"cat/a.png": picture(1), "cat/b.jpg": picture(2, kind="JPEG"), "dog/a.png": picture(3)}


def keep(root: Path, content: bytes, name: str = "pets", limits: Limits | None = None) -> Upload:
    uploads = Uploads(root, limits or Limits())
    with uploads.staging() as staging:
        path = staging / "upload.zip"
        path.write_bytes(content)
        return uploads.keep(name, path, staging)


@contextmanager
def refused(root: Path, *words: str) -> Iterator[None]:
    with pytest.raises(InvalidUpload) as caught:
        yield
    told = " | ".join(f"{problem.file}: {problem.reason}" for problem in caught.value.problems)
    for word in words:
        assert word in told
    assert list(root.iterdir()) == [], "nothing is kept of a refused upload"


def test_class_folders_become_a_data_set(tmp_path: Path) -> None:
    upload = keep(tmp_path, archive(GOOD))
    assert upload.classes == {"cat": 2, "dog": 1}
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("0*.*g")) == [
        "pets/cat/000001.png",
        "pets/cat/000002.jpg",
        "pets/dog/000001.png",
    ]
    assert (tmp_path / "pets/dog/000001.png").read_bytes() == GOOD["dog/a.png"]
    assert Uploads(tmp_path).list() == [upload]


def test_a_folder_that_was_zipped_whole_and_desktop_clutter_are_understood(tmp_path: Path) -> None:
    members = {f"my pets/{path}": content for path, content in GOOD.items()}
    members |= {
        "__MACOSX/my pets/cat/._a.png": b"x",
        "my pets/.DS_Store": b"x",
        "my pets/cat/Thumbs.db": b"x",
    }
    assert keep(tmp_path, archive(members)).classes == {"cat": 2, "dog": 1}


@pytest.mark.parametrize(
    "path", ["../../evil.png", "cat/../../evil.png", "/etc/evil.png", "cat\\..\\evil.png", "C:/cat/evil.png"]
)
def test_no_path_leaves_its_folder(tmp_path: Path, path: str) -> None:
    root = tmp_path / "inside"
    root.mkdir()
    with refused(root, "leaves its folder"):
        keep(root, archive({**GOOD, path: picture()}))
    assert list(tmp_path.rglob("evil*")) == []


def test_links_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
    with refused(tmp_path, "cat/link.png: is a link"):
        keep(tmp_path, buffer.getvalue())


def test_archives_in_archives_and_other_files_never_count_and_are_told(tmp_path: Path) -> None:
    upload = keep(tmp_path, archive({**GOOD, "cat/more.zip": archive(GOOD), "dog/notes.txt": b"x", "README": b"x"}))
    assert upload.classes == {"cat": 2, "dog": 1}
    assert upload.report is not None
    assert upload.report["skipped"] == {"archive": 1, "no picture": 2}


def test_every_image_that_cannot_be_decoded_is_listed(tmp_path: Path) -> None:
    broken = {"cat/cut.png": picture()[:41], "dog/text.png": b"no image", "dog/zip.png": archive(GOOD)}
    with refused(tmp_path, "cat/cut.png: cannot", "dog/text.png: cannot", "dog/zip.png: cannot"):
        keep(tmp_path, archive({**GOOD, **broken}))


def test_the_suffix_is_not_believed_and_the_content_names_what_is_kept(tmp_path: Path) -> None:
    frames = io.BytesIO()
    phone = Image.new("RGB", (16, 16), "red")
    phone.save(frames, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    kinds = {
        "cat/1.png": picture(kind="JPEG"),
        "cat/2.jfif": picture(kind="JPEG"),
        "cat/3.JPE": picture(kind="JPEG"),
        "cat/4.tif": picture(kind="TIFF"),
        "cat/5": picture(),
        "cat/6.jpg": frames.getvalue(),
        "cat/7.png": picture(kind="WEBP"),
        "cat/8.dat": picture(kind="GIF"),
        "cat/9.jpeg": picture(kind="PPM"),
    }
    assert keep(tmp_path, archive({**kinds, "dog/1.bmp": picture(kind="BMP")})).classes == {"cat": 9, "dog": 1}
    found = [path.name[5:] for path in sorted((tmp_path / "pets/cat").iterdir())]
    assert found == ["1.jpg", "2.jpg", "3.jpg", "4.tif", "5.png", "6.jpg", "7.webp", "8.gif", "9.ppm"]


def test_pixels_are_counted_before_they_are_decoded(tmp_path: Path) -> None:
    with refused(tmp_path, "cat/big.png: has 6000 x 6000 pixels"):
        big = bytearray(picture())
        big[16:24] = (6000).to_bytes(4, "big") * 2
        import zlib

        big[29:33] = zlib.crc32(big[12:29]).to_bytes(4, "big")
        keep(tmp_path, archive({"cat/big.png": bytes(big)}), limits=Limits(pixels=16_000_000))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(files=2), "holds more than 2 files"),
        (Limits(entries=2), "has 3 entries"),
        (Limits(directory_bytes=20), "has a directory of"),
        (Limits(total_pixels=150), "more than 150 pixels in all"),
        (Limits(seconds=0), "seconds of a core"),
        (Limits(unpacked_bytes=100), "unpacks to"),
        (Limits(classes=1), "more than 1 classes"),
        (Limits(file_bytes=10), "at most 10 are allowed"),
        (Limits(pixels=63), "8 x 8 pixels"),
        (Limits(ratio=0.1), "times its size"),
    ],
)
def test_each_cap_holds(tmp_path: Path, limits: Limits, words: str) -> None:
    with refused(tmp_path, words):
        keep(tmp_path, archive(GOOD), limits=limits)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with refused(tmp_path, "times its size"):
        keep(tmp_path, archive({"cat/bomb.png": bytes(20 << 20)}))


@pytest.mark.parametrize(
    "content",
    [b"", b"no zip", archive(GOOD)[:-30], archive({}), archive({"a.png": b"x"})[:40]],
    ids=["nothing", "no zip", "cut short", "empty", "cut in a file"],
)
def test_what_is_no_sound_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    with refused(tmp_path, "(archive): "):
        keep(tmp_path, content)


def test_damaged_content_is_listed_by_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as opened:
        opened.writestr("cat/a.png", picture())
    content = bytearray(buffer.getvalue())
    content[60] ^= 0xFF
    with refused(tmp_path, "cat/a.png: cannot be unpacked: Bad CRC-32"):
        keep(tmp_path, bytes(content))


@pytest.mark.parametrize(
    "path",
    ["\u200b\x07/a.png", "\u200b/a.png", "a\u202eb/a.png", " /a.png", f"{'x' * 65}/a.png", f"{'😀' * 51}/a.png",
     "dataset.json/a.png"],
)
def test_a_class_name_that_cannot_be_used_is_refused(tmp_path: Path, path: str) -> None:
    with refused(tmp_path, "has an unusable class name"):
        keep(tmp_path, archive({**GOOD, path: picture()}))


@pytest.mark.parametrize(
    "paths",
    [
        ["data/train/cat/1.png", "data/train/dog/1.png", "data/test/cat/1.png", "data/val/dog/1.png"],
        ["pets\\cat\\1.png", "pets\\dog\\deep\\1.png"],
        ["10/1.png", "9/1.png", "9/2.png"],
        ["only/1.png"],
        ["train/cat/1.png", "train/dog/1.png"],
    ],
)
def test_what_is_kept_is_read_by_training_as_it_was_told(tmp_path: Path, paths: list[str]) -> None:
    members = {path: picture(index) for index, path in enumerate(paths)}
    upload = keep(tmp_path, archive(members))
    kept = sets.lay_out(sets.folder_entries(tmp_path / "pets"))
    labels = kept.labels or ()
    assert {name: labels.count(index) for index, name in enumerate(kept.classes)} == upload.classes
    assert dict(kept.skipped) == {}, "what stands beside the pictures is no part of the set"
    assert len(kept.pictures) == len(paths)
    if "val" in paths[-1]:
        assert sorted(kept.splits or ()) == ["test", "train", "train", "validation"]


@pytest.mark.parametrize(("one", "other"), [("test", "train"), ("images", "masks")])
def test_classes_that_a_folder_would_take_for_something_else_are_refused(tmp_path: Path, one: str, other: str) -> None:
    table = f"file_name,label\n1.png,{one}\n2.png,{other}\n".encode()
    with refused(tmp_path, f"stand for something else in a folder: {one}, {other}; rename them"):
        keep(tmp_path, archive({"1.png": picture(1), "2.png": picture(2), "metadata.csv": table}))


def test_pictures_that_cannot_be_decoded_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    members = {f"cat/{index}.png": picture(index) for index in range(20)} | {"cat/cut.png": picture()[:41]}
    with refused(tmp_path, "cat/cut.png: cannot"):
        keep(tmp_path, archive(members))
    uploads = Uploads(tmp_path)
    with uploads.staging() as staging:
        path = staging / "upload.zip"
        path.write_bytes(archive(members))
        upload = uploads.keep("pets", path, staging, skip_invalid=True)
    assert upload.images == 20
    assert [one.file for one in upload.left_out] == ["cat/cut.png"]
    assert uploads.get("pets") == upload


def test_what_was_read_and_learnt_of_a_set_goes_with_it(tmp_path: Path) -> None:
    root = tmp_path / "datasets"
    keep(root, archive(GOOD))
    keep(root, archive(GOOD), name="others")
    places = {name: str((root / name).resolve()) for name in ("pets", "others")}
    marks = {name: hashlib.sha256(place.encode()).hexdigest()[:16] for name, place in places.items()}
    for name in marks:
        for place in (f"pictures/{marks[name]}-1.npz", f"judges/{marks[name]}-2.safetensors", "judges/mnist.json"):
            (tmp_path / place).parent.mkdir(exist_ok=True)
            (tmp_path / place).write_bytes(b"x")
    Uploads(root).delete("pets")
    left = sorted(path.name for place in ("pictures", "judges") for path in (tmp_path / place).iterdir())
    assert left == sorted([f"{marks['others']}-1.npz", f"{marks['others']}-2.safetensors", "mnist.json"])
    assert [path.name for path in root.iterdir()] == ["others"]


@pytest.mark.parametrize("name", ["", "Pets", "../pets", ".pets", "a" * 64, "digits"])
def test_a_name_that_cannot_be_used_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidName):
        keep(tmp_path, archive(GOOD), name=name)


def test_a_kept_data_set_is_never_replaced_silently(tmp_path: Path) -> None:
    keep(tmp_path, archive(GOOD))
    with pytest.raises(NameTaken, match="DELETE it first"):
        keep(tmp_path, archive({"bird/a.png": picture()}))
    uploads = Uploads(tmp_path)
    assert uploads.get("pets").classes == {"cat": 2, "dog": 1}
    uploads.delete("pets")
    assert keep(tmp_path, archive({"bird/a.png": picture()})).classes == {"bird": 1}


def test_deleting_what_is_not_there_says_so(tmp_path: Path) -> None:
    for name in ("pets", "../pets", "."):
        with pytest.raises(UnknownDataset):
            Uploads(tmp_path).delete(name)


def test_a_body_is_cut_off_at_the_limit(tmp_path: Path) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield bytes(1000)

    uploads = Uploads(tmp_path, Limits(archive_bytes=5000))
    with uploads.staging() as staging, pytest.raises(TooLarge):
        anyio.run(uploads.receive, body(), staging)
    assert read == 6
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    with pytest.raises(DiskFull, match="nothing of the archive is kept"), uploads.staging():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PermissionError), uploads.staging():
        raise PermissionError(errno.EACCES, "not yours")


def test_a_job_can_be_trained_on_what_is_built_in_uploaded_or_named_with_its_owner(tmp_path: Path) -> None:
    keep(tmp_path, archive(GOOD))
    uploads = Uploads(tmp_path)
    assert [uploads.untrainable(name) for name in ("digits", "pets", "owner/name")] == [None] * 3
    assert "PUT /datasets/cats first" in str(uploads.untrainable("cats"))
