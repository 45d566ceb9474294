"""Calls of those who run a service: jobs, uploads, promotions, tokens."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from benchmarks.unmoved.checkout import ADMIN, USER
from benchmarks.unmoved.recorder import Recorder

TIMES = ("created_at", "started_at", "finished_at")
JOB = {"model": "letters", "recipe": "cgan", "dataset": "digits", "images": 640, "seed": 3}
ZIP = "application/zip"


def jobs(recorder: Recorder) -> None:
    """``/jobs`` without a worker: asked for, looked at, cancelled."""
    ask = recorder.ask
    new = (*TIMES, "worker")
    ask("GET", "/jobs", admin=True)
    first = ask("POST", "/jobs", JOB, admin=True, hide=new, Idempotency_Key="first").json["id"]
    ask("POST", "/jobs", JOB, admin=True, hide=new, Idempotency_Key="first")
    ask("POST", "/jobs", {**JOB, "seed": 4}, admin=True, Idempotency_Key="first")
    whole = {**JOB, "init": "live", "promote": "never", "overrides": {"batch": 32, "lr_g": 0.001}}
    ask("POST", "/jobs", whole, admin=True, hide=new, Idempotency_Key="second")
    unnamed = recorder.send("POST", "/jobs", json.dumps(JOB).encode(), _admin()).json["id"]
    recorder.drawn.append(unnamed)
    drawn = {key: value for key, value in JOB.items() if key != "seed"}
    ask("POST", "/jobs", drawn, admin=True, hide=(*new, "seed"), Idempotency_Key="third")
    for wrong in (
        {},
        {**JOB, "recipe": "nothing"},
        {**JOB, "overrides": {"speed": 9, "batch": 1, "lr_g": "x", "ema": 2, "width": True}},
        {**JOB, "overrides": {"batch": 2.5}},
        {**JOB, "dataset": "not-uploaded"},
        {**JOB, "dataset": "../up"},
        {**JOB, "images": 0},
        {**JOB, "model": "Big Letters"},
        {**JOB, "seed": -1},
        {**JOB, "init": "best", "promote": "maybe"},
        {**JOB, "more": 1},
    ):
        ask("POST", "/jobs", wrong, admin=True, Idempotency_Key="wrong")
    ask("POST", "/jobs", b"{", admin=True, Content_Type="application/json")
    ask("POST", "/jobs", JOB, admin=True, Idempotency_Key="k" * 256)
    for path in (f"/jobs/{first}", f"/jobs/{unnamed}"):
        ask("GET", path, admin=True, hide=new)
        ask("GET", f"{path}/samples.png", admin=True)
        ask("DELETE", path, admin=True, hide=new)
        ask("DELETE", path, admin=True, hide=new)
        ask("GET", path, admin=True, hide=new)
        ask("GET", f"{path}/events", admin=True)
    ask("GET", f"/jobs/{first}/samples.png?kind=same-noise", admin=True)
    ask("GET", f"/jobs/{first}/samples.png?kind=old", admin=True)
    for query in ("", "?state=queued", "?state=cancelled&limit=1", "?limit=2&offset=1"):
        ask("GET", f"/jobs{query}", admin=True, hide=(*new, "seed"))
    for query in ("state=lost", "limit=0", "limit=101", "offset=-1"):
        ask("GET", f"/jobs?{query}", admin=True)
    for path in ("/jobs/nothing", "/jobs/nothing/events", "/jobs/nothing/samples.png"):
        ask("GET", path, admin=True)
    ask("DELETE", "/jobs/nothing", admin=True)
    for method, path in (("POST", "/jobs"), ("GET", "/jobs"), ("GET", f"/jobs/{first}"), ("DELETE", f"/jobs/{first}")):
        ask(method, path, JOB if method == "POST" else None)
        ask(method, path, JOB if method == "POST" else None, Authorization="Bearer wrong")
    ask("GET", "/jobs", Authorization=f"Basic {ADMIN}")


def datasets(recorder: Recorder) -> None:
    """``/datasets``: uploads that are kept, refused and deleted."""
    ask = recorder.ask
    ask("GET", "/datasets", admin=True)
    ask("PUT", "/datasets/letters", letters(), called="letters.zip", admin=True, hide=TIMES, Content_Type=ZIP)
    ask("PUT", "/datasets/letters", letters(), called="letters.zip", admin=True, Content_Type=ZIP)
    ask("GET", "/datasets/letters", admin=True, hide=TIMES)
    ask("GET", "/datasets", admin=True, hide=TIMES)
    job = {**JOB, "dataset": "letters", "recipe": "dcgan"}
    ask("POST", "/jobs", job, admin=True, hide=TIMES, Idempotency_Key="letters")
    ask("DELETE", "/datasets/letters", admin=True)
    waiting = recorder.send("GET", "/jobs?state=queued&limit=100", None, _admin()).json["jobs"]
    for found in waiting:
        recorder.send("DELETE", f"/jobs/{found['id']}", None, _admin())
    ask("DELETE", "/datasets/letters", admin=True)
    ask("DELETE", "/datasets/letters", admin=True)
    ask("GET", "/datasets/letters", admin=True)
    for name in ("digits", "synthetic", "Bad_Name", "-x", "a" * 64):
        ask("PUT", f"/datasets/{name}", letters(), called="letters.zip", admin=True, Content_Type=ZIP)
    for told, content in wrong_archives():
        ask("PUT", "/datasets/wrong", content, admin=True, called=told, Content_Type=ZIP)
    ask("PUT", "/datasets/wrong", b"cats", admin=True, Content_Type="text/plain")
    ask("GET", "/datasets/letters")
    ask("PUT", "/datasets/letters", letters(), called="letters.zip", Content_Type=ZIP)
    ask("DELETE", "/datasets/letters")
    ask("GET", "/datasets")


def promotion(recorder: Recorder) -> None:
    """Promote and roll back, with and without the pointer's tag; the live version answers what is asked meanwhile."""
    ask = recorder.ask
    path, new = "/models/mnist-projgan/live", ("promoted_at",)

    def put(body: Any, **headers: str) -> str:
        told = ask("PUT", path, body, admin=True, hide=new, sent=headers)
        recorder.calls[list(recorder.calls)[-1]]["headers"].pop("etag", None)
        return told.headers.get("etag", "")

    before = recorder.send("GET", "/models/mnist-projgan", None, {}).headers["etag"]
    put({"version": 2}, If_Match=before)
    recorder.drawn.append(before.strip('"'))
    ask("GET", "/generate?n=4&seed=5&label=2")
    put({"version": 3}, If_Match=before)
    tag = put({"version": 1}, If_Match="*")
    recorder.drawn.append(tag.strip('"'))
    put({"version": 3}, If_Match=f'"x", {tag}')
    ask("GET", "/generate?n=4&seed=5&label=2")
    put({"version": 4})
    wrong: list[dict[str, Any]] = [{"version": 99}, {"version": 0}, {"version": "1"}, {}, {"version": 1, "more": 1}]
    for body in wrong:
        put(body)
    ask("PUT", "/models/nothing/live", {"version": 1}, admin=True)
    ask("PUT", path, {"version": 1})
    ask("PUT", path, {"version": 1}, Authorization="Bearer wrong")
    ask("GET", "/generate?n=4&seed=5&label=2")


