from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ganserve import files
from ganserve import store as module
from ganserve.card import (
    ImageShape,
    ModelCard,
    ModelCorrupt,
    ModelNotFound,
    ModelUnreadable,
    PublishRefused,
    VersionLive,
    VersionNotFound,
    VersionRemoved,
)
from ganserve.repository import Repository
from ganserve.store import StoreError
from tests.onnx_models import tiny_generator

ONNX = tiny_generator()


def card(**more: Any) -> ModelCard:
    fields: dict[str, Any] = {
        "name": "tiny",
        "version": 1,
        "recipe": "cgan",
        "source": "a test",
        "dataset": "none",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "conditional": True,
        "classes": ["a", "b", "c"],
        "z": 8,
        "latent_recipe": "philox-normal/v1",
        "image": ImageShape(height=8, width=8, channels=1),
        "opset": 20,
        "sha256": "0" * 64,
        "file_bytes": 0,
        "parameters": 1,
    }
    return ModelCard(**{**fields, **more})


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """One live version."""
    made = Repository(tmp_path / "models")
    made.publish(card(), ONNX, b"png")
    made.promote("tiny", 1)
    return made


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_what_is_published_is_read_back(repository: Repository) -> None:
    assert repository.names() == ["tiny"]
    assert repository.versions("tiny") == [1]
    found, content = repository.read("tiny", 1)
    assert content == ONNX
    assert (found.name, found.version, found.file_bytes) == ("tiny", 1, len(ONNX))
    assert repository.samples("tiny", 1) == b"png"
    assert repository.logged("tiny", 1) is None
    assert repository.logged("tiny", repository.publish(card(), ONNX, b"png", logged=b"{}")) == b"{}"


def test_a_new_version_is_not_live_until_it_is_promoted(repository: Repository) -> None:
    assert repository.publish(card(), tiny_generator(seed=1), b"") == 2
    assert repository.live("tiny") == 1
    pointer = repository.promote("tiny", 2)
    assert (pointer.version, pointer.previous) == (2, 1)
    assert "versions: [ 2 ]" in (repository.root / "tiny" / "config.pbtxt").read_text()


def test_roll_back_returns_to_the_version_before(repository: Repository) -> None:
    repository.publish(card(), ONNX, b"")
    repository.promote("tiny", 2)
    assert repository.rollback("tiny").version == 1
    assert repository.live("tiny") == 1


def test_there_is_nothing_to_roll_back_to_at_first(repository: Repository) -> None:
    with pytest.raises(VersionNotFound, match="no previous version"):
        repository.rollback("tiny")


def test_promoting_the_live_version_keeps_its_predecessor(repository: Repository) -> None:
    repository.publish(card(), ONNX, b"")
    repository.promote("tiny", 2)
    assert repository.promote("tiny", 2).previous == 1


def test_a_removed_version_is_gone_for_good_and_its_number_is_never_given_again(repository: Repository) -> None:
    repository.publish(card(), ONNX, b"")
    repository.record("tiny", 2, {"frechet": 1.0})
    repository.remove("tiny", 2)
    assert repository.versions("tiny") == [1]
    assert not [path for path in repository.root.rglob("*") if "2" in path.parts or ".staging" in path.name]
    for ask in (repository.card, repository.read, repository.remove, repository.promote):
        with pytest.raises(VersionRemoved, match="removed for good: there are 1"):
            ask("tiny", 2)
    assert repository.publish(card(), ONNX, b"") == 3
    with pytest.raises(VersionNotFound) as caught:
        repository.card("tiny", 9)
    assert not isinstance(caught.value, VersionRemoved)


def test_the_live_version_stays_and_nothing_is_rolled_back_to_a_removed_one(repository: Repository) -> None:
    repository.publish(card(), ONNX, b"")
    repository.promote("tiny", 2)
    before = tree(repository.root)
    with pytest.raises(VersionLive, match="promote another version first"):
        repository.remove("tiny", 2)
    assert tree(repository.root) == before
    repository.remove("tiny", 1)
    assert repository.live("tiny") == 2
    with pytest.raises(VersionNotFound, match="no previous version"):
        repository.rollback("tiny")


