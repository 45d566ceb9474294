"""``/datasets`` over HTTP: a ZIP in, a data set that jobs can name out."""

import asyncio
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import SecretStr

from ganserve.archives import Limits
from ganserve.repository import Repository
from ganserve.settings import Settings
from service.api import datasets, jobs
from service.http import errors
from service.http.auth import Auth
from service.inference.catalogue import Catalogue
from service.jobs import JobStore
from service.state import State
from service.uploads import Uploads

ADMIN = {"Authorization": "Bearer admin"}
ZIP = {**ADMIN, "Content-Type": "application/zip"}


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name in ("cat/a.png", "dog/a.png"):
            picture = io.BytesIO()
            Image.new("L", (8, 8)).save(picture, "PNG")
            opened.writestr(name, picture.getvalue())
        for name, content in files.items():
            opened.writestr(f"cat/{name}.png", content)
    return buffer.getvalue()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(jobs.router)
    app.include_router(datasets.router)
    errors.install(app)
    settings = Settings(data=tmp_path, models=tmp_path / "models")
    uploads = Uploads(tmp_path / "datasets", Limits(archive_bytes=10_000))
    app.state = State(  # type: ignore[assignment]
        settings=settings,
        auth=Auth.of(SecretStr("user"), SecretStr("admin")),
        catalogue=Catalogue(Repository(settings.models)),
        jobs=JobStore(settings.jobs_url, check_dataset=uploads.untrainable),
        uploads=uploads,
    )
    with TestClient(app) as client:
        yield client
    app.state.jobs.close()


def train_on(client: TestClient, dataset: str) -> Any:
    body = {"model": "m", "recipe": "cgan", "dataset": dataset, "images": 100}
    return client.post("/jobs", json=body, headers=ADMIN)


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/datasets/pets"), ("GET", "/datasets"), ("DELETE", "/datasets/pets")]
)
def test_every_call_needs_the_admin_token(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 401
    assert client.request(method, path, headers={"Authorization": "Bearer user"}).status_code == 403


def test_an_upload_is_kept_listed_trained_on_and_deleted(client: TestClient) -> None:
    refused = train_on(client, "pets")
    assert refused.status_code == 422
    assert "PUT /datasets/pets" in refused.json()["detail"]
    made = client.put("/datasets/pets", content=archive(), headers=ZIP)
    assert made.status_code == 201
    assert made.headers["Location"] == "/datasets/pets"
    assert made.json()["classes"] == {"cat": 1, "dog": 1}
    assert client.get("/datasets", headers=ADMIN).json()["uploads"] == [made.json()]
    assert client.get("/datasets/pets", headers=ADMIN).json() == made.json()
    job = train_on(client, "pets").json()["id"]
    held = client.delete("/datasets/pets", headers=ADMIN)
    assert held.status_code == 409
    assert job in held.json()["detail"]
    client.delete(f"/jobs/{job}", headers=ADMIN)
    assert client.delete("/datasets/pets", headers=ADMIN).status_code == 204
    assert client.get("/datasets/pets", headers=ADMIN).status_code == 404


def test_what_is_wrong_is_listed_by_file_and_nothing_is_kept(client: TestClient, tmp_path: Path) -> None:
    answer = client.put("/datasets/pets", content=archive(broken=b"x", cut=b"y"), headers=ZIP)
    assert answer.status_code == 422
    assert {entry["file"] for entry in answer.json()["errors"]} == {"cat/broken.png", "cat/cut.png"}
    assert list((tmp_path / "datasets").iterdir()) == []


def test_a_body_over_the_limit_is_cut_off_with_or_without_a_stated_length(
    client: TestClient, tmp_path: Path
) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(1000)

    for content in (bytes(20_000), chunks()):
        assert client.put("/datasets/pets", content=content, headers=ZIP).status_code == 413
    assert not list((tmp_path / "datasets").glob("*"))


@pytest.mark.parametrize(
    ("name", "headers", "status"),
    [("Pets", ZIP, 422), ("digits", ZIP, 422), ("pets", {**ADMIN, "Content-Type": "image/png"}, 415)],
)
def test_a_wrong_name_or_type_is_refused(
    client: TestClient, name: str, headers: dict[str, str], status: int
) -> None:
    assert client.put(f"/datasets/{name}", content=archive(), headers=headers).status_code == status


def test_a_body_that_was_compressed_once_more_is_not_taken(client: TestClient) -> None:
    answer = client.put("/datasets/pets", content=archive(), headers={**ZIP, "Content-Encoding": "gzip"})
    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "identity")
    plain = {**ZIP, "Content-Encoding": "identity"}
    assert client.put("/datasets/pets", content=archive(), headers=plain).status_code == 201


