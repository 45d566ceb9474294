import asyncio
import io
import itertools
import json
import re
import socket
import sys
import tarfile
import threading
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ganserve import marks
from ganserve.latents import MAX_SEED
from ganserve.repository import Repository
from ganserve.settings import Settings
from service.app import create_app
from service.datasets.archive import Archive
from service.datasets.making import CHUNK_ROWS
from service.datasets.span import drawn_labels
from service.datasets.zip import folder_names
from service.http.errors import Overloaded
from tests.engines import DummyEngine
from tests.service.conftest import ADMIN, USER, Dummies, Serve, state_of
from tests.tiny import CLASSES, SIDE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import datasets
    import pyarrow.parquet
    import webdataset

PLACE = "/datasets/synthetic"
FORMATS = ["tar", "parquet", "npz", "zip"]
# Columns of the parquet beside image and label.
TEXTS = {"address": datasets.Value("string"), "digital_source_type": datasets.Value("string")}
SHIPPED = Path(__file__).parents[3] / "models"


@pytest.fixture(autouse=True)
def quiet_readers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def fetch(client: TestClient, query: str) -> bytes:
    answer = client.get(f"{PLACE}?{query}")
    assert answer.status_code == 200, answer.text
    return answer.content


def arrays(client: TestClient, query: str) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(fetch(client, f"{query}&format=npz"))) as found:
        return dict(found)


def load(client: TestClient, query: str, form: str, folder: Path) -> Any:
    path = folder / f"made.{form}"
    path.write_bytes(fetch(client, f"{query}&format={form}"))
    if form == "zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            archive.extractall(folder / "unpacked")
        return datasets.load_dataset(
            "imagefolder", data_dir=str(folder / "unpacked"), cache_dir=str(folder / "cache"), split="train"
        )
    return datasets.load_dataset(
        form, data_files=str(path), cache_dir=str(folder / "cache"), split="train"
    )


def test_row_i_is_the_image_at_the_address_of_seed_plus_i(client: TestClient) -> None:
    found = arrays(client, "seed=100&n=200")
    assert found["seeds"].tolist() == list(range(100, 300))
    assert found["labels"].tolist() == [row % 3 for row in range(200)]
    assert found["images"].shape == (200, SIDE, SIDE, 1)
    for row in (0, 1, 150, 199):
        png = client.get(f"/images/digits/1/{row % 3}/{100 + row}.png").content
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), found["images"][row, ..., 0])


# The reader leaves its file to the collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_the_tar(client: TestClient, tmp_path: Path) -> None:
    expected = arrays(client, "seed=9&offset=40&n=150")
    path = tmp_path / "made.tar"
    path.write_bytes(fetch(client, "seed=9&offset=40&n=150&format=tar"))
    reader = webdataset.WebDataset(str(path), shardshuffle=False).decode("pil")
    count = 0
    for row, sample in enumerate(reader):
        assert sample["__key__"] == f"{40 + row:09d}"
        assert np.array_equal(np.asarray(sample["png"].convert("L")), expected["images"][row, ..., 0])
        assert sample["cls"] == expected["labels"][row]
        assert sample["json"]["seed"] == expected["seeds"][row]
        assert sample["json"]["class"] == CLASSES[sample["cls"]]
        count += 1
    assert count == 150
    address = client.get(sample["json"]["address"])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(address.content))), np.asarray(sample["png"].convert("L")))


def test_hugging_face_reads_the_parquet_as_image_and_class_label(client: TestClient, tmp_path: Path) -> None:
    expected = arrays(client, "seed=9&n=1234")
    table = load(client, "seed=9&n=1234", "parquet", tmp_path)
    assert table.features == {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES), **TEXTS}
    assert table["label"][:] == expected["labels"].tolist()
    for row in (0, 999, 1000, 1233):
        assert np.array_equal(np.asarray(table[row]["image"]), expected["images"][row, ..., 0])
    raw = table.cast_column("image", datasets.Image(decode=False))
    assert raw[1233]["image"]["path"] == "000001233.png"


def test_parquet_comes_in_row_groups_that_tell_their_address(client: TestClient) -> None:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(io.BytesIO(fetch(client, "seed=9&offset=7&n=2100&format=parquet")))
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [1000, 1000, 100]
    told = json.loads(file.schema_arrow.metadata[b"ganserve"])
    assert (told["model"], told["version"], told["seed"], told["offset"], told["n"]) == ("digits", 1, 9, 7, 2100)