def test_a_removal_that_a_crash_cut_off_can_be_made_again(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.publish(card(), ONNX, b"")
    with monkeypatch.context() as patched:
        patched.setattr(repository.store, "remove", _killed)
        with pytest.raises(KeyboardInterrupt):
            repository.remove("tiny", 2)
    assert repository.verify("tiny", 2).version == 2
    repository.remove("tiny", 2)
    assert repository.versions("tiny") == [1]


def test_a_version_is_removed_from_a_full_disk_where_its_own_pictures_make_the_room(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.publish(card(), ONNX, b"picture")
    pictures = repository.root / "tiny" / "2" / "samples.png"
    write = files.write

    def full(path: Path, content: bytes) -> None:
        if pictures.exists():
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(files, "write", full)
    repository.remove("tiny", 2)
    with pytest.raises(VersionRemoved):
        repository.card("tiny", 2)
    assert not [path for path in repository.root.rglob("*") if "2" in path.parts or ".staging" in path.name]
    assert repository.publish(card(), ONNX, b"") == 3
    # Without such a part it is said, and the version stays.
    (repository.root / "tiny" / "3" / "samples.png").unlink()
    monkeypatch.setattr(files, "write", lambda path, content: _full())
    with pytest.raises(OSError, match="No space left"):
        repository.remove("tiny", 3)
    assert repository.verify("tiny", 3).version == 3


GIGABYTES = ("2/model.onnx", "2/card.json", "2/samples.png", "live.json", ".removed", ".highest", "config.pbtxt")


@pytest.mark.parametrize("part", GIGABYTES)
def test_a_file_of_gigabytes_in_the_place_of_another_costs_no_memory(repository: Repository, part: str) -> None:
    repository.publish(card(), ONNX, b"")
    repository.record("tiny", 2, {"frechet": 1.0})
    for place in (repository.root / "tiny" / part, repository.root / "tiny" / "2" / "measures.jsonl"):
        place.unlink(missing_ok=True)
        with place.open("wb") as file:
            file.truncate((1 << 31) - 1)
    tracemalloc.start()
    try:
        for ask in (
            lambda: repository.read("tiny", 2),
            lambda: repository.live("tiny"),
            lambda: repository.measures("tiny", 2),
            lambda: repository.samples("tiny", 2),
            lambda: repository.removed("tiny"),
            lambda: repository.promote("tiny", 2),
            lambda: repository.publish(card(), ONNX, b""),
        ):
            with contextlib.suppress(ModelUnreadable, StoreError, PublishRefused):
                ask()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50 << 20
    if part == "2/model.onnx":
        with pytest.raises(ModelUnreadable, match=r"it has 2147483647 bytes; at most 67108864 are read"):
            repository.read("tiny", 2)


def _full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _killed(prefix: str) -> None:
    raise KeyboardInterrupt


def test_a_version_number_is_never_given_twice(repository: Repository) -> None:
    repository.publish(card(), ONNX, b"")
    repository.promote("tiny", 2)
    shutil.rmtree(repository.root / "tiny" / "2")
    assert repository.publish(card(), ONNX, b"") == 3


def test_the_number_of_a_removed_candidate_is_not_given_again(repository: Repository) -> None:
    repository.publish(card(), ONNX, b"")
    shutil.rmtree(repository.root / "tiny" / "2")
    assert repository.publish(card(), ONNX, b"") == 3


def test_what_stands_in_a_versions_place_does_not_stop_a_publish(repository: Repository) -> None:
    (repository.root / "tiny" / "2").write_text("a stray file")
    (repository.root / "tiny" / "3").symlink_to(repository.root)
    assert repository.publish(card(), ONNX, b"") == 4
    assert repository.versions("tiny") == [1, 4]


@pytest.mark.parametrize(("classes", "channels"), [(3, 1), (None, 3)])
def test_tritons_own_parser_reads_the_configuration(tmp_path: Path, classes: int | None, channels: int) -> None:
    made = Repository(tmp_path)
    shape = ImageShape(height=6, width=8, channels=channels)
    told = card(conditional=classes is not None, classes=["a", "b", "c"] if classes else [], image=shape)
    for _ in range(2):
        made.publish(told, tiny_generator(classes=classes, height=6, channels=channels), b"")
    made.promote("tiny", 2)
    config = text_format.Parse((tmp_path / "tiny" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "onnxruntime", 64)
    inputs = [(i.name, model_config_pb2.DataType.Name(i.data_type), list(i.dims)) for i in config.input]
    label = [("label", "TYPE_INT64", [1])] if classes else []
    assert inputs == [("latent", "TYPE_FP32", [8]), *label]
    outputs = [(o.name, model_config_pb2.DataType.Name(o.data_type), list(o.dims)) for o in config.output]
    assert outputs == [("image", "TYPE_UINT8", [6, 8, channels])]
    assert config.HasField("dynamic_batching")
    assert list(config.version_policy.specific.versions) == [2]


def test_publishing_for_one_job_twice_gives_one_version(repository: Repository) -> None:
    first = repository.publish(card(), ONNX, b"", job_id="j1")
    assert repository.publish(card(), ONNX, b"", job_id="j1") == first == 2
    assert repository.publish(card(), ONNX, b"", job_id="j2") == 3


def test_publishers_side_by_side_get_a_version_each(repository: Repository) -> None:
    with ThreadPoolExecutor(4) as threads:
        versions = list(threads.map(lambda i: repository.publish(card(), tiny_generator(seed=i), b""), range(6)))
    assert sorted(versions) == [2, 3, 4, 5, 6, 7]


def test_measurements_stand_beside_a_version_that_never_changes(repository: Repository) -> None:
    folder = repository.root / "tiny" / "1"
    before = {name: (folder / name).read_bytes() for name in ("card.json", "model.onnx", "samples.png")}
    assert repository.measures("tiny", 1) == []
    repository.record("tiny", 1, {"frechet": 1.5})
    repository.record("tiny", 1, {"frechet": 1.25, "kid": 0.1})
    assert repository.measures("tiny", 1) == [{"frechet": 1.5}, {"frechet": 1.25, "kid": 0.1}]
    assert repository.scores("tiny", 1) == {"frechet": 1.25, "kid": 0.1}
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_the_scores_that_a_card_was_published_with_count_until_it_is_measured_again(repository: Repository) -> None:
    repository.publish(card(metrics={"frechet": 2.0}), ONNX, b"")
    assert repository.scores("tiny", 2) == {"frechet": 2.0}
    repository.record("tiny", 2, {"frechet": 1.0})
    assert repository.scores("tiny", 2) == {"frechet": 1.0}


def test_a_measurement_that_a_crash_cut_short_costs_no_other(repository: Repository) -> None:
    repository.record("tiny", 1, {"frechet": 1.5})
    with (repository.root / "tiny" / "1" / "measures.jsonl").open("a") as file:
        file.write('{"frechet": 1.')
    repository.record("tiny", 1, {"frechet": 1.25})
    assert repository.measures("tiny", 1) == [{"frechet": 1.5}, {"frechet": 1.25}]


def test_what_was_never_published_cannot_be_measured(repository: Repository) -> None:
    with pytest.raises(VersionNotFound):
        repository.record("tiny", 9, {"frechet": 1.5})
    assert not (repository.root / "tiny" / "9").exists()


def damage_flip(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[100] ^= 1
    (folder / "model.onnx").write_bytes(content)


def damage_truncate(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(ONNX[:50])


def damage_swap(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(tiny_generator(seed=9))


def damage_remove(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def damage_card(folder: Path) -> None:
    (folder / "card.json").write_text("{not json")


def damage_moved(folder: Path) -> None:
    told = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**told, "version": 7}))


def damage_name(folder: Path) -> None:
    told = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**told, "name": "other"}))


def damage_digest(folder: Path) -> None:
    told = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**told, "sha256": "0" * 64}))


