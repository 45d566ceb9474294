"""Services that share no disk: each with a folder of its own, the models in an object store."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import SecretStr

from ganserve import objects
from ganserve.bucket import BucketStore
from ganserve.kept import KeptSets
from ganserve.repository import Repository
from ganserve.settings import Settings
from service.app import create_app
from tests import stores
from tests.service.conftest import ADMIN
from tests.tiny import publish

Begin = Callable[[str], TestClient]


@pytest.fixture
def writer(bucket: str) -> Repository:
    """What publishes, from elsewhere."""
    made = Repository(bucket)
    publish(made, "digits", seed=1)
    return made


@pytest.fixture
def begin(bucket: str, tmp_path: Path) -> Iterator[Begin]:
    """A started service with the data folder of that name."""
    clients = []

    def start(name: str) -> TestClient:
        settings = Settings(
            models=bucket,
            data=tmp_path / name,
            device="cpu",
            lanes=1,
            admin_token=SecretStr("admin-secret"),
        )
        client = TestClient(create_app(settings), raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def live(client: TestClient) -> str:
    return str(client.get("/generate?label=1&seed=1").headers.get("x-model-version"))


def within(seconds: float, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_a_promotion_by_one_service_is_followed_by_the_other_within_five_seconds(
    begin: Begin, writer: Repository
) -> None:
    one, other = begin("one"), begin("other")
    publish(writer, "digits", seed=2, live=False)
    assert (live(one), live(other)) == ("1", "1")
    assert one.put("/models/digits/live", json={"version": 2}, headers=ADMIN).status_code == 200
    assert live(one) == "2"
    within(5, lambda: live(other) == "2")
    same = "/generate?label=1&seed=1&model=digits&version=2"
    assert one.get(same).content == other.get(same).content
    publish(writer, "fresh", seed=3)
    within(10, lambda: "fresh" in other.get("/metrics").text)


def test_a_removed_version_is_410_at_every_service_and_no_copy_is_left(
    begin: Begin, writer: Repository, tmp_path: Path
) -> None:
    publish(writer, "digits", seed=2)
    one, other = begin("one"), begin("other")
    path = "/images/digits/1/1/5.png"
    assert (one.get(path).status_code, other.get(path).status_code) == (200, 200)
    assert one.delete("/models/digits/1", headers=ADMIN).status_code == 204
    assert one.get(path).status_code == 410
    within(10, lambda: other.get(path).status_code == 410)
    assert one.delete("/models/digits/2", headers=ADMIN).status_code == 409


def test_a_service_starts_and_serves_while_the_store_is_away_and_writes_nothing(
    begin: Begin, writer: Repository, proxy: stores.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganserve.objects.PATIENCE_SECONDS", 0.5)
    first = begin("one")
    same = "/generate?label=1&seed=1"
    content = first.get(same).content
    proxy.fault = lambda method, path: "503"
    again = begin("one")
    assert again.get(same).content == content
    assert again.get("/health/ready").status_code == 200
    assert again.delete("/models/digits/1", headers=ADMIN).status_code == 503
    proxy.fault = lambda method, path: None
    publish(writer, "digits", seed=2)
    within(10, lambda: live(again) == "2")


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_store_that_never_ends_an_answer_keeps_nobody_for_ever_and_nothing_from_what_is_here(
    begin: Begin, writer: Repository, proxy: stores.Proxy, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr("ganserve.objects.PATIENCE_SECONDS", 0.5)
    quick = {**objects.CLIENTS["quick"], "timeout": "1s"}
    monkeypatch.setattr("ganserve.objects.CLIENTS", {**objects.CLIENTS, "quick": quick})
    publish(writer, "digits", seed=2, live=False)
    same, seconds = "/generate?label=1&seed=1", 20
    first = begin("one")
    content = first.get(same).content
    proxy.fault = lambda method, path: fault
    began = time.monotonic()
    again = begin("one")
    assert time.monotonic() - began < seconds
    for client in (first, again):
        for path in ("/health/live", "/health/ready", same):
            assert client.get(path).status_code == 200
        assert client.get(same).content == content
        began = time.monotonic()
        refused = client.put("/models/digits/live", json={"version": 2}, headers=ADMIN)
        assert (refused.status_code, "nothing was changed" in refused.json()["detail"]) == (503, True)
        assert "Retry-After" in refused.headers
        assert client.get("/models/digits/2").status_code == 503
        assert client.delete("/models/digits/2", headers=ADMIN).status_code == 503
        assert time.monotonic() - began < seconds
    proxy.fault = lambda method, path: None
    within(10, lambda: again.put("/models/digits/live", json={"version": 2}, headers=ADMIN).status_code == 200)
    within(10, lambda: live(first) == live(again) == "2")


def test_a_store_that_ignores_conditions_is_served_from_and_never_written_to(
    begin: Begin, writer: Repository, proxy: stores.Proxy
) -> None:
    publish(writer, "digits", seed=2, live=False)
    proxy.unconditional = True
    client = begin("one")
    assert live(client) == "1"
    refused = client.put("/models/digits/live", json={"version": 2}, headers=ADMIN)
    assert refused.status_code == 503
    assert "conditional requests" in refused.json()["detail"]
    assert writer.live("digits") == 1
    assert client.get("/health/ready").status_code == 200


def test_an_upload_to_one_service_is_every_services_and_deleted_for_all(
    bucket: str, tmp_path: Path, writer: Repository
) -> None:
    def service(name: str) -> TestClient:
        settings = Settings(
            models=bucket,
            store=f"{bucket}/store",
            data=tmp_path / name,
            device="cpu",
            lanes=1,
            admin_token=SecretStr("admin-secret"),
        )
        return TestClient(create_app(settings), raise_server_exceptions=False)

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        for label, colour in (("cat", 10), ("dog", 200)):
            for number in range(2):
                picture = io.BytesIO()
                Image.new("L", (8, 8), colour + number).save(picture, "PNG")
                opened.writestr(f"{label}/{number}.png", picture.getvalue())
    content, headers = packed.getvalue(), {**ADMIN, "Content-Type": "application/zip"}
    job = {"model": "m", "recipe": "cgan", "dataset": "pets", "images": 100}
    with service("one") as one, service("other") as other:
        assert other.post("/jobs", json=job, headers=ADMIN).status_code == 422
        kept = one.put("/datasets/pets", content=content, headers=headers)
        assert kept.status_code == 201
        assert other.get("/datasets/pets", headers=ADMIN).json() == kept.json()
        listed = other.get("/datasets", headers=ADMIN).json()["uploads"]
        assert [upload["name"] for upload in listed] == ["pets"]
        assert other.get("/datasets/pets/samples.png", headers=ADMIN).content.startswith(b"\x89PNG")
        assert other.put("/datasets/pets", content=content, headers=headers).status_code == 409
        assert other.post("/jobs", json=job, headers=ADMIN).status_code == 202
        fetched = KeptSets(BucketStore(f"{bucket}/store")).fetch("pets", tmp_path / "worker")
        assert sorted(path.parent.name for path in fetched.rglob("*.png")) == ["cat", "cat", "dog", "dog"]
        assert other.delete("/datasets/pets", headers=ADMIN).status_code == 409
        waiting = other.get("/jobs", headers=ADMIN).json()["jobs"][0]["id"]
        assert other.delete(f"/jobs/{waiting}", headers=ADMIN).status_code in (200, 202)
        assert other.delete("/datasets/pets", headers=ADMIN).status_code == 204
        assert one.get("/datasets/pets", headers=ADMIN).status_code == 404
    assert not list((tmp_path / "one" / "datasets").glob("*"))


def test_no_field_of_a_job_is_ever_a_url(begin: Begin, writer: Repository) -> None:
    client = begin("one")
    job = {"model": "m", "recipe": "cgan", "dataset": "digits", "images": 100}
    for field in ("model", "recipe", "dataset", "init", "promote"):
        for url in ("s3://bucket/secret", "https://host/x", "file:///etc/passwd"):
            assert client.post("/jobs", json={**job, field: url}, headers=ADMIN).status_code == 422
