"""A folder becomes a store and a store a folder: nothing is lost, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganserve import commands, copying, copying_data
from ganserve.bucket import BucketStore
from ganserve.card import ModelCorrupt, VersionRemoved
from ganserve.copying import CopyRefused
from ganserve.repository import Repository
from ganserve.runs import StoredRuns
from ganserve.store import Away, Missing, Unreadable
from tests import stores
from tests.tiny import card, network, publish


def content(repository: Repository, name: str) -> dict[str, bytes]:
    return {
        f"{version}/{part}": repository.store.read(f"{name}/{version}/{part}")
        for version in repository.versions(name)
        for part in ("model.onnx", "card.json", "samples.png")
    }


@pytest.fixture
def folder(tmp_path: Path) -> Repository:
    """Three versions of ``m``, of which 2 is removed and 1 live, with a measurement; and ``n``."""
    made = Repository(tmp_path / "folder")
    for seed in (1, 2):
        publish(made, "m", seed=seed)
    made.publish(card("m"), network(seed=3), b"\x89PNG", job_id="job", logged=b'{"log": []}')
    made.promote("m", 1)
    made.remove("m", 2)
    made.record("m", 1, {"frechet": 1.5})
    publish(made, "n", seed=4)
    return made


def test_models_go_to_a_store_and_back_with_all_that_belongs_to_them(
    folder: Repository, bucket: str, tmp_path: Path
) -> None:
    store, back = Repository(bucket), Repository(tmp_path / "back")
    for source, target in ((folder, store), (store, back)):
        assert copying.models(source, target).versions == ["m:1", "m:3", "n:1"]
        for name in ("m", "n"):
            assert content(target, name) == content(folder, name)
            assert target.live_pointer(name) == folder.live_pointer(name)
        assert target.measures("m", 1) == [{"frechet": 1.5}]
        assert (target.logged("m", 1), target.logged("m", 3)) == (None, b'{"log": []}')
        assert f"versions: [ {target.live('m')} ]" in target.store.read("m/config.pbtxt").decode()
        with pytest.raises(VersionRemoved):
            target.card("m", 2)
    assert store.publish(card("m"), network(seed=9), b"\x89PNG", job_id="job") == 3
    assert publish(back, "m", seed=5) == 4


def test_what_came_since_is_brought_by_another_copy_and_nothing_twice(folder: Repository, bucket: str) -> None:
    store = Repository(bucket)
    copying.models(folder, store)
    publish(folder, "m", seed=7)
    folder.record("m", 1, {"frechet": 1.4})
    again = copying.models(folder, store)
    assert (again.versions, again.there, again.live, again.measures) == (["m:4"], 3, ["m:4"], 1)
    assert store.live("m") == 4
    store.promote("m", 1)
    assert copying.models(folder, store, ["m"]).live == []
    assert store.live("m") == 1


def test_a_copy_that_was_cut_goes_on_where_it_was(folder: Repository, bucket: str, proxy: stores.Proxy) -> None:
    store = Repository(bucket, BucketStore(bucket, patience=0.2))  # type: ignore[arg-type]
    cut = [False]

    def fault(method: str, path: str) -> str | None:
        cut[0] = cut[0] or (method == "PUT" and path.endswith("m/3/samples.png"))
        return "cut" if cut[0] else None

    proxy.fault = fault
    with pytest.raises(Away):
        copying.models(folder, store)
    proxy.fault = lambda method, path: None
    whole = Repository(bucket)
    assert whole.versions("m") == [1]
    done = copying.models(folder, whole)
    assert (done.versions, done.there) == (["m:3", "n:1"], 1)
    assert content(whole, "m") == content(folder, "m")


def test_a_number_that_means_another_version_there_is_refused_and_stays(folder: Repository, bucket: str) -> None:
    store = Repository(bucket)
    publish(store, "m", seed=8)
    before = content(store, "m")
    with pytest.raises(CopyRefused, match="m version 1 is another one there"):
        copying.models(folder, store)
    assert content(store, "m") == before


def a_job(data: Path) -> None:
    run = data / "runs" / "job" / "attempt-2"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "step-000000020.pt").write_bytes(b"state")
    (run / "config.json").write_text("{}")
    (run / ".config.json.x.partial").write_text("half")
    (data / "runs" / "job" / "init.safetensors").write_bytes(b"weights")
    (data / "runs" / "job" / "init.json").write_text('["cat", "dog"]')
    exported = Repository(data / "runs" / "job" / "export")
    exported.publish(card("m"), network(seed=3), b"\x89PNG", job_id="job")
    (data / "datasets" / "pets" / "cat").mkdir(parents=True)
    (data / "datasets" / "pets" / "cat" / "000001.png").write_bytes(b"picture")
    (data / "datasets" / "pets" / "dataset.json").write_text('{"name": "pets"}')
    (data / "datasets" / "pets" / ".samples.png").write_bytes(b"sheet")


def test_uploads_and_half_done_jobs_go_to_a_store_and_back(bucket: str, tmp_path: Path) -> None:
    data, back = tmp_path / "data-1", tmp_path / "data-2"
    a_job(data)
    for _ in range(2):
        copying_data.data(data, bucket)
    runs = StoredRuns(BucketStore(bucket))
    assert runs.furthest("job") == ("step-000000020.pt", 2)
    for _ in range(2):
        copying_data.data(bucket, back)
    for name in (
        "runs/job/attempt-2/checkpoints/step-000000020.pt",
        "runs/job/attempt-2/config.json",
        "runs/job/init.safetensors",
        "datasets/pets/cat/000001.png",
        "datasets/pets/.samples.png",
        "runs/job/export/m/1/model.onnx",
    ):
        assert (back / name).read_bytes() == (data / name).read_bytes()
    assert json.loads((back / "runs/job/init.json").read_bytes()) == ["cat", "dog"]
    assert json.loads((back / "datasets/pets/dataset.json").read_bytes()) == {"name": "pets"}
    assert not list(back.rglob("*.partial"))


@pytest.mark.parametrize("through_a_store", [False, True])
def test_of_a_job_that_has_gone_on_since_everything_is_brought_and_one_that_is_further_stays(
    bucket: str, tmp_path: Path, through_a_store: bool
) -> None:
    data, back = tmp_path / "data-1", tmp_path / "data-2"
    a_job(data)
    run, there = data / "runs/job/attempt-2", back / "runs/job/attempt-2"

    def copy() -> None:
        if through_a_store:
            copying_data.data(data, bucket)
        copying_data.data(bucket if through_a_store else data, back)

    (run / "best.safetensors").write_bytes(b"of step 20")
    copy()
    (run / "checkpoints" / "step-000000040.pt").write_bytes(b"later")
    (run / "best.safetensors").write_bytes(b"of step 40")
    copy()
    assert (there / "checkpoints" / "step-000000040.pt").read_bytes() == b"later"
    assert (there / "best.safetensors").read_bytes() == b"of step 40"
    assert not list(back.rglob("*.partial"))
    (there / "checkpoints" / "step-000000060.pt").write_bytes(b"by the worker there")
    (there / "best.safetensors").write_bytes(b"of step 60")
    copy()
    assert (there / "best.safetensors").read_bytes() == b"of step 60"


@pytest.mark.parametrize("place", ["folder", "store"])
def test_names_that_nothing_has_are_said_before_anything_is_copied(bucket: str, tmp_path: Path, place: str) -> None:
    data, back = tmp_path / "data-1", tmp_path / "data-2"
    a_job(data)
    copying_data.data(data, bucket)
    with pytest.raises(Missing, match="has no data set or job 'other', 'pet'"):
        copying_data.data(data if place == "folder" else bucket, back, ["pets", "pet", "other"])
    assert not back.exists()
    copying_data.data(data if place == "folder" else bucket, back, ["job"])
    assert not (back / "datasets").exists()
    assert (back / "runs/job/init.json").exists()


@pytest.mark.parametrize("part", ["model.onnx", "card.json"])
def test_a_damaged_source_is_refused_and_brings_nothing_of_the_damaged(
    folder: Repository, bucket: str, tmp_path: Path, part: str
) -> None:
    path = tmp_path / "folder" / "m" / "3" / part
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    store = Repository(bucket)
    with pytest.raises(ModelCorrupt, match="m version 3"):
        copying.models(folder, store)
    assert store.versions("m") == [1]
    path.write_bytes(whole)
    assert copying.models(folder, store).versions == ["m:3", "n:1"]
    assert content(store, "m") == content(folder, "m")


def test_a_damaged_part_of_an_upload_or_a_checkpoint_brings_no_file_of_it(bucket: str, tmp_path: Path) -> None:
    data, back = tmp_path / "data-1", tmp_path / "data-2"
    a_job(data)
    copying_data.data(data, bucket)
    store = BucketStore(bucket)
    for below in ("datasets/pets", "runs/job/attempt-2"):
        [*_, (key, _)] = store.below(f"{below}/parts")
        kept = store.read(key)
        store.delete(key)
        store.put(key, b"another")
        with pytest.raises(Unreadable, match="a part is not what its name says"):
            copying_data.data(bucket, back)
        assert not (back / below).exists()
        store.delete(key)
        store.put(key, kept)
    copying_data.data(bucket, back)
    assert (back / "runs/job/attempt-2/checkpoints/step-000000020.pt").read_bytes() == b"state"


@pytest.mark.parametrize("kind", ["models", "data"])
def test_a_copy_that_is_killed_anywhere_is_ended_by_another(
    folder: Repository, bucket: str, proxy: stores.Proxy, tmp_path: Path, kind: str
) -> None:
    a_job(tmp_path / "data")
    source = tmp_path / ("folder" if kind == "models" else "data")
    command = [sys.executable, "-m", "ganserve", "copy", *(["--data"] if kind == "data" else []), str(source), bucket]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    # Waiting gives the killer its time.
    proxy.fault = lambda method, path: 0.05
    for requests in (4, 9, 14):
        proxy.asked.clear()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(proxy.asked) < requests:
            time.sleep(0.005)
        process.kill()
        process.wait()
    proxy.fault = lambda method, path: None
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    store = Repository(bucket)
    if kind == "models":
        for name in ("m", "n"):
            assert content(store, name) == content(folder, name)
            assert store.live_pointer(name) == folder.live_pointer(name)
    else:
        back = tmp_path / "back"
        copying_data.data(bucket, back)
        for name in ("runs/job/attempt-2/checkpoints/step-000000020.pt", "datasets/pets/.samples.png"):
            assert (back / name).read_bytes() == (source / name).read_bytes()


def test_the_command_copies_lists_and_says_what_is_wrong(
    folder: Repository, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["copy", str(folder.root), bucket, "m"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 versions copied, 0 were there; 1 pointers moved"
    assert commands.main(["models", bucket]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["m", "1", "1,3", "3"]
    for arguments, said in (
        (["copy", str(folder.root), bucket, "nothing"], "no model 'nothing'"),
        (["copy", str(folder.root / "absent"), bucket], "is no folder"),
        (["copy", bucket, bucket], "the same place"),
        (["copy", bucket, "http://user:secret@host/models"], "expected a folder"),
        (["models", "https://user:secret@host"], "expected a folder"),
    ):
        assert commands.main(arguments) == 2
        told = capsys.readouterr().err
        assert said in told
        assert "secret" not in told
        assert len(told.splitlines()) == 1