def damage_link(folder: Path) -> None:
    """Even to the right bytes: what is outside can change after it was checked."""
    (folder / "model.onnx").rename(folder.parent.parent / "outside.onnx")
    (folder / "model.onnx").symlink_to(folder.parent.parent / "outside.onnx")


@pytest.mark.parametrize(
    "damage",
    [
        damage_flip,
        damage_truncate,
        damage_swap,
        damage_remove,
        damage_card,
        damage_moved,
        damage_name,
        damage_digest,
        damage_link,
    ],
)
def test_a_damaged_version_is_named_and_never_promoted(repository: Repository, damage: Any) -> None:
    repository.publish(card(), ONNX, b"")
    damage(repository.root / "tiny" / "2")
    with pytest.raises(ModelCorrupt, match="tiny version 2"):
        repository.verify("tiny", 2)
    before = tree(repository.root)
    with pytest.raises(ModelCorrupt):
        repository.promote("tiny", 2)
    assert tree(repository.root) == before


@pytest.mark.parametrize("name", ["../tiny", "Tiny", "", ".", "tiny/1", "a" * 3, "a" * 300, "a" * 5000])
def test_a_name_that_is_no_model_is_not_found(repository: Repository, name: str) -> None:
    with pytest.raises(ModelNotFound, match="there are tiny"):
        repository.versions(name)
    for ask in (repository.live_pointer, repository.live):
        with pytest.raises(ModelNotFound, match="there are tiny"):
            ask(name)


