"""What jobs leave in an object store: enough to go on from, each attempt's own, and no more than that."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganserve import blobs, runs
from ganserve.bucket import BucketStore
from ganserve.runs import Known, StoredRuns


@pytest.fixture
def stored(bucket: str) -> StoredRuns:
    return StoredRuns(BucketStore(bucket))


def write(run: Path, **contents: bytes) -> None:
    for name, content in contents.items():
        path = run / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def keys(stored: StoredRuns, prefix: str = "runs") -> list[str]:
    return [key for key, _ in stored.store.below(prefix)]


def test_a_number_is_one_workers_alone(stored: StoredRuns) -> None:
    assert stored.claim("job", 1)
    assert not stored.claim("job", 1)
    assert stored.claim("job", 2)
    assert sorted(stored.attempts("job")) == [1, 2]
    assert stored.furthest("job") == ("", 2)


def test_another_machine_gets_the_files_of_the_newest_checkpoint(stored: StoredRuns, tmp_path: Path) -> None:
    known: Known = {}
    stored.claim("job", 1)
    write(tmp_path / "run", checkpoints__a_dot_pt=b"x" * 5000, config_dot_json=b"{}")
    (tmp_path / "run" / ".config.json.x.partial").write_bytes(b"half")
    write(tmp_path / "run", **{"samples__fresh-000000005_dot_png": b"old"})
    write(tmp_path / "run", **{"samples__fresh-000000010_dot_png": b"new"})
    stored.push("runs/job/attempt-1", tmp_path / "run", known)
    assert stored.furthest("job") == ("a.pt", 1)
    stored.bring("runs/job/attempt-1", tmp_path / "other")
    here = {name: content for name, content in tree(tmp_path / "run").items() if not name.startswith(".")}
    del here["samples/fresh-000000005.png"]
    assert tree(tmp_path / "other") == here
    assert stored.sheet("job", "fresh") == b"new"
    assert stored.sheet("job", "same-noise") is None


def test_checkpoints_that_the_run_let_go_are_removed_and_nothing_is_sent_twice(
    stored: StoredRuns, tmp_path: Path
) -> None:
    known: Known = {}
    stored.claim("job", 1)
    for step in range(5):
        for old in (tmp_path / "checkpoints").glob("*"):
            old.unlink()
        write(tmp_path, config_dot_json=b"{}", **{f"checkpoints__step-{step}_dot_pt": bytes([step]) * 1000})
        stored.push("runs/job/attempt-1", tmp_path, known)
    parts = [key for key in keys(stored) if key.endswith(".part")]
    assert len(parts) == 2
    assert stored.furthest("job") == ("step-4.pt", 1)


def test_an_attempt_that_comes_back_late_touches_nothing_of_the_one_that_took_over(
    stored: StoredRuns, tmp_path: Path
) -> None:
    late: Known = {}
    stored.claim("job", 1)
    write(tmp_path / "one", checkpoints__a_dot_pt=b"same")
    stored.push("runs/job/attempt-1", tmp_path / "one", late)
    stored.claim("job", 2)
    stored.bring("runs/job/attempt-1", tmp_path / "two")
    stored.push("runs/job/attempt-2", tmp_path / "two", {})
    (tmp_path / "one" / "checkpoints" / "a.pt").unlink()
    write(tmp_path / "one", checkpoints__b_dot_pt=b"another")
    stored.push("runs/job/attempt-1", tmp_path / "one", late)
    stored.bring("runs/job/attempt-2", tmp_path / "three")
    assert tree(tmp_path / "three") == {"checkpoints/a.pt": b"same"}


def test_the_weights_that_a_job_begins_from_are_those_that_its_first_worker_chose(
    stored: StoredRuns, tmp_path: Path
) -> None:
    assert stored.init("job", tmp_path / "none") is None
    write(tmp_path, one=b"1", two=b"2")
    stored.keep_init("job", tmp_path / "one", ["cat", "dog"])
    stored.keep_init("job", tmp_path / "two", ["dog", "cat"])
    assert stored.init("job", tmp_path / "chosen") == ["cat", "dog"]
    assert (tmp_path / "chosen").read_bytes() == b"1"


def test_of_a_job_that_has_ended_only_its_sheets_stay_and_of_one_under_way_everything(
    stored: StoredRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, checkpoints__a_dot_pt=b"state", **{"samples__fresh-000000005_dot_png": b"sheet"})
    for job in ("ended", "under-way"):
        stored.claim(job, 1)
        stored.push(f"runs/{job}/attempt-1", tmp_path, {})
        blobs.send(stored.store, f"runs/{job}/attempt-1", tmp_path / "samples" / "fresh-000000005.png")
        (tmp_path / "left").write_bytes(job.encode())
        blobs.send(stored.store, f"runs/{job}/attempt-1", tmp_path / "left")
        (tmp_path / "left").unlink()
    before = keys(stored)
    stored.sweep({"under-way"})
    assert keys(stored) == before
    monkeypatch.setattr(runs, "ENDED_SECONDS", -5.0)
    stored.sweep({"under-way"})
    assert len(keys(stored, "runs/ended")) == 2
    assert (stored.sheet("ended", "fresh"), stored.furthest("ended")[0]) == (b"sheet", "")
    assert stored.furthest("under-way")[0] == "a.pt"
    monkeypatch.setattr(blobs, "ABANDONED_SECONDS", -5.0)
    stored.sweep({"under-way"})
    assert len([key for key in keys(stored, "runs/under-way") if key.endswith(".part")]) == 2


def test_a_name_that_leads_out_of_the_run_is_refused(stored: StoredRuns, tmp_path: Path) -> None:
    stored.claim("job", 1)
    blob = blobs.send(stored.store, "runs/job/attempt-1", Path(__file__))
    stored.store.replace("runs/job/attempt-1/run.json", runs._told({"../../x": blob}), runs._told({}))
    with pytest.raises(ValueError, match="outside of it"):
        stored.bring("runs/job/attempt-1", tmp_path / "a" / "b")
    assert not (tmp_path / "x").exists()