def tokens(recorder: Recorder) -> None:
    """A service with a user's token: who may do what, and what caches may keep; and one with small limits."""
    ask = recorder.ask
    paths = (
        "/generate?n=2&seed=1",
        "/generate?n=2&seed=1&version=4",
        "/images/mnist-projgan/4/3/42.png",
        "/morph?from=1&to=2&frames=3",
        "/datasets/synthetic?n=5",
        "/models",
        "/models/mnist-projgan/4/samples.png",
        "/v2",
        "/v2/models/mnist-projgan",
        "/datasets",
        "/health/live",
        "/",
    )
    for path in paths:
        ask("GET", path)
        ask("GET", path, Authorization="Bearer wrong")
        ask("GET", path, Authorization=f"Bearer {USER}")
    ask("GET", "/openapi.json", drawn=True)
    etag = ask("GET", paths[0], admin=True).headers["etag"]
    ask("GET", paths[0], If_None_Match=etag)
    ask("GET", paths[0], If_None_Match=etag, Authorization=f"Bearer {USER}")
    ask("PUT", "/models/mnist-projgan/live", {"version": 1}, Authorization=f"Bearer {USER}")
    ask("POST", "/v2/repository/models/mnist-gan/load", {}, Authorization=f"Bearer {USER}")
    ask("POST", "/generate", {"n": 21}, admin=True)
    ask("POST", "/generate", {"n": 20, "seed": 1}, admin=True)
    ask("POST", "/generate", b" " * 2048 + b"{}", admin=True, called="2 KiB of blanks", Content_Type="application/json")
    ask("GET", "/morph?from=1&to=2&frames=21", admin=True)


def letters() -> bytes:
    """A ZIP of three class folders with four small pictures each, the same bytes each time."""
    pictures = {f"{name}/{i}.png": png(bytes(range(i, i + 64)), 8) for name in "abc" for i in range(4)}
    return archive(pictures)


def wrong_archives() -> Iterator[tuple[str, bytes]]:
    """Archives that are refused, and what is wrong with them."""
    picture = png(bytes(64), 8)
    yield "no zip", b"cats"
    yield "an empty zip", archive({})
    yield "pictures without a folder", archive({"1.png": picture, "2.png": picture})
    yield "a text among pictures", archive({"a/1.png": picture, "a/2.txt": b"cats"})
    yield "a picture that is none", archive({"a/1.png": picture, "b/2.png": b"cats"})
    yield "a path that leaves the folder", archive({"../a/1.png": picture})
    yield "a cut zip", letters()[:-40]


def archive(files: dict[str, bytes]) -> bytes:
    """A ZIP without times and without compression."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        for name, held in files.items():
            opened.writestr(zipfile.ZipInfo(name), held)
    return content.getvalue()


def png(pixels: bytes, width: int) -> bytes:
    """Grey pixels as a PNG, stored without compression."""
    rows = b"".join(b"\0" + pixels[i : i + width] for i in range(0, len(pixels), width))
    header = struct.pack(">IIBBBBB", width, len(pixels) // width, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    parts = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _admin() -> dict[str, str]:
    return {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