@pytest.mark.parametrize("version", [9, 2**31 + 1, 10**300])
def test_a_version_that_there_is_not_is_not_found_however_large(repository: Repository, version: int) -> None:
    with pytest.raises(VersionNotFound, match="there are 1"):
        repository.verify("tiny", version)


def test_numbers_too_long_for_a_version_are_passed_over(repository: Repository) -> None:
    for note in (".removed", ".highest"):
        (repository.root / "tiny" / note).write_text("9" * 5000 + "\n7\n" if note == ".removed" else "9" * 5000)
    assert repository.removed("tiny") == {7}
    assert repository.versions("tiny") == [1]


def test_a_link_out_of_the_repository_is_no_model(repository: Repository, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(repository.root / "tiny", outside)
    (repository.root / "linked").symlink_to(outside)
    assert repository.names() == ["tiny"]
    with pytest.raises(ModelNotFound):
        repository.card("linked", 1)


def test_a_sample_sheet_that_links_elsewhere_is_not_handed_out(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    sheet = repository.root / "tiny" / "1" / "samples.png"
    sheet.unlink()
    sheet.symlink_to(tmp_path / "secret")
    with pytest.raises(ModelUnreadable, match=r"samples\.png cannot be read .*is a link"):
        repository.samples("tiny", 1)


def test_a_broken_pointer_says_how_to_mend_it_and_that_mends_it(repository: Repository) -> None:
    pointer = repository.root / "tiny" / "live.json"
    pointer.write_text("{")
    with pytest.raises(ModelCorrupt, match="remove it and promote a version"):
        repository.live("tiny")
    pointer.unlink()
    assert repository.promote("tiny", 1).version == 1


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"z": 9}, "the graph takes"),
        ({"conditional": False, "classes": []}, "the graph takes"),
        ({"image": ImageShape(height=9, width=8, channels=1)}, "its card says"),
        ({"classes": ["a", "b", "c", "one too many"]}, "the last of 4 classes"),
        ({"classes": []}, "expected classes for a conditional model"),
        ({"latent_recipe": "mersenne/v1"}, "expected one of philox-normal/v1"),
    ],
)
def test_a_graph_that_is_not_what_its_card_says_is_refused(
    repository: Repository, wrong: dict[str, Any], told: str
) -> None:
    before = tree(repository.root)
    with pytest.raises(PublishRefused, match=told):
        repository.publish(card(**wrong), ONNX, b"")
    assert tree(repository.root) == before


