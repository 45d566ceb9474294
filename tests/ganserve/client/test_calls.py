from __future__ import annotations

import asyncio
import json
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from ganserve import AsyncClient, Client, Job, errors
from ganserve.client import calls

ASKED: dict[str, Any] = {"model": "new", "recipe": "cgan", "dataset": "digits", "images": 1000}


def told(**changes: Any) -> dict[str, Any]:
    return {"id": "a1", "state": "running", "request": ASKED, "created_at": "2024-01-01T00:00:00Z", **changes}


def event(**changes: Any) -> bytes:
    return f"event: job\ndata: {json.dumps(told(**changes))}\n\n".encode()


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that breaks off."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[bytes]:
        yield from self.parts
        raise httpx.ReadError("reset by peer")

    async def __aiter__(self) -> Any:
        for part in self:
            yield part


def watched(*answers: httpx.Response) -> tuple[httpx.MockTransport, list[httpx.Response]]:
    left = list(answers)
    return httpx.MockTransport(lambda request: left.pop(0)), left


def test_models_are_told_with_their_versions_and_the_live_card(client: Client) -> None:
    assert [model.name for model in client.models()] == ["digits", "mnist-projgan", "plain"]
    model = client.model("digits")
    assert (model.live, model.versions, model.default, model.left_out) == (1, (1,), False, None)
    assert model.class_names == ("zero", "one", "two")
    assert client.card("digits", 1)["recipe"] == "tiny"


def test_a_promotion_gives_the_model_as_it_is_then(client: Client) -> None:
    before = client.model("mnist-projgan")
    assert before.live is not None
    moved = client.promote("mnist-projgan", 1)
    assert (moved.live, moved.previous) == (1, before.live)
    assert client.promote("mnist-projgan", before.live).live == before.live
    with pytest.raises(errors.NotFound, match="has no version 99"):
        client.promote("mnist-projgan", 99)


def test_admin_calls_without_the_token_are_refused(server: Any) -> None:
    with Client(server.url) as client, pytest.raises(errors.Unauthorized):
        client.jobs.list()


def test_a_job_is_submitted_listed_watched_and_cancelled(client: Client) -> None:
    job = client.jobs.submit(**ASKED, seed=5, overrides={"batch": 64}, key="once")
    assert (job.state, job.finished, job.request["seed"]) == ("queued", False, 5)
    assert client.jobs.submit(**ASKED, seed=5, overrides={"batch": 64}, key="once").id == job.id
    assert job.id in [one.id for one in client.jobs.list("queued")]
    assert client.jobs.get(job).state == "queued"
    with pytest.raises(errors.TimedOut, match=r"has not ended within 0\.2 s"):
        client.jobs.wait(job, timeout=0.2, progress=False)
    with pytest.raises(errors.Conflict, match="does not train"):
        client.jobs.cancel(job, keep=True)
    assert client.jobs.cancel(job.id).state == "cancelled"
    assert [one.state for one in client.jobs.events(job)] == ["cancelled"]
    with pytest.raises(errors.JobFailed, match="has been cancelled") as raised:
        client.jobs.wait(job, progress=False)
    assert raised.value.job.id == job.id


def test_a_job_that_cannot_be_trained_names_each_field(client: Client) -> None:
    with pytest.raises(errors.Invalid) as raised:
        client.jobs.submit("new", "cgan", "digits", 1000, overrides={"nothing": 1})
    assert raised.value.errors[0]["field"] == "overrides.nothing"


def test_a_lost_connection_is_made_again_and_nothing_is_told_twice() -> None:
    first = httpx.Response(200, stream=Broken(b"retry: 0\n\n", event(), event(step="train"), b"data: {"))
    ended = event(step="train") + b": still here\n\n" + event(state="succeeded", result={"version": 7})
    refused = httpx.Response(503, headers={"Retry-After": "0"})
    transport, left = watched(first, refused, httpx.Response(200, content=ended))
    with Client("http://here", transport=transport) as client:
        seen = list(client.jobs.events("a1"))
    assert [(job.state, job.step) for job in seen] == [("running", None), ("running", "train"), ("succeeded", None)]
    assert seen[-1].result == {"version": 7}
    assert not left


def test_the_asynchronous_client_watches_as_well() -> None:
    first = httpx.Response(200, stream=Broken(b"retry: 0\n\n", event()))
    transport, _ = watched(first, httpx.Response(200, content=event(state="failed", error="no disk")))

    async def run() -> Job:
        async with AsyncClient("http://here", transport=transport) as client:
            return await client.jobs.wait("a1", progress=False)

    with pytest.raises(errors.JobFailed, match="job a1 has failed: no disk"):
        asyncio.run(run())


def test_a_job_that_is_not_there_is_not_waited_for(client: Client) -> None:
    with pytest.raises(errors.NotFound):
        client.jobs.wait("nothing", progress=False)


def test_a_watch_that_never_hears_anything_raises_what_is_wrong() -> None:
    watch = calls.Watch("a1", None, patience=30)
    lost = errors.Unreachable("gone")
    with pytest.raises(errors.Unreachable):
        watch.lost(lost)
    assert not list(watch.feed(b": still here\n\n"))
    watch.lost(lost)


