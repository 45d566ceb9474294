"""The worker's own life: what it hears of others, and how it begins. tests/faults has the rest."""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from ganserve.events import FINISH
from training import worker
from training.retrain.site import Config
from training.worker import Silence, Worker, main


def test_a_worker_is_silent_when_its_beat_has_not_changed_for_too_long_by_ones_own_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    silence = Silence(15.0)
    assert silence.listen({"a": 7, "b": 1}) == set(), "whoever is heard of for the first time lives"
    now += 10
    assert silence.listen({"a": 7, "b": 2}) == set()
    now += 6
    assert silence.listen({"a": 7, "b": 2}) == {"a"}
    assert silence.listen({"a": 8, "b": 2}) == set(), "it was only late"
    assert silence.listen({}) == set()


def a_worker(tmp_path: Path) -> Worker:
    return Worker(Config(f"sqlite:///{tmp_path}/queue/jobs.sqlite", tmp_path, tmp_path / "models", "w"))


def test_a_worker_whose_database_has_no_place_yet_waits_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "AGAIN_SECONDS", 0.05)
    (tmp_path / "queue").write_text("a file where the folder shall be")
    begun = a_worker(tmp_path)

    def make_room() -> None:
        while not caplog.records:
            time.sleep(0.01)
        (tmp_path / "queue").unlink()

    caplog.set_level(logging.WARNING, "ganserve.worker")
    room = threading.Thread(target=make_room)
    room.start()
    begun._patiently(begun.site.database.prepare)
    room.join()
    begun.beat()
    assert begun.site.database.workers() == ["w"]
    assert "the queue's database does not answer, trying again" in caplog.text
    begun.site.database.engine.dispose()


def test_a_worker_hears_that_its_job_shall_end_early_and_tells_the_run_whatever_its_attempt(tmp_path: Path) -> None:
    begun = a_worker(tmp_path)
    begun.site.database.prepare()
    begun.site.job, begun.site.run = "a", tmp_path / "first"
    begun.site.run.mkdir()
    begun.beat()
    assert not (tmp_path / "first" / FINISH).exists()
    begun.site.database.finish("a")
    begun.beat()
    assert (tmp_path / "first" / FINISH).exists()
    begun.site.run = tmp_path / "not-made-yet" / "run"
    begun.beat()
    begun.site.run = None
    begun.beat()
    begun.site.database.engine.dispose()


@pytest.mark.parametrize(
    "error",
    [
        sa.exc.OperationalError("select", {}, Exception("refused")),
        sa.exc.InternalError("select", {}, Exception("recovering")),
        sa.exc.ProgrammingError("select", {}, Exception("no such schema yet")),
        sa.exc.TimeoutError("no connection"),
        ConnectionResetError("reset"),
    ],
)
def test_whichever_way_a_database_says_that_it_is_not_up_a_worker_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(worker, "AGAIN_SECONDS", 0.0)
    answers = iter([error, error, None])

    def action() -> None:
        if (found := next(answers)) is not None:
            raise found

    a_worker(tmp_path)._patiently(action)
    assert next(answers, "none is left") == "none is left"


def test_a_mistake_of_our_own_is_no_database_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        a_worker(tmp_path)._patiently(lambda: 1 / 0)


def test_a_worker_that_is_told_to_end_while_it_waits_ends(tmp_path: Path) -> None:
    begun = a_worker(tmp_path)

    def away() -> None:
        begun.stopping.set()
        raise sa.exc.OperationalError("select", {}, Exception("refused"))

    with pytest.raises(SystemExit) as ended:
        begun._patiently(away)
    assert ended.value.code == 0


def test_a_database_of_another_kind_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--jobs-db", "mysql://host/jobs"])
    assert ended.value.code == 2
    assert "--jobs-db: or GANSERVE_JOBS_DB: expected postgresql://" in capsys.readouterr().err.splitlines()[-1]


def test_a_worker_without_pytorch_does_not_begin_and_names_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit) as ended:
        main(["--data", str(tmp_path / "var")])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "the extra `training`" in told
    assert "pip install" in told
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("place", ["data", "models"])
def test_a_file_in_a_folders_place_is_refused_at_once(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    folders = {"data": tmp_path / "var", "models": tmp_path / "models", place: tmp_path / "file"}
    with pytest.raises(SystemExit) as left:
        main([f"--{name}={folder}" for name, folder in folders.items()])
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        f"error: --{place} or GANSERVE_{place.upper()} is {tmp_path / 'file'}, which is a file: expected a folder\n"
    )