def test_what_is_no_graph_is_refused(repository: Repository) -> None:
    with pytest.raises(PublishRefused, match="cannot load"):
        repository.publish(card(), b"not onnx", b"")


class _PowerCut(BaseException):
    pass


@pytest.mark.parametrize("action", ["publish", "promote"])
def test_an_end_at_any_step_leaves_the_old_version_live_or_the_new_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    cut_at = 0
    while True:
        repository = Repository(tmp_path / f"{action}-{cut_at}")
        repository.publish(card(), ONNX, b"")
        repository.promote("tiny", 1)
        if action == "promote":
            repository.publish(card(), tiny_generator(seed=1), b"")
        steps = 0

        def counted(plain: Any, cut_at: int = cut_at) -> Any:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal steps
                steps += 1
                if steps == cut_at + 1:
                    raise _PowerCut
                return plain(*arguments, **named)

            return call

        with monkeypatch.context() as patch:
            for name in ("fsync", "replace", "rename"):
                patch.setattr(os, name, counted(getattr(os, name)))
            patch.setattr(shutil, "rmtree", lambda *a, **k: None)  # a dead process tidies nothing
            cut = False
            try:
                if action == "publish":
                    repository.publish(card(), tiny_generator(seed=1), b"", job_id="job")
                else:
                    repository.promote("tiny", 2)
            except _PowerCut:
                cut = True
        live = repository.live("tiny")
        assert live in ((1,) if action == "publish" else (1, 2))
        for version in repository.versions("tiny"):
            repository.verify("tiny", version)
        # And the next attempt works.
        if action == "publish":
            repository.promote("tiny", repository.publish(card(), tiny_generator(seed=1), b"", job_id="job"))
            assert repository.versions("tiny") == [1, 2], "the job has one version, wherever its first attempt ended"
        else:
            repository.promote("tiny", 2)
        assert f"versions: [ {repository.live('tiny')} ]" in (repository.root / "tiny" / "config.pbtxt").read_text()
        if not cut:
            assert cut_at >= 4, "the walk over the steps must have had steps"
            return
        cut_at += 1


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ganserve import repository, store
from tests.ganserve.test_repository import ONNX, card
plain = os.rename
def die(*a):
    os.kill(os.getpid(), signal.SIGKILL)
store.os.rename = die
repository.Repository(Path(sys.argv[1])).publish(card(), ONNX, b"")
"""


def test_a_publisher_killed_before_the_rename_leaves_nothing_that_counts(repository: Repository) -> None:
    project = str(Path(module.__file__).parents[1])
    command = [sys.executable, "-c", KILLED, str(repository.root), project]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert repository.versions("tiny") == [1]
    leftovers = list((repository.root / "tiny").glob(".staging-*"))
    assert len(leftovers) == 1
    old = time.time() - 2 * module.STALE_SECONDS
    os.utime(leftovers[0], (old, old))
    partial = repository.root / "tiny" / "1" / ".card.json.0.partial"
    partial.write_text("what a killed writer leaves")
    os.utime(partial, (old, old))
    young = repository.root / "tiny" / ".staging-young"
    young.mkdir()
    assert repository.publish(card(), ONNX, b"") == 2
    assert list((repository.root / "tiny").glob(".staging-*")) == [young]
    assert not partial.exists()


def test_an_empty_or_absent_repository_has_no_names(tmp_path: Path) -> None:
    assert Repository(tmp_path).names() == []
    assert Repository(tmp_path / "absent").names() == []