def test_every_row_of_every_format_says_that_a_machine_made_it_and_where_it_stands(client: TestClient) -> None:
    query = "seed=9&offset=7&n=20"
    whole = {"software": "ganserve", "digital_source_type": marks.SOURCE_TYPE, "seed": 9, "offset": 7, "n": 20}
    rows = [json.loads(content) for name, content in members(fetch(client, query)).items() if name.endswith(".json")]
    assert {(row["software"], row["digital_source_type"]) for row in rows} == {("ganserve", marks.SOURCE_TYPE)}
    table = pyarrow.parquet.read_table(io.BytesIO(fetch(client, f"{query}&format=parquet")))
    assert table["digital_source_type"].to_pylist() == [marks.SOURCE_TYPE] * 20
    assert table["address"].to_pylist() == [row["address"] for row in rows]
    assert table["address"][1].as_py() == "/images/digits/1/2/17.png"
    told = [json.loads(table.schema.metadata[b"ganserve"])]
    found = arrays(client, query)
    assert found["digital_source_type"].item() == marks.SOURCE_TYPE
    told.append(json.loads(found["address"].item()))
    with zipfile.ZipFile(io.BytesIO(fetch(client, f"{query}&format=zip"))) as archive:
        assert {entry.comment for entry in archive.infolist()} == {b"trainedAlgorithmicMedia"}
        told.append(json.loads(archive.comment))
    for one in told:
        assert one | whole == one
        assert len(one["graph"]) == 16


def test_an_image_folder_reader_reads_the_zip(client: TestClient, tmp_path: Path) -> None:
    expected = arrays(client, "seed=9&n=100")
    table = load(client, "seed=9&n=100", "zip", tmp_path)
    names = table.features["label"].names
    assert names == sorted(CLASSES)
    assert len(table) == 100
    for example, path in zip(table, sorted((tmp_path / "unpacked").rglob("*.png")), strict=True):
        row = int(path.stem)
        assert names[example["label"]] == CLASSES[expected["labels"][row]] == path.parent.name
        assert np.array_equal(np.asarray(example["image"]), expected["images"][row, ..., 0])


