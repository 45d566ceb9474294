"""The store's promises, on a real S3 server and, where it is installed, on Azure's emulator."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ganserve import bucket as module
from ganserve import objects
from ganserve.bucket import BucketStore
from ganserve.store import Away, Missing, Unfit, Unreadable
from tests import stores

PARTS = {"model.onnx": b"1", "card.json": b"2"}


@pytest.fixture(scope="session")
def azure_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if stores.azurite_command() is None:
        pytest.skip("Azure's emulator is not installed here: npm install -g azurite, or name it in GANSERVE_AZURITE")
    with stores.azurite(tmp_path_factory.mktemp("azurite")) as port:
        yield port


@pytest.fixture(params=["s3", "az"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BucketStore:
    if request.param == "s3":
        return BucketStore(request.getfixturevalue("bucket"))
    for name, value in stores.azure_environment(request.getfixturevalue("azure_port")).items():
        monkeypatch.setenv(name, value)
    return BucketStore(f"az://{stores.BUCKET}/{uuid.uuid4().hex}")


def test_a_store_does_what_the_interface_promises(store: BucketStore) -> None:
    assert store.create("m/1", PARTS)
    assert not store.create("m/1", PARTS)
    assert {name: store.read(f"m/1/{name}") for name in store.names("m/1")} == PARTS
    assert (store.folders("m"), store.folders(), store.created("m")) == (["1"], ["m"], ["1"])
    assert store.exists("m/1")
    assert not store.exists("m/2")
    assert store.replace("m/live.json", b"one", None)
    assert not store.replace("m/live.json", b"two", None)
    assert not store.replace("m/live.json", b"two", b"another")
    assert not store.replace("m/absent", b"two", b"another")
    assert store.replace("m/live.json", b"two", b"one")
    assert store.read("m/live.json") == b"two"
    store.append("m/1/measures.jsonl", b"first")
    store.append("m/1/measures.jsonl", b"second")
    assert store.lines("m/1/measures.jsonl") == [b"first", b"second"]
    before = store.signature()
    store.replace("m/live.json", b"three", b"two")
    assert store.signature() != before
    store.remove("m/1")
    assert (store.created("m"), store.names("m"), store.lines("m/1/measures.jsonl")) == ([], ["live.json"], [])
    with pytest.raises(Missing):
        store.read("m/1/card.json")
    assert store.names(module.PROBES) == []


def test_of_many_who_create_the_same_one_wins_and_nothing_is_mixed(store: BucketStore) -> None:
    store.ensure("m")

    def attempt(i: int) -> bool:
        return store.create("m/1", {"model.onnx": b"%d" % i, "card.json": b"%d" % i})

    with ThreadPoolExecutor(8) as threads:
        won = [i for i, made in enumerate(threads.map(attempt, range(16))) if made]
    assert len(won) == 1
    assert store.read("m/1/model.onnx") == store.read("m/1/card.json") == b"%d" % won[0]


def test_of_many_counters_no_step_is_lost(store: BucketStore) -> None:
    store.replace("m/count", b"0", None)

    def count(_: int) -> None:
        # Who hears no answer finds its own content, or another's: no two write the same.
        done = False
        while not done:
            before = store.read("m/count")
            after = f"{int(before.split()[0]) + 1} {uuid.uuid4().hex}"
            done = store.replace("m/count", after.encode(), before)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(20)))
    assert store.read("m/count").split()[0] == b"20"


def test_parts_without_a_commit_count_for_nothing_and_a_sealed_place_is_never_had(store: BucketStore) -> None:
    store.put("m/1/model.onnx", b"1")
    assert (store.created("m"), store.exists("m/1"), store.folders("m")) == ([], False, ["1"])
    store.seal("m/1")
    assert not store.create("m/1", PARTS)
    assert (store.created("m"), store.exists("m/1")) == ([], False)
    assert store.create("m/2", PARTS)
    store.seal("m/2")
    assert store.exists("m/2")


def test_the_rest_of_a_crash_is_swept_after_a_day_and_a_seal_stays(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BucketStore(bucket)
    store.create("m/1", PARTS)
    for key in ("m/2/model.onnx", "m/3/model.onnx"):
        store.put(key, b"left")
    store.seal("m/3")
    store.sweep("m")
    assert store.names("m/2") == ["model.onnx"]
    monkeypatch.setattr(module, "STALE_SECONDS", -5.0)
    store.sweep("m")
    assert (store.names("m/1"), store.names("m/2"), store.names("m/3")) == (sorted(PARTS), [], ["card.json"])


def test_parts_that_were_swept_from_under_a_sleeping_writer_are_put_back(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, put = BucketStore(bucket), BucketStore.put

    def swept_before_the_commit(self: BucketStore, key: str, content: bytes) -> bool:
        if key.endswith("card.json"):
            self.delete("m/1/model.onnx")
        return put(self, key, content)

    monkeypatch.setattr(BucketStore, "put", swept_before_the_commit)
    assert store.create("m/1", PARTS)
    assert store.read("m/1/model.onnx") == b"1"


def test_writers_refuse_a_store_that_ignores_conditions_and_readers_do_not_care(
    bucket: str, proxy: stores.Proxy
) -> None:
    assert BucketStore(bucket).create("m/1", PARTS)
    proxy.unconditional = True
    careless = BucketStore(bucket)
    for write in (
        lambda: careless.create("m/2", PARTS),
        lambda: careless.replace("m/live.json", b"1", None),
        lambda: careless.remove("m/1"),
        lambda: careless.append("m/1/measures.jsonl", b"1"),
    ):
        with pytest.raises(Unfit, match="does not hold conditional requests"):
            write()
    assert careless.read("m/1/card.json") == b"2"
    assert (careless.folders("m"), careless.names("m/1"), careless.names(module.PROBES)) == (["1"], sorted(PARTS), [])


@pytest.mark.parametrize("fault", ["503", "cut", "lost"])
def test_a_request_without_an_answer_is_made_again_and_done_once(bucket: str, proxy: stores.Proxy, fault: str) -> None:
    store, failing = BucketStore(bucket), iter([True, False] * 100)
    store.ensure("m")
    proxy.fault = lambda method, path: fault if next(failing) else None
    assert store.create("m/1", PARTS)
    assert store.replace("m/live.json", b"one", None)
    assert store.replace("m/live.json", b"two", b"one")
    assert not store.replace("m/live.json", b"two", b"one")
    assert store.read("m/live.json") == b"two"
    assert store.created("m") == ["1"]


def test_a_store_that_stays_away_is_told_of_in_time_and_without_an_address_in_it(
    bucket: str, proxy: stores.Proxy
) -> None:
    store = BucketStore(bucket, patience=0.3)
    proxy.fault = lambda method, path: "503"
    with pytest.raises(Away) as told:
        store.read("m/live.json")
    assert str(told.value) == f"{bucket} does not answer (503 Service Unavailable)"


@pytest.mark.parametrize("fault", ["trickle", "drip"])
def test_a_large_answer_that_trickles_in_is_given_up_in_its_head_and_in_its_body(
    bucket: str, proxy: stores.Proxy, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BucketStore(bucket)
    content = bytes(range(256)) * 4096
    store.create("m/1", {"model.onnx": content, "card.json": b"{}"})
    assert store.read("m/1/model.onnx") == content
    monkeypatch.setattr(objects, "SLOW_SECONDS", 1.5)
    proxy.fault = lambda method, path: fault
    began = time.monotonic()
    with pytest.raises(Away, match="answers too slowly"):
        store.read("m/1/model.onnx")
    assert time.monotonic() - began < 10
    proxy.fault = lambda method, path: None
    assert store.read("m/1/model.onnx") == content


def test_writing_to_a_store_that_hangs_is_given_up_soon(
    bucket: str, proxy: stores.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PATIENCE_SECONDS", 0.5)
    store = BucketStore(bucket)
    proxy.fault = lambda method, path: "hang"
    began = time.monotonic()
    with pytest.raises(Away):
        store.ensure("m")
    assert time.monotonic() - began < 20


def test_a_bucket_that_is_not_there_is_told_and_nothing_is_repeated(bucket: str, proxy: stores.Proxy) -> None:
    store = BucketStore("s3://nowhere/models")
    for ask in (lambda: store.read("m/live.json"), store.folders, lambda: store.put("m/1", b"")):
        proxy.asked.clear()
        with pytest.raises(Unreadable, match="bucket"):
            ask()
        assert len(proxy.asked) == 1


def test_a_look_at_pointers_lists_nothing_and_names_are_looked_at_within_ten_seconds(
    bucket: str, proxy: stores.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BucketStore(bucket)
    store.replace("m/live.json", b"one", None)
    first = store.signature()
    proxy.asked.clear()
    assert store.signature() == first
    assert [(method, path.split("?")[0].rpartition("/")[2]) for method, path in proxy.asked] == [("HEAD", "live.json")]
    store.replace("n/live.json", b"one", None)
    assert module.PAUSE_SECONDS < 5
    assert module.SELDOM_SECONDS + module.PAUSE_SECONDS < 10
    monkeypatch.setattr(module, "SELDOM_SECONDS", 0.0)
    assert store.signature() != first