def test_what_is_not_waited_for_any_longer_says_how_far_it_is() -> None:
    watch = calls.Watch("a1", 60, patience=30)
    assert len(list(watch.feed(event()))) == 1
    watch._until = time.monotonic()
    with pytest.raises(errors.TimedOut, match="job a1 has not ended within 60 s; it is running"):
        watch.lost(None)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_is_read_however_it_is_cut_and_whatever_its_text_holds(end: bytes) -> None:
    told_ = told(error="naïve\u2028next\x85\u00e9")
    content = b"event: job\ndata: " + json.dumps(told_, ensure_ascii=False).encode() + b"\n\n"
    for size in (1, 2, 7, len(content)):
        watch = calls.Watch("a1", None, patience=30)
        stream = content.replace(b"\n", end) + b":"
        parts = [stream[start : start + size] for start in range(0, len(stream), size)]
        [job] = [job for part in parts for job in watch.feed(part)]
        assert job.error == told_["error"]


def test_waiting_shows_how_far_the_job_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganserve.progress.DELAY_SECONDS", 0.0)
    progress = {"images": 500, "images_total": 1000}
    content = event(progress=progress) + event(state="succeeded", step="promote", progress={"images": 1000})
    transport, _ = watched(httpx.Response(200, content=content))
    with Client("http://here", transport=transport) as client:
        assert client.jobs.wait("a1", progress=True).state == "succeeded"
    shown = capsys.readouterr().err
    assert "job a1" in shown
    assert "1.00k/1.00k" in shown
    assert "promote" in shown


def test_members_that_this_version_does_not_know_are_passed_over() -> None:
    assert Job.read(told(colour="blue")).state == "running"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(4):
        path = tmp_path / "pets" / ("cat", "dog")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 40 * index, np.uint8)).save(path)
    (tmp_path / "pets" / ".thumbnails").mkdir()
    (tmp_path / "pets" / ".thumbnails" / "0.png").write_bytes(b"clutter")
    return tmp_path / "pets"


def test_a_folder_of_class_folders_is_uploaded_whole(client: Client, folder: Path) -> None:
    kept = client.upload("beasts", folder, progress=False)
    assert (kept.name, kept.images, kept.classes) == ("beasts", 4, {"cat": 2, "dog": 2})
    with pytest.raises(errors.Conflict, match="is kept already"):
        client.upload("beasts", folder, progress=False)


def test_a_folder_is_uploaded_as_it_is_read_here(client: Client, folder: Path, tmp_path: Path) -> None:
    (folder / "cat").rename(tmp_path / "elsewhere")
    (folder / "cat").symlink_to(tmp_path / "elsewhere")
    (folder / "dog" / os.fsdecode(b"caf\xe9.png")).write_bytes((folder / "dog" / "1.png").read_bytes())
    (folder / "notes").symlink_to("nowhere")
    assert client.upload("linked", folder, progress=False).classes == {"cat": 2, "dog": 3}
    (folder / "dog" / "lost.png").symlink_to("nowhere.png")
    with pytest.raises(errors.Invalid, match=r"^dog/lost\.png cannot be read: it is a link to nothing$"):
        client.upload("lost", folder, progress=False)


def test_a_folder_whose_metadata_names_the_classes_is_uploaded(client: Client, folder: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(folder.glob("[!.]*/*.png"))):
        path.rename(tmp_path / f"{number}.png")
    (tmp_path / "metadata.csv").write_text("file_name,label\n0.png,x\n1.png,y\n2.png,x\n3.png,x\n")
    for place in sorted(folder.rglob("*"), reverse=True):
        place.rmdir() if place.is_dir() else place.unlink()
    assert client.upload("named", tmp_path, progress=False).classes == {"x": 3, "y": 1}


def test_what_the_server_would_refuse_is_not_sent_first(folder: Path) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        return httpx.Response(403 if request.url.path.endswith("closed") else 200)

    with Client("http://here", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(errors.Forbidden):
            client.upload("closed", folder)
        with pytest.raises(errors.Conflict):
            client.upload("taken", folder)
    assert asked == ["GET", "GET"]


def test_a_zip_is_uploaded_as_it_is_by_either_client(server: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.glob("[!.]*/*.png"):
            archive.write(file, file.relative_to(folder))

    async def run() -> Any:
        async with AsyncClient(server.url, token=server.token) as client:
            return await client.upload("zipped", path, progress=False)

    assert asyncio.run(run()).images == 4


def test_what_is_no_data_set_is_refused_before_anything_is_sent(client: Client, tmp_path: Path) -> None:
    (tmp_path / "loose.png").write_bytes(b"x")
    with pytest.raises(errors.Invalid, match="has no class folders"):
        client.upload("bad", tmp_path)
    with pytest.raises(errors.Invalid, match="neither a ZIP nor a folder"):
        client.upload("bad", tmp_path / "loose.png")
    # Nobody will ever write to it, nor does /dev/zero end.
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(errors.Invalid, match="neither a ZIP nor a folder"):
        client.upload("bad", tmp_path / "pipe")
    with pytest.raises(errors.Invalid, match="is not there"):
        client.upload("bad", tmp_path / "nothing")


def test_a_refused_archive_names_its_files(client: Client, tmp_path: Path) -> None:
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "no-image.png").write_bytes(b"text")
    with pytest.raises(errors.Invalid) as raised:
        client.upload("bad", tmp_path / "set", progress=False)
    assert raised.value.errors[0]["file"] == "cat/no-image.png"