def test_the_zip_can_be_uploaded_as_a_data_set(client: TestClient) -> None:
    content = fetch(client, "n=30&format=zip")
    answer = client.put("/datasets/round", content=content, headers={**ADMIN, "Content-Type": "application/zip"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["classes"] == dict.fromkeys(sorted(CLASSES), 10)


@pytest.mark.parametrize("form", FORMATS)
def test_without_classes_there_are_no_labels(client: TestClient, tmp_path: Path, form: str) -> None:
    query = f"model=plain&n=5&format={form}"
    content = fetch(client, query)
    if form == "npz":
        assert arrays(client, "model=plain&n=5")["labels"].tolist() == [-1] * 5
    elif form == "tar":
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            names = archive.getnames()
            assert names[:4] == ["000000000.png", "000000000.json", "000000001.png", "000000001.json"]
            told = json.load(archive.extractfile("000000001.json"))  # type: ignore[arg-type]
        assert client.get(told["address"]).status_code == 200
    elif form == "zip":
        with zipfile.ZipFile(io.BytesIO(content)) as files:
            assert files.namelist() == [f"{row:09d}.png" for row in range(5)]
    else:
        table = load(client, "model=plain&n=5", "parquet", tmp_path)
        assert table.features == {"image": datasets.Image(), **TEXTS}
        assert table[4]["address"] == "/images/plain/1/-/4.png"
        assert table[4]["image"].mode == "RGB"


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_request_gives_the_same_bytes_and_a_repeat_is_304(client: TestClient, form: str) -> None:
    n = 1100 if form == "parquet" else 150
    query = f"{PLACE}?version=1&seed=3&n={n}&format={form}"
    first, second = client.get(query), client.get(query)
    assert first.content == second.content
    assert first.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert client.get(query, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    other = client.get(query.replace("seed=3", "seed=4"), headers={"If-None-Match": first.headers["etag"]})
    assert other.status_code == 200


def members(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, MAX_SEED - 1),
    offset=st.integers(0, 10**6),
    before=st.integers(1, 90),
    after=st.integers(1, 90),
    balanced=st.booleans(),
)
def test_two_ranges_joined_are_the_range(
    client: TestClient, seed: int, offset: int, before: int, after: int, balanced: bool
) -> None:
    common = f"seed={seed}&balanced={balanced}"
    spans = [(offset, before), (offset + before, after), (offset, before + after)]
    one, two, both = (arrays(client, f"{common}&offset={at}&n={n}") for at, n in spans)
    for name in ("images", "labels", "seeds"):
        assert np.array_equal(np.concatenate([one[name], two[name]]), both[name])
    tars = [fetch(client, f"{common}&offset={at}&n={n}&format=tar") for at, n in spans]
    assert tars[0][:-1024] + tars[1] == tars[2]
    zips = [fetch(client, f"{common}&offset={at}&n={n}&format=zip") for at, n in spans]
    files = [{info: z.read(info) for info in z.namelist()} for z in (zipfile.ZipFile(io.BytesIO(z)) for z in zips)]
    assert files[0] | files[1] == files[2]


def test_a_tar_that_broke_off_goes_on_from_its_whole_samples(client: TestClient) -> None:
    whole = fetch(client, "n=100&format=tar")
    broken = whole[: len(whole) // 2 + 77]
    kept = 0
    for match in re.finditer(rb"(\d{9})\.png\0", whole):
        # A sample is whole where the next one has begun.
        if match.start() < len(broken):
            kept, end = int(match[1]), match.start()
    assert 0 < kept < 100
    assert broken[:end] + fetch(client, f"n={100 - kept}&offset={kept}&format=tar") == whole


def test_a_tar_is_the_one_that_tarfile_would_write(client: TestClient) -> None:
    content = fetch(client, "n=3&format=tar")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, file in members(content).items():
            info = tarfile.TarInfo(name)
            info.size = len(file)
            archive.addfile(info, io.BytesIO(file))
    # tarfile fills up the last record.
    assert buffer.getvalue()[: len(content)] == content


def test_classes_are_balanced_in_turn_or_drawn_from_each_seed(client: TestClient) -> None:
    in_turn = arrays(client, "n=100")["labels"]
    drawn = arrays(client, "n=600&balanced=false")
    assert np.bincount(in_turn).tolist() == [34, 33, 33]
    assert np.array_equal(drawn["labels"], drawn_labels(drawn["seeds"], 3))
    assert 150 < np.bincount(drawn["labels"], minlength=3).min() < 200
    # The seed says the label, wherever the data set begins.
    assert np.array_equal(arrays(client, "seed=100&n=50&balanced=false")["labels"], drawn["labels"][100:150])


def test_drawn_labels_are_the_published_ones() -> None:
    assert drawn_labels(np.array([0, 1, 2, 42, MAX_SEED - 1], np.uint64), 10).tolist() == [1, 0, 3, 1, 0]


def test_every_answer_pins_what_made_it(client: TestClient, repository: Repository) -> None:
    answer = client.get(f"{PLACE}?seed=5&offset=20&n=10")
    headers = answer.headers
    assert (headers["x-model"], headers["x-model-version"]) == ("digits", "1")
    assert (headers["x-seed"], headers["x-offset"], headers["x-images"]) == ("5", "20", "10")
    assert headers["x-latent-recipe"] == "philox-normal/v1"
    assert headers["content-type"] == "application/x-tar"
    expected = 'attachment; filename="digits-1-seed5-000000020-000000029.tar"'
    assert headers["content-disposition"] == expected
    assert headers["cache-control"] == "no-cache"


def test_npz_tells_its_length_in_advance(client: TestClient) -> None:
    for n in (1, 5000):
        answer = client.get(f"{PLACE}?n={n}&format=npz")
        assert int(answer.headers["content-length"]) == len(answer.content)


def test_archives_past_four_gigabytes_are_zip64(monkeypatch: pytest.MonkeyPatch, client: TestClient) -> None:
    # With the bound of 32-bit fields lowered, small archives take the same paths.
    monkeypatch.setattr(Archive, "_MOST", 1000)
    answer = client.get(f"{PLACE}?n=50&format=npz")
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert b"PK\x06\x06" in answer.content
    archive = Archive()
    parts = [archive.whole(f"{i}".encode(), b"abc", 0x352441C2) for i in range(66_000)]
    parts += archive.directory((f"{i}".encode() for i in range(66_000)), b"many")
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as files:
        assert len(files.namelist()) == 66_000
        assert files.comment == b"many"


def test_what_is_asked_wrongly_is_refused_and_says_what_would_be_right(serve: Serve) -> None:
    client = serve(max_dataset_images=100)
    assert arrays(client, "")["images"].shape[0] == 100
    for query, told in [
        ("n=101", "at most 100"),
        ("n=0", "n:"),
        ("colour=red", "colour: unknown field"),
        ("format=csv", "format:"),
        (f"seed={MAX_SEED}", "seed:"),
        (f"offset={MAX_SEED - 5}&n=10", "2**53"),
        ("balanced=perhaps", "balanced:"),
    ]:
        answer = client.get(f"{PLACE}?{query}")
        assert answer.status_code == 422, query
        assert told in answer.json()["detail"]
    assert client.get(f"{PLACE}?model=nobody").status_code == 404
    assert client.get(f"{PLACE}?version=9").status_code == 404


def test_the_token_is_asked_for_before_anything_else(serve: Serve) -> None:
    client = serve(token="user-secret")
    assert client.get(f"{PLACE}?n=zero").status_code == 401
    answer = client.get(f"{PLACE}?n=1&version=1", headers=USER)
    assert answer.status_code == 200
    assert answer.headers["cache-control"].startswith("private")


def test_the_call_and_an_upload_cannot_share_the_name(client: TestClient) -> None:
    answer = client.put(PLACE, content=b"", headers={**ADMIN, "Content-Type": "application/zip"})
    assert answer.status_code == 422
    assert "choose another name" in answer.json()["detail"]


def test_without_pyarrow_parquet_is_501_and_says_what_to_install(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = client.get(f"{PLACE}?n=1&format=parquet")
    assert answer.status_code == 501
    assert "pip install 'ganserve[parquet]'" in answer.json()["detail"]
    assert client.get(f"{PLACE}?n=1&format=tar").status_code == 200


def test_class_names_become_folders_that_every_system_takes() -> None:
    names = ["T-shirt/top", "..", "a", "A", "con:1", "été", "a_3"]
    assert folder_names(names) == ["T-shirt_top", "1", "a", "A_3", "con_1", "été", "a_3_6"]


def test_a_failure_before_the_first_row_has_its_status(serve: Serve, dummies: Dummies) -> None:
    client = serve(open_engine=dummies)
    dummies.made[0].failure = RuntimeError("no")
    assert client.get(f"{PLACE}?n=1000").status_code == 500


def settled(engine: DummyEngine) -> int:
    """The rows that were made, once there are no more to come."""
    end = time.monotonic() + 60
    before = -1
    while before != (rows := sum(engine.batches)):
        assert time.monotonic() < end, "the work does not end"
        before = rows
        time.sleep(0.3)
    return rows


# -- a client that the test holds by the hand


class Reader:
    """An ASGI client that takes ``most`` parts of the body, then neither reads nor hangs up until told."""

    def __init__(self, query: str, most: int) -> None:
        self.query, self.most = query, most
        self.status = 0
        self.parts: list[bytes] = []
        self.stuck = asyncio.Event()
        self.gone = asyncio.Event()

    async def request(self, app: Any) -> None:
        scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "method": "GET", "scheme": "http", "path": PLACE, "raw_path": PLACE.encode(), "root_path": "",
            "query_string": self.query.encode(), "headers": [], "client": None, "server": None,
        }  # fmt: skip
        await app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif len(self.parts) == self.most:
            self.stuck.set()
            await asyncio.Event().wait()
        else:
            self.parts.append(message["body"])


@pytest.mark.parametrize("form", FORMATS)
def test_a_client_that_stops_reading_stops_the_work_and_one_that_leaves_ends_it(
    serve: Serve, dummies: Dummies, form: str
) -> None:
    client = serve(open_engine=dummies)
    engine = dummies.made[0]

    async def scenario() -> None:
        reader = Reader(f"n=1000000&format={form}&model=digits", most=520 if form == "npz" else 5)
        request = asyncio.ensure_future(reader.request(client.app))
        await asyncio.wait_for(reader.stuck.wait(), 60)
        rows = await asyncio.to_thread(settled, engine)
        ahead = (state_of(client).batcher.lanes + 1) * CHUNK_ROWS
        # parquet's parts are row groups; npz has some hundred parts of labels and seeds first.
        read = {"tar": 6, "zip": 6, "npz": 30, "parquet": 6 * 16}[form] * CHUNK_ROWS
        assert rows <= read + ahead
        reader.gone.set()
        await asyncio.wait_for(request, 30)
        assert state_of(client).batcher.queued == 0
        assert reader.status == 200

    client.portal.call(scenario)  # type: ignore[union-attr]
    rows = sum(engine.batches)
    time.sleep(0.1)
    assert sum(engine.batches) == rows


def test_a_stream_waits_where_the_queue_is_full_and_goes_on(
    serve: Serve, dummies: Dummies, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(open_engine=dummies)
    batcher = state_of(client).batcher
    generate, calls = batcher.generate, itertools.count()

    async def refusing(*arguments: Any, **named: Any) -> Any:
        if next(calls) in (1, 2, 5):
            raise Overloaded("full", 1)
        return await generate(*arguments, **named)

    monkeypatch.setattr(batcher, "generate", refusing)
    found = arrays(client, "n=500")
    assert found["seeds"].tolist() == list(range(500))
    assert next(calls) > 500 // CHUNK_ROWS + 3


def test_others_are_answered_while_a_data_set_streams(client: TestClient) -> None:
    async def scenario() -> float:
        reader = Reader("n=1000000&format=npz", most=2000)
        request = asyncio.ensure_future(reader.request(client.app))
        while len(reader.parts) < 600:
            await asyncio.sleep(0.01)
        other = Reader("n=1&seed=5", most=10)
        began = time.monotonic()
        await asyncio.wait_for(other.request(client.app), 30)
        assert other.status == 200
        reader.gone.set()
        await request
        return time.monotonic() - began

    assert client.portal.call(scenario) < 10  # type: ignore[union-attr]


@pytest.fixture
def address(repository: Repository, tmp_path: Path, dummies: Dummies) -> Iterator[tuple[str, int]]:
    app = create_app(Settings(models=repository.root, data=tmp_path, device="cpu", lanes=2), open_engine=dummies)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    thread.join(30)


def test_over_a_real_connection_hanging_up_ends_the_work(address: tuple[str, int], dummies: Dummies) -> None:
    engine = dummies.made[0]
    with socket.create_connection(address) as connection:
        connection.sendall(f"GET {PLACE}?n=1000000 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert settled(engine) < 100_000


def test_a_failure_on_the_way_breaks_the_connection_off(address: tuple[str, int], dummies: Dummies) -> None:
    engine = dummies.made[0]
    with socket.create_connection(address) as connection:
        connection.sendall(f"GET {PLACE}?n=1000000 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        content = connection.recv(4096)
        assert content.startswith(b"HTTP/1.1 200")
        engine.failure = RuntimeError("no")
        tail = content
        while part := connection.recv(1 << 16):
            tail = (tail + part)[-16:]
    # The last chunk of a whole answer is empty.
    assert not tail.endswith(b"0\r\n\r\n")


def test_a_classifier_learns_real_handwriting_from_generated_digits(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    made = create_app(Settings(models=SHIPPED, data=tmp_path, device="cpu", lanes=1))
    with TestClient(made) as client:
        rows = ("n=400", "n=200&offset=400")
        train, test = (arrays(client, f"model=mnist-projgan&version=1&{which}") for which in rows)

    def small(images: np.ndarray) -> np.ndarray:
        """As the real ones are: the middle 20 pixels of 28 as 8 x 8, from 0 to 1."""
        shrunk = [Image.fromarray(image[4:24, 4:24, 0]).resize((8, 8), Image.Resampling.BOX) for image in images]
        return np.stack([np.asarray(image) for image in shrunk]).reshape(len(images), -1) / 255

    classifier = LogisticRegression(max_iter=500).fit(small(train["images"]), train["labels"])
    real = load_digits()
    # Of ten classes, chance is 0.1.
    assert classifier.score(small(test["images"]), test["labels"]) > 0.7
    assert classifier.score(real.data / 16, real.target) > 0.35
