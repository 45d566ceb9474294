from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ganserve import Generator, shipped
from ganserve.repository import Repository
from ganserve.settings import PREFERRED
from tests.tiny import publish


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "models"


def test_the_shipped_model_is_settled_where_nothing_stands_and_gives_the_same_pictures(models: Path) -> None:
    source = shipped.folder()
    assert source is not None
    version = shipped.settle(models)
    assert version == json.loads((source / "live.json").read_text())["version"]
    assert [path.name for path in models.parent.iterdir()] == ["models"]
    settled, original = (Generator(place).generate(n=12, seed=7) for place in (models / PREFERRED, source))
    assert settled.addresses == original.addresses
    assert np.array_equal(settled.images, original.images)


def test_a_job_after_it_gets_a_number_of_its_own_and_the_version_stays(models: Path) -> None:
    version = shipped.settle(models)
    assert version is not None
    repository = Repository(models)
    assert repository.versions(PREFERRED) == [version]
    # The version before it is not there: rolling back to it could not be.
    pointer = repository.live_pointer(PREFERRED)
    assert pointer is not None
    assert (pointer.version, pointer.previous) == (version, None)
    before = contents(models / PREFERRED / str(version))
    publish(repository, PREFERRED, seed=1)
    assert repository.versions(PREFERRED) == [version, version + 1]
    assert contents(models / PREFERRED / str(version)) == before


def test_a_training_can_begin_from_its_weights(models: Path) -> None:
    version = shipped.settle(models)
    assert version is not None
    card = Repository(models).card(PREFERRED, version)
    assert card.weights_sha256 is not None
    assert (models / PREFERRED / str(version) / "weights.safetensors").stat().st_size > 0


@pytest.mark.parametrize("kind", ["folder", "empty", "file", "link to nothing"])
def test_whatever_stands_there_is_left_alone(tmp_path: Path, kind: str) -> None:
    models = tmp_path / "models"
    if kind == "folder":
        (models / "mine").mkdir(parents=True)
    elif kind == "empty":
        models.mkdir()
    elif kind == "file":
        models.write_text("notes")
    else:
        os.symlink(tmp_path / "nowhere", models)
    before = sorted(tmp_path.rglob("*"))
    assert shipped.settle(models) is None
    assert sorted(tmp_path.rglob("*")) == before


def test_a_package_without_the_model_settles_nothing(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "_HOMES", ())
    assert shipped.settle(models) is None
    assert not models.parent.exists()


def test_what_ends_in_between_leaves_nothing(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: Path, target: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.rename", broken)
    with pytest.raises(OSError, match="no space"):
        shipped.settle(models)
    assert list(models.parent.iterdir()) == []


def test_two_that_begin_at_once_settle_one(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def later(source: Path, target: Path) -> None:
        monkeypatch.setattr("os.rename", rename)
        assert shipped.settle(models) is not None
        rename(source, target)

    monkeypatch.setattr("os.rename", later)
    assert shipped.settle(models) is None
    assert [path.name for path in models.parent.iterdir()] == ["models"]
    assert Generator(models / PREFERRED).generate(seed=1).version