def test_a_kept_data_set_is_not_replaced(client: TestClient) -> None:
    assert client.put("/datasets/pets", content=archive(), headers=ZIP).status_code == 201
    assert client.put("/datasets/pets", content=archive(), headers=ZIP).status_code == 409


def test_deleting_an_unknown_data_set_is_answered_404(client: TestClient) -> None:
    assert client.delete("/datasets/pets", headers=ADMIN).status_code == 404


def test_the_report_and_one_picture_a_class_are_answered(client: TestClient) -> None:
    made = client.put("/datasets/pets", content=archive(), headers=ZIP).json()
    assert made["report"]["classes"] == {
        "cat": {"pictures": 1, "share": 0.5},
        "dog": {"pictures": 1, "share": 0.5},
    }
    assert made["report"]["duplicates"] == 1
    sheet = client.get("/datasets/pets/samples.png", headers=ADMIN)
    assert sheet.headers["Content-Type"] == "image/png"
    with Image.open(io.BytesIO(sheet.content)) as opened:
        assert opened.size == (128, 64)
    assert client.get("/datasets/pets/samples.png").status_code == 401
    assert client.get("/datasets/others/samples.png", headers=ADMIN).status_code == 404


def test_undecodable_pictures_are_left_out_if_asked(client: TestClient) -> None:
    files = {str(index): picture_of(index) for index in range(10)}
    content = archive(**files, cut=b"x")
    assert client.put("/datasets/pets", content=content, headers=ZIP).status_code == 422
    assert client.put("/datasets/pets?skip=all", content=content, headers=ZIP).status_code == 422
    made = client.put("/datasets/pets?skip=invalid", content=content, headers=ZIP)
    assert made.status_code == 201
    assert [one["file"] for one in made.json()["left_out"]] == ["cat/cut.png"]


def picture_of(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_upload_that_is_broken_off_is_499_and_leaves_nothing(client: TestClient, tmp_path: Path) -> None:
    status, read = asyncio.run(broken_off(client.app, {b"authorization": b"Bearer admin"}))
    assert (status, read) == (499, 2)
    assert list((tmp_path / "datasets").iterdir()) == []


def test_no_byte_of_a_body_is_read_before_the_token(client: TestClient) -> None:
    asks: list[tuple[dict[bytes, bytes], int]] = [({}, 401), ({b"authorization": b"Bearer user"}, 403)]
    for headers, status in asks:
        assert asyncio.run(broken_off(client.app, headers)) == (status, 0)


async def broken_off(app: Any, headers: dict[bytes, bytes]) -> tuple[int, int]:
    """The status of an upload whose client hangs up after one piece, and how often it was asked for more."""
    piece: dict[str, Any] = {"type": "http.request", "body": b"PK", "more_body": True}
    messages: list[dict[str, Any]] = [piece, {"type": "http.disconnect"}]
    asked, status = 0, 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return messages.pop(0)

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    path = "/datasets/pets"
    scope = {"type": "http", "method": "PUT", "path": path, "raw_path": path.encode(), "query_string": b""}
    more = {"headers": list(headers.items()), "http_version": "1.1", "scheme": "http", "server": ("x", 1)}
    await app({**scope, **more, "root_path": ""}, receive, send)
    return status, asked


def test_a_parameter_that_there_is_not_is_refused_before_anything_is_kept(client: TestClient) -> None:
    answer = client.put("/datasets/pets?skp=invalid", content=b"PK", headers=ZIP)
    assert answer.status_code == 422
    assert '"skp" is no parameter of this call: expected skip' in answer.json()["detail"]
