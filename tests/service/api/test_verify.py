"""Whether a picture is what stands at its address; everything in it may be hostile."""

from __future__ import annotations

import io
import json
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from ganserve import carried, marks, png
from ganserve.repository import Repository
from ganserve.settings import Settings
from service.app import create_app
from service.morph import animate
from tests.service.conftest import ADMIN, USER, Dummies, Serve
from tests.tiny import SIDE, publish

SHIPPED = Path(__file__).parents[3] / "models"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The application on the shipped models, of which one is exact."""
    settings = Settings(models=SHIPPED, data=tmp_path_factory.mktemp("var"), device="cpu", lanes=2)
    with TestClient(create_app(settings)) as client:
        yield client


def verdict(client: TestClient, content: bytes, query: str = "") -> dict[str, Any]:
    answer = client.post(f"/verify?{query}" if query else "/verify", content=content)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def refused(client: TestClient, content: bytes, status: int, query: str = "") -> str:
    answer = client.post(f"/verify?{query}" if query else "/verify", content=content)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    detail: str = answer.json()["detail"]
    assert "\n" not in detail
    assert len(detail) < 400
    return detail


def redrawn(content: bytes, change: int = 0) -> bytes:
    """As another program saves it: without a word, and with as many pixels changed."""
    image = np.asarray(Image.open(io.BytesIO(content))).copy()
    image.reshape(-1)[:change] ^= 0x80
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def tampered(content: bytes) -> bytes:
    """The picture with its mark, and one pixel changed."""
    found = carried.read(content, max_pixels=1 << 26)
    image = np.asarray(Image.open(io.BytesIO(found.bare))).copy()
    image.reshape(-1)[5] ^= 1
    return png.encode(image[..., None], found.texts, marks.PNG)


PICTURES = [
    "/images/mnist-projgan/5/3/42.png",
    "/images/mnist-projgan/1/3/42.png",
    "/images/mnist-dcgan-gap/1/-/42.png",
    "/images/cifar10-projgan/1/horse/7.png",
    "/generate?n=16&seed=42",
    "/generate?label=3&n=5&seed=9007199254740990&columns=2&padding=0&scale=3",
    "/generate?label=3,1&seeds=5,7,6&format=webp",
    "/generate?model=cifar10-projgan&label=horse,cat&n=7&seed=1&columns=7&format=webp&scale=2",
    "/generate?n=300&seed=1",
]


@pytest.mark.parametrize("place", PICTURES)
def test_every_picture_of_this_service_matches_at_the_address_that_it_carries(shipped: TestClient, place: str) -> None:
    content = shipped.get(place).content
    told = verdict(shipped, content)
    assert (told["verdict"], told["differing_pixels"], told["exact"]) == ("match", 0, True)
    # The address is one: what stands there is the very picture.
    again = shipped.get(told["address"] + ("&format=webp" if "webp" in place else ""))
    assert again.content == content


def test_the_address_that_the_page_on_marks_shows_is_carried_by_its_picture(shipped: TestClient) -> None:
    page = (SHIPPED.parent / "docs" / "marks.md").read_text(encoding="utf-8")
    (line,) = [line.strip() for line in page.splitlines() if line.startswith("    model=")]
    asked = "model=mnist-projgan&version=5&label=3&seed=42&n=16&columns=8&padding=2&scale=4"
    content = shipped.get(f"/generate?{asked}").content
    assert carried.read(content, max_pixels=1 << 26).texts["Address"] == line


def test_the_answer_that_the_page_on_calls_shows_is_that_of_its_picture(shipped: TestClient) -> None:
    page = (SHIPPED.parent / "docs" / "api.md").read_text(encoding="utf-8")
    (line,) = [line.strip() for line in page.splitlines() if line.startswith('    {"verdict"')]
    assert json.loads(line) == verdict(shipped, shipped.get("/images/mnist-projgan/1/3/42.png").content)


def test_one_pixel_changed_is_told(shipped: TestClient) -> None:
    for place in PICTURES[0], PICTURES[4]:
        told = verdict(shipped, tampered(shipped.get(place).content))
        assert (told["verdict"], told["differing_pixels"], told["exact"]) == ("differs", 1, False)


@pytest.mark.parametrize(
    ("place", "address"),
    [
        ("/images/mnist-projgan/5/3/42.png", "model=mnist-projgan&version=5&label=3&seed=42"),
        ("/generate?version=5&n=16&seed=42", "model=mnist-projgan&version=5&n=16&seed=42"),
        ("/generate?version=5&label=3&n=4&seed=42&scale=2&padding=0", "version=5&label=3&n=4&seed=42"),
        ("/generate?seed=42", "seed=42"),
    ],
)
def test_a_stripped_picture_is_unmarked_and_found_by_its_address(shipped: TestClient, place: str, address: str) -> None:
    content = shipped.get(place).content
    for change in (0, 3):
        bare = redrawn(content, change)
        told = verdict(shipped, bare)
        assert (told["verdict"], told["address"], told["differing_pixels"]) == ("unmarked", None, None)
        assert "seed" in told["note"]
        told = verdict(shipped, bare, address)
        assert (told["verdict"], told["differing_pixels"]) == ("differs" if change else "match", change)


def test_the_address_that_is_given_counts_and_not_the_one_that_is_carried(shipped: TestClient) -> None:
    content = shipped.get(PICTURES[0]).content
    told = verdict(shipped, content, "model=mnist-projgan&version=5&label=3&seed=43")
    assert told["verdict"] == "differs"
    assert told["address"] == "/images/mnist-projgan/5/3/43.png"


def test_a_float_version_of_another_processor_is_never_accused(shipped: TestClient) -> None:
    content = shipped.get("/images/mnist-projgan/1/3/42.png").content
    image = np.asarray(Image.open(io.BytesIO(content))).copy()
    bright = image > 100
    image[bright] -= np.uint8(1)
    told = verdict(shipped, redrawn(png.encode(image[..., None])), "version=1&label=3&seed=42")
    assert (told["verdict"], told["differing_pixels"], told["exact"]) == ("match", 0, False)
    # An exact version has no such excuse.
    exact = np.asarray(Image.open(io.BytesIO(shipped.get("/images/mnist-projgan/5/3/42.png").content))).copy()
    exact[exact > 100] -= np.uint8(1)
    told = verdict(shipped, png.encode(exact[..., None]), "version=5&label=3&seed=42")
    assert (told["verdict"], told["exact"]) == ("differs", False)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ((b"model=digits", b"model=nobody"), 404, "nobody"),
        ((b"version=1", b"version=9"), 404, "version 9"),
        ((b"graph=", b"graph=0123456789abcdef"), 404, "another server's model"),
        ((b"labels=2", b"labels=7"), 422, "no label 7"),
        ((b"padding=0", b"padding=1"), 422, "must give its size"),
        ((b"seed=42", b"seed=-2"), 422, "seed is '-2'"),
        ((b"model=digits", b"model=../../../etc/passwd"), 422, "is no name"),
        ((b"model=digits&", b""), 422, "no model and version"),
        ((b"seed=42", b"seed=42&n=1025"), 422, "at most 1024"),
        ((b"seed=42", b"seed=42&n=" + b"9" * 4000), 422, "whole number from 1"),
        ((b"seed=42", b"seed=42&n=65536&scale=32"), 422, "at most 1024"),
        ((b"padding=0", b"padding=0&shell=x"), 422, "no part of an address"),
    ],
)
def test_a_claim_that_cannot_be_is_refused_before_anything_is_made(
    serve: Serve, dummies: Dummies, change: tuple[bytes, bytes], status: int, words: str
) -> None:
    client = serve(open_engine=dummies)
    content = client.get("/images/digits/1/2/42.png").content
    address = carried.read(content, max_pixels=1 << 20).texts["Address"].encode()
    before = [engine.batches[:] for engine in dummies.made]
    old, new = change
    told = address[: address.index(b"graph=")] + new if old == b"graph=" else address.replace(old, new)
    assert told != address
    pixels = np.asarray(Image.open(io.BytesIO(content)))[..., None]
    assert words in refused(client, png.encode(pixels, {"Address": told.decode()}), status)
    assert [engine.batches for engine in dummies.made] == before


def test_a_version_that_was_removed_is_gone(serve: Serve, repository: Repository) -> None:
    publish(repository, "digits", seed=9)
    client = serve()
    content = client.get("/images/digits/1/2/42.png").content
    repository.remove("digits", 1)
    # Removed by another process, it is gone once the folder was looked at.
    until = time.monotonic() + 20
    while client.post("/verify", content=content).status_code == 200 and time.monotonic() < until:
        time.sleep(0.05)
    assert "removed" in refused(client, content, 410)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


HEADER = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
HUGE = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
END = chunk(b"IEND", b"")
MARK = chunk(b"tEXt", b"Address\0model=digits&version=1&labels=2&seed=42&padding=0")
BOMB = zlib.compress(bytes(1 << 28), 9)


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 422, "neither PNG nor WebP"),
        (b"\xff\xd8\xff\xe0 a photograph", 422, "neither PNG nor WebP"),
        (b'--x\r\nContent-Disposition: form-data; name="file"', 422, "neither PNG nor WebP"),
        (png.SIGNATURE, 422, "cut off"),
        (png.SIGNATURE + chunk(b"IHDR", HEADER) + MARK, 422, "cut off"),
        (png.SIGNATURE + END, 422, "cut off"),
        (png.SIGNATURE + chunk(b"IHDR", HEADER) + MARK + END, 422, "cannot be"),
        (png.SIGNATURE + chunk(b"IHDR", HEADER) + MARK + chunk(b"IDAT", b"no deflate") + END, 422, "cannot be decoded"),
        (png.SIGNATURE + chunk(b"IHDR", HUGE) + MARK + chunk(b"IDAT", BOMB) + END, 413, "60000 x 60000 pixels"),
        (png.SIGNATURE + chunk(b"IHDR", HEADER) + MARK + MARK + END, 422, "Address twice"),
        (b"RIFF\x04\0\0\0WEBP", 422, "no WebP"),
        (b"RIFF\xff\xff\xff\xffWEBPVP8L", 422, "cut off"),
        (animate(np.arange(3 * SIDE * SIDE, dtype=np.uint8).reshape(3, SIDE, SIDE, 1), "webp", 50), 422, "one still"),
    ],
)
def test_a_hostile_file_ends_in_one_sentence_at_once(
    client: TestClient, content: bytes, status: int, words: str
) -> None:
    began = time.process_time()
    assert words in refused(client, content, status)
    assert time.process_time() - began < 2


def test_a_picture_whose_pixels_go_on_for_ever_is_decoded_to_its_size_only(client: TestClient) -> None:
    bomb = png.SIGNATURE + chunk(b"IHDR", HEADER) + MARK + chunk(b"IDAT", BOMB) + END
    assert verdict(client, bomb)["verdict"] == "differs"


def test_texts_of_any_size_beside_the_address_are_passed_over(client: TestClient) -> None:
    content = client.get("/images/digits/1/2/42.png").content
    for other in (
        chunk(b"tEXt", b"Comment\0" + bytes(3 << 20)),
        chunk(b"zTXt", b"Comment\0\0" + BOMB),
        chunk(b"iTXt", b"Address\0\1\0\0\0" + BOMB),
        chunk(b"iCCP", b"profile\0\0" + BOMB),
    ):
        assert verdict(client, content[:33] + other + content[33:])["verdict"] == "match"


@pytest.mark.parametrize("told", [True, False])
def test_more_than_four_mebibytes_are_too_many_told_or_streamed(client: TestClient, told: bool) -> None:
    body = bytes(1 << 20)
    content: Any = body * 5 if told else (body for _ in range(5))
    answer = client.post("/verify", content=content)
    assert answer.status_code == 413
    assert "4194304" in answer.json()["detail"]


def test_more_pixels_than_the_service_makes_are_too_many(serve: Serve) -> None:
    content = serve().get("/generate?n=16&seed=1").content
    assert "at most 1000" in refused(serve(max_pixels=1000), content, 413)


def test_rows_wait_beside_everybody_else_s_and_too_many_are_429(serve: Serve, dummies: Dummies) -> None:
    client = serve(open_engine=dummies, max_queued_images=8, max_queued_images_total=8)
    content = client.get("/generate?n=8&seed=1").content
    for engine in dummies.made:
        engine.gate.clear()
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(client.post, "/verify", content=content) for _ in range(4)]
        while not any(one.done() for one in asked):
            time.sleep(0.01)
        refusal = next(one.result() for one in asked if one.done())
        assert refusal.status_code == 429
        assert int(refusal.headers["retry-after"]) >= 1
        for engine in dummies.made:
            engine.gate.set()
        answers = [one.result() for one in asked]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(answer.json()["verdict"] == "match" for answer in answers if answer.status_code == 200)


def test_it_is_for_those_who_may_generate(serve: Serve) -> None:
    from pydantic import SecretStr

    client = serve(token=SecretStr("user-secret"))
    content = client.get("/images/digits/1/2/42.png", headers=USER).content
    assert client.post("/verify", content=content).status_code == 401
    for token in (USER, ADMIN):
        assert client.post("/verify", content=content, headers=token).json()["verdict"] == "match"


def test_any_content_type_will_do(client: TestClient) -> None:
    content = client.get("/images/digits/1/2/42.png").content
    for kind in ("image/png", "application/x-www-form-urlencoded", "image/png; charset=utf-16", ""):
        answer = client.post("/verify", content=content, headers={"Content-Type": kind})
        assert answer.json()["verdict"] == "match", answer.text


def test_a_single_image_from_before_there_were_marks_is_known_by_its_texts(client: TestClient) -> None:
    found = carried.read(client.get("/images/digits/1/2/42.png").content, max_pixels=1 << 20)
    pixels = np.asarray(Image.open(io.BytesIO(found.bare)))[..., None]
    old = {name: text for name, text in found.texts.items() if name != "Address"}
    told = verdict(client, png.encode(pixels, old))
    assert (told["verdict"], told["address"]) == ("match", "/images/digits/1/2/42.png")
    del old["X-Label"]
    assert verdict(client, png.encode(pixels, old))["verdict"] == "unmarked"
