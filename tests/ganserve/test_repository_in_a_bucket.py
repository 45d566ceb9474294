"""The repository's promises without a lock: several writers, none of whom knows of the others."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from ganserve.bucket import BucketStore
from ganserve.card import LivePointer, PointerMoved, VersionLive, VersionRemoved
from ganserve.repository import Repository
from tests.tiny import card, network, publish

SAMPLES = b"\x89PNG\r\n\x1a\nsamples"


def writer(url: str) -> Repository:
    return Repository(url)


def config(repository: Repository, name: str = "m") -> str:
    return repository.store.read(f"{name}/config.pbtxt").decode()


def test_a_model_is_published_promoted_rolled_back_and_removed(bucket: str) -> None:
    repository = writer(bucket)
    assert [publish(repository, "m", seed=seed) for seed in (1, 2)] == [1, 2]
    assert (repository.names(), repository.versions("m"), repository.live("m")) == (["m"], [1, 2], 2)
    assert repository.read("m", 1)[1] == network(seed=1)
    assert repository.rollback("m").version == 1
    assert "versions: [ 1 ]" in config(repository)
    repository.record("m", 1, {"frechet": 1.0})
    assert repository.measures("m", 1) == [{"frechet": 1.0}]
    repository.remove("m", 2)
    assert (repository.versions("m"), repository.live_pointer("m").previous) == ([1], None)  # type: ignore[union-attr]
    with pytest.raises(VersionRemoved):
        repository.card("m", 2)
    with pytest.raises(VersionLive):
        repository.remove("m", 1)
    assert publish(repository, "m", seed=3) == 3


def test_writers_side_by_side_get_a_version_each_and_none_is_mixed(bucket: str) -> None:
    with ThreadPoolExecutor(6) as threads:
        versions = list(threads.map(lambda seed: publish(writer(bucket), "m", seed=seed, live=False), range(6)))
    repository = writer(bucket)
    assert sorted(versions) == repository.versions("m") == [1, 2, 3, 4, 5, 6]
    for seed, version in enumerate(versions):
        assert repository.read("m", version)[1] == network(seed=seed)
    assert publish(repository, "m") == 7


def test_workers_of_one_job_make_one_version_whatever_each_of_them_made(bucket: str) -> None:
    def work(seed: int) -> int:
        return writer(bucket).publish(card("m"), network(seed=seed), SAMPLES, job_id="job")

    with ThreadPoolExecutor(6) as threads:
        versions = set(threads.map(work, range(6)))
    repository = writer(bucket)
    assert repository.versions("m") == list(versions)
    assert len(versions) == 1
    found, content = repository.read("m", versions.pop())
    assert (found.job_id, hashlib.sha256(content).hexdigest()) == ("job", found.sha256)
    assert work(9) == repository.versions("m")[0]


def test_a_worker_that_slept_through_the_end_of_its_job_makes_nothing_of_its_own(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stops before its commit, another ends the job elsewhere, and the first goes on."""
    put = BucketStore.put
    slept: list[str | int] = []

    def sleeping(self: BucketStore, key: str, content: bytes) -> bool:
        if key.endswith("/card.json") and content and not slept:
            slept.append(key)
            slept.append(writer(bucket).publish(card("m"), network(seed=2), SAMPLES, job_id="job"))
        return put(self, key, content)

    monkeypatch.setattr(BucketStore, "put", sleeping)
    version = writer(bucket).publish(card("m"), network(seed=1), SAMPLES, job_id="job")
    assert slept == ["m/1/card.json", 2]
    assert version == 2
    repository = writer(bucket)
    assert repository.versions("m") == [2]
    assert repository.read("m", 2)[1] == network(seed=2)


def test_a_job_whose_number_another_writer_took_gets_the_next_one(bucket: str) -> None:
    repository = writer(bucket)
    publish(repository, "m", seed=1)
    repository.store.replace("m/.jobs/job", b"1\n", None)
    assert repository.publish(card("m"), network(seed=2), SAMPLES, job_id="job") == 2
    assert repository.read("m", 1)[1] == network(seed=1)


def test_promotions_raced_from_ten_clients_have_one_order_and_all_agree(bucket: str) -> None:
    repository = writer(bucket)
    for seed in range(4):
        publish(repository, "m", seed=seed, live=seed == 0)
    with ThreadPoolExecutor(10) as threads:
        pointers = list(threads.map(lambda i: writer(bucket).promote("m", 1 + (i + 1) % 4), range(10)))
    live = repository.live_pointer("m")
    assert live is not None
    assert live in pointers
    assert f"versions: [ {live.version} ]" in config(repository)
    # Each pointer tells what it took the place of: from the live one, the links lead back to the first.
    links = {pointer.promoted_at: pointer for pointer in pointers}
    order = [live.version]
    for _, pointer in sorted(links.items(), reverse=True):
        assert pointer.version == order[-1]
        order.append(pointer.previous or 0)
    assert order[-1] in (0, 1)
    assert all(writer(bucket).live_pointer("m") == live for _ in range(3))


def test_a_promotion_that_expects_another_pointer_changes_nothing(bucket: str) -> None:
    repository = writer(bucket)
    publish(repository, "m", seed=1)
    seen = repository.live_pointer("m")
    publish(repository, "m", seed=2)
    with pytest.raises(PointerMoved):
        repository.promote("m", 1, seen)
    assert repository.live("m") == 2


def test_a_version_that_is_removed_while_it_is_promoted_is_not_live_afterwards(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = writer(bucket)
    for seed in (1, 2):
        publish(repository, "m", seed=seed, live=seed == 1)
    replace = BucketStore.replace
    removed: list[int] = []

    def late(self: BucketStore, key: str, content: bytes, expected: bytes | None) -> bool:
        if key == "m/live.json" and not removed:
            removed.append(2)
            writer(bucket).remove("m", 2)
        return replace(self, key, content, expected)

    monkeypatch.setattr(BucketStore, "replace", late)
    with pytest.raises(VersionRemoved):
        repository.promote("m", 2)
    assert (repository.live("m"), repository.versions("m")) == (1, [1])


def test_a_config_that_disagrees_is_mended_by_whoever_looks(bucket: str) -> None:
    repository = writer(bucket)
    for seed in (1, 2):
        publish(repository, "m", seed=seed)
    right = config(repository)
    repository.store.replace("m/config.pbtxt", b"of version 1", right.encode())
    repository.mend("m")
    assert config(repository) == right


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_off_by_an_hour_does_no_harm(bucket: str, hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(hours=hours)

    store = BucketStore(bucket)
    store.put("m/1/model.onnx", b"another writer is at work here")
    with monkeypatch.context() as patched:
        for module in ("ganserve.repository", "ganserve.bucket"):
            patched.setattr(f"{module}.datetime", Wrong)
        assert publish(writer(bucket), "m", seed=1) == 2
    right = writer(bucket)
    assert publish(right, "m", seed=2) == 3
    assert right.live("m") == 3
    assert right.promote("m", 2).version == 2
    assert store.names("m/1") == ["model.onnx"]


def test_pointers_are_those_that_a_folder_has(bucket: str) -> None:
    repository = writer(bucket)
    publish(repository, "m")
    assert LivePointer.model_validate_json(repository.store.read("m/live.json")) == repository.live_pointer("m")
