"""A run goes up beside its training, and nothing of the training waits for that."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from ganserve.bucket import BucketStore
from ganserve.card import ModelUnreadable
from ganserve.runs import StoredRuns
from ganserve.store import Away
from tests import stores
from training.retrain import mirror
from training.retrain.mirror import Mirror, patiently, store_is_away


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return tmp_path / "run"


def checkpoint(run: Path, step: int) -> None:
    (run / "checkpoints" / f"step-{step:09d}.pt").write_bytes(bytes([step]) * 1000)


def until(condition: object) -> None:
    end = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_each_checkpoint_goes_up_and_all_else_at_the_end(
    bucket: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "LOOK_SECONDS", 0.02)
    stored = StoredRuns(BucketStore(bucket))
    stored.claim("job", 1)
    put_up = Mirror(stored, "runs/job/attempt-1", run)
    for step in (1, 2):
        checkpoint(run, step)
        until(lambda step=step: stored.furthest("job") == (f"step-{step:09d}.pt", 1))
    (run / "best.safetensors").write_bytes(b"weights")
    put_up.finish()
    assert "best.safetensors" in stored.files("runs/job/attempt-1")


def test_a_store_that_is_away_costs_no_checkpoint(
    bucket: str, run: Path, proxy: stores.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(mirror, "AGAIN_SECONDS", 0.05)
    stored = StoredRuns(BucketStore(bucket, patience=0.1))
    stored.claim("job", 1)
    proxy.fault = lambda method, path: "503"
    put_up = Mirror(stored, "runs/job/attempt-1", run)
    checkpoint(run, 1)
    asked = len(proxy.asked)
    until(lambda: len(proxy.asked) > asked + 3)

    async def end() -> None:
        finishing = asyncio.create_task(patiently(put_up.finish))
        await asyncio.sleep(0.3)
        assert not finishing.done()
        proxy.fault = lambda method, path: None
        await finishing

    asyncio.run(end())
    assert stored.furthest("job") == ("step-000000001.pt", 1)


def test_what_is_wrong_with_a_job_is_not_taken_for_a_store_that_is_away() -> None:
    tries = []

    def fail() -> None:
        tries.append(1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(patiently(fail))
    assert tries == [1]


def test_an_absence_is_known_through_what_it_brought_about() -> None:
    error = ModelUnreadable("m version 1: card.json cannot be read")
    assert not store_is_away(error)
    error.__cause__ = Away("s3://bucket does not answer")
    assert store_is_away(error)
