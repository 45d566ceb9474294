"""The queue keeps every job, makes none twice, and says no in words."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from ganserve.queue import Database
from service.jobs import (
    InvalidJob,
    JobFinished,
    JobRequest,
    JobStore,
    JobsUnavailable,
    KeyReused,
    QueueFull,
    UnknownJob,
    check_request,
    recipes,
)

BOUNDS = {
    "tiny": {
        "conditional": True,
        "overrides": {
            "batch": {"type": "int", "min": 2, "max": 64, "default": 8},
            "ema": {"type": "float", "min": 0.0, "max": 0.999, "default": 0.9},
            "loss": {"type": "choice", "choices": ["bce", "hinge"], "default": "bce"},
        },
    }
}


def request(**more: Any) -> JobRequest:
    return JobRequest(**{"model": "m", "recipe": "tiny", "dataset": "digits", "images": 1000, **more})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(f"sqlite:///{tmp_path}/queue/jobs.sqlite", bounds=BOUNDS, queue_limit=5)
    yield store
    store.close()


def test_a_job_is_queued_at_once_and_can_be_read_back(store: JobStore) -> None:
    job, new = store.submit(request(seed=5, overrides={"batch": 16}))
    assert new
    assert (job.state, job.progress, job.error, job.attempts) == ("queued", None, None, 0)
    assert job.request["overrides"] == {"batch": 16}
    assert store.get(job.id) == job
    assert store.workers() == []


def test_a_seed_that_was_left_out_is_drawn_once_and_told(store: JobStore) -> None:
    job, _ = store.submit(request())
    assert 0 <= job.request["seed"] < 2**31
    assert store.get(job.id).request["seed"] == job.request["seed"]


def test_ten_clients_with_one_key_make_one_job(store: JobStore) -> None:
    with ThreadPoolExecutor(10) as clients:
        answers = list(clients.map(lambda _: store.submit(request(), "same"), range(10)))
    assert len({job.id for job, _ in answers}) == 1
    assert [new for _, new in answers].count(True) == 1
    assert len(store.page()) == 1


def test_a_key_belongs_to_one_request(store: JobStore) -> None:
    store.submit(request(), "key")
    with pytest.raises(KeyReused):
        store.submit(request(images=999), "key")


def test_a_thousand_posts_never_pass_the_bound(store: JobStore) -> None:
    def post(_: int) -> str:
        try:
            return store.submit(request())[0].id
        except QueueFull as full:
            return "" if full.retry_after > 0 else "no time to come back"

    with ThreadPoolExecutor(10) as clients:
        taken = [job for job in clients.map(post, range(1000)) if job]
    assert len(taken) == 5
    assert {job.id for job in store.page()} == set(taken)
    store.cancel(taken[0])
    assert post(0)


def test_a_known_key_is_answered_even_when_the_queue_is_full(store: JobStore) -> None:
    first, _ = store.submit(request(), "first")
    for _ in range(4):
        store.submit(request())
    assert store.submit(request(), "first") == (first, False)


def test_jobs_are_listed_newest_first_by_state_and_page(store: JobStore) -> None:
    made = [store.submit(request(images=n))[0].id for n in range(1, 5)]
    store.cancel(made[1])
    assert {job.id for job in store.page()} == set(made)
    assert [job.id for job in store.page(state="cancelled")] == [made[1]]
    assert store.page(state="succeeded") == []
    pages = [job.id for offset in range(4) for job in store.page(limit=1, offset=offset)]
    assert pages == [job.id for job in store.page()]


def test_cancelling_twice_is_no_mistake(store: JobStore) -> None:
    job, _ = store.submit(request())
    assert store.cancel(job.id).state == "cancelled"
    again = store.cancel(job.id)
    assert again.state == "cancelled"
    assert again.finished


def test_only_a_job_that_trains_can_end_early(store: JobStore) -> None:
    job, _ = store.submit(request())
    with pytest.raises(JobFinished, match=r"does not train \(queued\)"):
        store.finish(job.id)
    database = store._database
    assert database is not None
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE workflow_status SET status = 'PENDING'"))
    for _ in range(2):
        assert store.finish(job.id).state == "running"
    assert database.finishes(job.id)
    store.cancel(job.id)
    with pytest.raises(JobFinished, match=r"does not train \(cancelled\)"):
        store.finish(job.id)
    with pytest.raises(UnknownJob):
        store.finish("nothing")


def test_an_unknown_job_is_named(store: JobStore) -> None:
    for call in (store.get, store.cancel):
        with pytest.raises(UnknownJob, match="nothing"):
            call("nothing")


def test_what_is_queued_survives_the_service(store: JobStore, tmp_path: Path) -> None:
    job, _ = store.submit(request(), "key")
    store.close()
    other = JobStore(store.url, bounds=BOUNDS)
    assert other.submit(request(), "key") == (job, False)
    other.close()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"batch": 1}, "overrides.batch: 1 is out of bounds; expected int from 2 to 64"),
        ({"batch": 2.5}, "is not whole"),
        ({"batch": True}, "is not a number"),
        ({"ema": "much"}, "is not a number"),
        ({"ema": math.nan}, "is out of bounds"),
        ({"ema": math.inf}, "is out of bounds"),
        ({"batch": math.inf}, "is out of bounds"),
        ({"loss": "mse"}, "is none of bce, hinge"),
        ({"lr": 1}, "has no such override; expected: batch, ema, loss"),
    ],
)
def test_overrides_are_held_to_the_recipes_bounds(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidJob, match=words):
        check_request(request().model_copy(update={"overrides": overrides}), BOUNDS)


def test_every_mistake_is_listed(store: JobStore) -> None:
    with pytest.raises(InvalidJob) as caught:
        store.submit(request(overrides={"batch": 1000, "ema": -1}))
    assert len(caught.value.reasons) == 2


def test_an_unknown_recipe_is_answered_with_the_known_ones(store: JobStore) -> None:
    with pytest.raises(InvalidJob, match="expected one of tiny"):
        store.submit(request(recipe="huge"))


def test_the_shipped_bounds_accept_each_recipes_own_defaults() -> None:
    for name, recipe in recipes().items():
        defaults = {key: bound["default"] for key, bound in recipe["overrides"].items()}
        check_request(request(recipe=name, overrides=defaults), recipes())


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "../m"},
        {"model": "M"},
        {"dataset": "../../etc"},
        {"dataset": "/etc"},
        {"dataset": "a/../b"},
        {"images": 0},
        {"images": 10**10},
        {"seed": -1},
        {"seed": 2**53},
        {"init": "elsewhere"},
        {"promote": "perhaps"},
        {"surprise": 1},
    ],
)
def test_a_malformed_request_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(**wrong)


def test_a_data_set_that_is_not_there_is_refused(tmp_path: Path) -> None:
    store = JobStore(f"sqlite:///{tmp_path}/jobs.sqlite", bounds=BOUNDS, check_dataset=lambda name: f"no {name}")
    with pytest.raises(InvalidJob, match="dataset: no digits"):
        store.submit(request())
    store.close()


def test_a_database_that_does_not_answer_is_told_as_such() -> None:
    store = JobStore("postgresql://nobody@127.0.0.1:1/jobs", bounds=BOUNDS)
    with pytest.raises(JobsUnavailable):
        store.page()
    store.close()


def test_a_queue_whose_file_has_no_place_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "queue").write_text("a file where the folder shall be")
    store = JobStore(f"sqlite:///{tmp_path}/queue/jobs.sqlite", bounds=BOUNDS)
    with pytest.raises(JobsUnavailable, match=r"queue's file cannot be written .a file stands in its place."):
        store.page()
    store.close()


def test_the_file_is_in_wal_mode_so_that_readers_do_not_wait(store: JobStore) -> None:
    store.page()
    engine = sa.create_engine(store.url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()


def changed(store: JobStore, statement: str) -> None:
    with sa.create_engine(store.url).begin() as connection:
        connection.execute(sa.text(statement))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE workflow_status SET status = 'LATER'",
        "UPDATE workflow_status SET serialization = 'none of ours'",
        "UPDATE workflow_status SET created_at = 9223372036854775807",
        "UPDATE workflow_status SET completed_at = 9223372036854775807",
        "UPDATE workflow_input SET inputs = NULL",
        "UPDATE workflow_input SET inputs = '{\"positionalArgs\": [5]}'",
        "UPDATE workflow_input SET inputs = '[['",
    ],
)
def test_a_row_that_is_none_of_ours_is_a_job_that_has_failed_and_hides_no_other(store: JobStore, damage: str) -> None:
    bad, _ = store.submit(request(), "key")
    changed(store, damage)
    good, _ = store.submit(request())
    told = {job.id: job for job in store.page()}
    assert told[good.id] == good
    assert (told[bad.id].state, told[bad.id].request) == ("failed", {})
    assert "damaged" in str(told[bad.id].error)
    assert store.get(bad.id) == told[bad.id]
    assert sum(store.counts().values()) >= 1
    with pytest.raises(JobFinished, match="has failed"):
        store.cancel(bad.id)
    with pytest.raises(KeyReused):
        store.submit(request(images=999), "key")


@pytest.mark.parametrize(
    ("told", "state"), [("5", "failed"), ("[]", "failed"), ("[[", "running"), ('{"step": 5}', "failed")]
)
def test_progress_that_is_none_of_ours_hides_no_job(store: JobStore, told: str, state: str) -> None:
    job, _ = store.submit(request())
    changed(store, "UPDATE workflow_status SET status = 'PENDING'")
    row = f"'{job.id}', 'progress', '{told}', 'portable_json'"
    changed(store, f"INSERT INTO workflow_events (workflow_uuid, key, value, serialization) VALUES ({row})")
    assert [found.state for found in store.page()] == [state]


@pytest.mark.parametrize("name", ["a\0b", "\u2028", "x" * 10_000, "", "1; DROP TABLE workflow_status"])
def test_what_cannot_be_the_id_of_a_job_is_unknown_whatever_the_database_says_to_it(store: JobStore, name: str) -> None:
    with pytest.raises(UnknownJob):
        store.get(name)


def test_a_queue_that_was_removed_is_made_again_and_takes_jobs_that_its_readers_see(
    store: JobStore, tmp_path: Path
) -> None:
    store.submit(request())
    for part in (tmp_path / "queue").iterdir():
        part.unlink()
    job, _ = store.submit(request())
    reader = JobStore(store.url, bounds=BOUNDS)
    assert [found.id for found in reader.page()] == [job.id]
    reader.close()
    changed(store, "DROP TABLE ganserve_workers")
    with pytest.raises(JobsUnavailable):
        store.workers()
    assert store.workers() == []


def test_a_database_that_hangs_at_the_first_call_does_not_keep_the_service_from_its_end(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, answer = threading.Event(), threading.Event()

    def hang(database: Database) -> None:
        begun.set()
        answer.wait(20)

    monkeypatch.setattr(Database, "prepare", hang)
    asking = threading.Thread(target=lambda: suppressed(store.page))
    asking.start()
    assert begun.wait(10)
    before = time.monotonic()
    store.close()
    assert time.monotonic() - before < 10
    answer.set()
    asking.join(10)


def suppressed(call: Callable[[], object]) -> None:
    with suppress(JobsUnavailable):
        call()
