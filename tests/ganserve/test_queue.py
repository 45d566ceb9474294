"""The queue's database tells who works, who may, and how often on end a job was begun at one place."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from ganserve.queue import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/jobs.sqlite")
    database.prepare()
    yield database
    database.engine.dispose()


def add_job(database: Database, job: str, status: str, owner: str | None = None, done: tuple[str, ...] = ()) -> None:
    """A row as DBOS has it."""
    with database.engine.begin() as connection:
        jobs = sa.Table("workflow_status", sa.MetaData(), autoload_with=connection)
        row = {"workflow_uuid": job, "name": "retrain", "status": status, "executor_id": owner}
        required = {c.name: 0 for c in jobs.c if not c.nullable and c.server_default is None}
        connection.execute(sa.insert(jobs), {**required, **row})
        outcomes = sa.Table("operation_outputs", sa.MetaData(), autoload_with=connection)
        for number, step in enumerate(done):
            connection.execute(
                sa.insert(outcomes), {"workflow_uuid": job, "function_id": number, "function_name": step}
            )


def test_tables_are_made_once_however_often(database: Database) -> None:
    database.beat("w1", "here", 1)
    database.prepare()
    assert database.beats() == {"w1": 1}


def test_parts_of_a_second_are_told_by_any_sqlite_also_to_an_engine_that_dbos_makes(database: Database) -> None:
    for engine in (database.engine, sa.create_engine(database.url)):
        with engine.begin() as connection:
            made = "CREATE TABLE IF NOT EXISTS t (at INTEGER DEFAULT (unixepoch('subsec') * 1000))"
            connection.execute(sa.text(made))
            connection.execute(sa.text("INSERT INTO t DEFAULT VALUES"))
            told = connection.execute(sa.text("SELECT max(at) FROM t")).scalar_one()
        assert abs(told / 1000 - time.time()) < 60
        engine.dispose()


def test_jobs_are_counted_by_status_and_known_by_id(database: Database) -> None:
    for job, status in (("a", "ENQUEUED"), ("b", "ENQUEUED"), ("c", "PENDING"), ("d", "SUCCESS")):
        add_job(database, job, status, owner="w1")
    assert database.counts() == {"ENQUEUED": 2, "PENDING": 1, "SUCCESS": 1}
    assert database.owners() == {"w1"}
    with database.alone() as connection:
        assert database.waiting(connection) == 2
        assert database.knows(connection, "d")
        assert not database.knows(connection, "e")


def test_a_job_goes_on_with_its_first_step_that_has_no_outcome(database: Database) -> None:
    add_job(database, "a", "PENDING", done=("DBOS.setEvent", "train", "export"))
    assert database.next_step("a") == "evaluate"
    assert database.next_step("unknown") == "train"


def test_a_worker_is_heard_of_until_it_says_that_it_ends(database: Database) -> None:
    database.beat("w1", "here", 1)
    database.beat("w1", "here", 2)
    database.beat("w2", "there", 1)
    assert database.beats() == {"w1": 2, "w2": 1}
    assert database.workers() == ["w1", "w2"]
    database.leave("w1", None)
    assert database.workers() == ["w2"]


def test_attempts_at_one_place_add_up_and_another_place_begins_anew(database: Database) -> None:
    add_job(database, "a", "PENDING")
    assert [database.count_attempt("a", "train ") for _ in range(3)] == [1, 2, 3]
    database.leave("w1", "a")
    assert database.count_attempt("a", "train ") == 3, "a worker that was told to end did not die"
    assert database.count_attempt("a", "train step-1.pt") == 1


def test_attempts_of_ended_jobs_are_forgotten(database: Database) -> None:
    add_job(database, "a", "PENDING")
    database.count_attempt("a", "train ")
    database.count_attempt("gone", "train ")
    database.count_attempt("a", "train ")
    assert database.count_attempt("gone", "train ") == 1


def test_a_job_that_shall_end_early_is_known_until_it_has_ended(database: Database) -> None:
    add_job(database, "a", "PENDING")
    for _ in range(2):
        database.finish("a")
    database.finish("gone")
    assert (database.finishes("a"), database.finishes("gone"), database.finishes("b")) == (True, True, False)
    database.count_attempt("a", "train ")
    assert (database.finishes("a"), database.finishes("gone")) == (True, False)


def test_another_database_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="GANSERVE_JOBS_DB: mysql is not supported"):
        Database("mysql://host/jobs")


def test_postgresql_without_its_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ValueError, match="needs the extra `postgres`: pip install"):
        Database("postgresql://somebody@nowhere/jobs")
