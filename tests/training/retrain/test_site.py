"""What a job's children are told of its data set: an upload or a name, never a folder of the worker's own disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganserve.bucket import BucketStore
from ganserve.kept import KeptSets
from ganserve.store import Unfit
from tests import stores
from training.retrain.site import Config, JobFailed, Site


def a_site(tmp_path: Path, local_datasets: bool = False) -> Site:
    database = f"sqlite:///{tmp_path}/jobs.sqlite"
    return Site(Config(database, tmp_path / "var", tmp_path / "models", "w", local_datasets=local_datasets))


@pytest.fixture
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the worker was started: it holds folders that are named as data sets could be."""
    for name in ("owner/name", "letters", "digits"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["owner/name", "letters"])
def test_a_name_that_is_a_folder_where_the_worker_was_started_is_refused_with_what_to_do(
    below: Path, name: str
) -> None:
    with pytest.raises(JobFailed) as refused:
        a_site(below).dataset({"dataset": name})
    said = str(refused.value)
    assert repr(name) in said
    assert "PUT /datasets" in said
    assert "GANSERVE_LOCAL_DATASETS" in said
    assert str(below) not in said, "no one is told where the worker's disk has what"


def test_a_folder_is_read_where_the_worker_allows_it(below: Path) -> None:
    assert a_site(below, local_datasets=True).dataset({"dataset": "owner/name"}) == "owner/name"


def test_uploads_digits_and_names_of_the_hub_are_meant_as_ever(below: Path) -> None:
    upload = below / "var" / "datasets" / "letters"
    upload.mkdir(parents=True)
    site = a_site(below)
    assert site.dataset({"dataset": "letters"}) == str(upload)
    assert site.dataset({"dataset": "digits"}) == "digits"
    assert site.dataset({"dataset": "ylecun/mnist"}) == "ylecun/mnist"


def test_a_worker_refuses_stores_that_ignore_conditions_and_waits_for_one_that_is_away(
    bucket: str, proxy: stores.Proxy, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path}/jobs.sqlite"
    site = Site(Config(database, tmp_path / "var", f"{bucket}/models", "w", store=f"{bucket}/store"))
    site.check()
    proxy.unconditional = True
    for places in ({"models": f"{bucket}/models"}, {"models": tmp_path / "models", "store": f"{bucket}/store"}):
        with pytest.raises(Unfit, match="conditional requests"):
            Site(Config(jobs_db=database, data=tmp_path / "var", worker_id="w", **places)).check()


def test_an_upload_is_fetched_from_the_store_and_one_that_is_not_there_is_said(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "cat" / "000001.png").write_bytes(b"picture")
    KeptSets(BucketStore(f"{bucket}/store")).keep("pets", tmp_path / "pets", b"{}", None)
    database = f"sqlite:///{tmp_path}/jobs.sqlite"
    site = Site(Config(database, tmp_path / "var", f"{bucket}/models", "w", store=f"{bucket}/store"))
    folder = Path(site.dataset({"dataset": "pets"}))
    assert (folder.name, [path.name for path in folder.rglob("*.png")]) == ("pets", ["000001.png"])
    with pytest.raises(JobFailed, match="there is no upload 'cats'"):
        site.dataset({"dataset": "cats"})
