"""The retraining queue as the service sees it: submit, list, read, cancel.

The service never trains. It writes a row into the queue (DBOS, in SQLite or PostgreSQL) and reads rows; a
process of ``python -m training.worker`` takes the jobs out. Both sides agree on ``ganserve/queue.py`` and on
nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ganserve.files import unwritable
from ganserve.latents import MAX_SEED
from ganserve.queue import (
    APPLICATION_NAME,
    APPLICATION_VERSION,
    PROGRESS,
    QUEUE,
    WORKFLOW,
    Database,
    is_away,
    sqlite_file,
)
from service.job import STATES, STATUSES, Job, State, asked, read

if TYPE_CHECKING:
    # Imported where it is used: to load it takes as long as the rest of a start, and many services never see a job.
    from dbos import DBOSClient, EnqueueOptions, WorkflowStatus

DEFAULT_QUEUE_LIMIT = 100
CLOSE_SECONDS = 1.0
_JOB_KEYS = uuid.UUID("5e2a3d8e-4c70-4b1a-9f0e-2f6f6b1d7a10")

# Nothing else was ever given to a job.
_IDS = re.compile(r"[0-9a-zA-Z-]{1,64}")

log = logging.getLogger(__name__)


# JobsError
# ├── UnknownJob          404
# ├── InvalidJob          422  with one line a mistake
# ├── KeyReused           409  the idempotency key belongs to another request
# ├── JobFinished         409  nothing left to cancel, or no training that could end early
# ├── QueueFull           429  with the seconds after which to ask again
# └── JobsUnavailable     503  the queue's database does not answer
class JobsError(Exception):
    """Anything the queue refuses; the message says what would be right."""


class UnknownJob(JobsError):  # noqa: N818
    """No job has this id."""


class InvalidJob(JobsError):  # noqa: N818
    """What was asked for cannot be trained."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class KeyReused(JobsError):  # noqa: N818
    """The idempotency key was used for a different request."""


class JobFinished(JobsError):  # noqa: N818
    """The job has ended and can no longer be cancelled; or it does not train, and cannot end that early."""


class QueueFull(JobsError):  # noqa: N818
    """As many jobs wait as may wait."""

    def __init__(self, limit: int, retry_after: int) -> None:
        super().__init__(f"{limit} jobs are waiting, as many as may wait: try again in {retry_after} s")
        self.retry_after = retry_after


class JobsUnavailable(JobsError):  # noqa: N818
    """The queue's database cannot be reached."""


class JobRequest(BaseModel):
    """What to train, on what, for how long, and when the result may go live."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)] = Field(
        description="name in the model repository; a new name makes a new model"
    )
    recipe: str = Field(max_length=64, description="a recipe of the training side, such as `cdcgan`")
    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$", max_length=128)] = Field(
        description="an uploaded data set, `digits`, or a Hugging Face data set"
    )
    images: int = Field(ge=1, le=10**9, description="budget, in images seen")
    seed: int | None = Field(default=None, ge=0, lt=MAX_SEED, description="drawn and told when left out")
    init: Literal["scratch", "live"] = "scratch"
    promote: Literal["if_better", "always", "never"] = "if_better"
    overrides: dict[str, float | int | str] = Field(default_factory=dict)


@cache
def recipes() -> dict[str, Any]:
    """Every recipe's bounds, as ``python -m training.recipes`` wrote them."""
    path = Path(__file__).with_name("recipes.json")
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def check_request(request: JobRequest, bounds: Mapping[str, Any]) -> None:
    """Hold a request against the recipe's own bounds.

    Raises:
        InvalidJob: unknown recipe, unknown override, wrong type, or out of bounds; every mistake is listed.
    """
    if request.recipe not in bounds:
        raise InvalidJob([f"recipe: {request.recipe!r} is unknown; expected one of {', '.join(sorted(bounds))}"])
    allowed: Mapping[str, Any] = bounds[request.recipe]["overrides"]
    wrong = []
    for name, value in request.overrides.items():
        if name not in allowed:
            right = ", ".join(sorted(allowed)) or "none"
            wrong.append(f"overrides.{name}: recipe {request.recipe!r} has no such override; expected: {right}")
        elif reason := _out_of_bounds(value, allowed[name]):
            wrong.append(f"overrides.{name}: {value!r} {reason}")
    if wrong:
        raise InvalidJob(wrong)


def _out_of_bounds(value: float | int | str, bound: Mapping[str, Any]) -> str | None:
    if bound["type"] == "choice":
        return None if value in bound["choices"] else f"is none of {', '.join(map(str, bound['choices']))}"
    right = f"expected {bound['type']} from {bound['min']} to {bound['max']}"
    if isinstance(value, bool | str):
        return f"is not a number; {right}"
    # Written so that NaN, which compares false with everything, is out of bounds.
    if not bound["min"] <= value <= bound["max"]:
        return f"is out of bounds; {right}"
    return f"is not whole; {right}" if bound["type"] == "int" and value != int(value) else None


class JobStore:
    """The queue. Connects at the first call; every method may be called from any thread.

    Args:
        url: SQLAlchemy URL of the queue's database.
        queue_limit: jobs that may wait at once.
        check_dataset: told a data set's name; answers why it cannot be used, or None.
        bounds: recipes by name, as in ``recipes.json``.
    """

    def __init__(
        self,
        url: str,
        *,
        queue_limit: int = DEFAULT_QUEUE_LIMIT,
        check_dataset: Callable[[str], str | None] = lambda name: None,
        bounds: Mapping[str, Any] | None = None,
    ) -> None:
        self.url = url
        self.queue_limit = queue_limit
        self._check_dataset = check_dataset
        self._bounds = bounds
        self._lock = threading.Lock()
        self._database: Database | None = None
        self._client: DBOSClient | None = None
        self._file: tuple[int, int] | None = None

    def close(self) -> None:
        """Let go of the database, unless a call hangs that would make its tables: nothing is to let go of then."""
        if self._lock.acquire(timeout=CLOSE_SECONDS):
            try:
                self._let_go()
            finally:
                self._lock.release()

    def _let_go(self) -> None:
        if self._client is not None:
            self._client.destroy()
        if self._database is not None:
            self._database.engine.dispose()
        self._client = self._database = None

    def submit(self, request: JobRequest, key: str | None = None) -> tuple[Job, bool]:
        """Queue a job; returns it and whether it is new.

        The same ``key`` with the same request returns the job it made before, however often and from however
        many clients at once.

        Raises:
            InvalidJob, KeyReused, QueueFull, JobsUnavailable
        """
        check_request(request, recipes() if self._bounds is None else self._bounds)
        if reason := self._check_dataset(request.dataset):
            raise InvalidJob([f"dataset: {reason}"])
        wanted = request.model_dump()
        # Drawn here and kept with the job, so that every attempt of it computes the same weights.
        spec = wanted if request.seed is not None else {**wanted, "seed": secrets.randbelow(2**31)}
        job_id = uuid.uuid4().hex if key is None else uuid.uuid5(_JOB_KEYS, key).hex
        with self._open() as (client, database):
            made = self._enqueue(client, database, job_id, {"spec": spec, "asked": wanted})
            job, before = self._read(client, job_id)
        if not made and before != wanted:
            raise KeyReused("this Idempotency-Key was used for another request: send a new key")
        return job, made

    def _enqueue(self, client: DBOSClient, database: Database, job_id: str, job: dict[str, Any]) -> bool:
        """Put a job into the queue; False where it is there already. Raises QueueFull."""
        # One post at a time counts and inserts, over all replicas: the bound is exact.
        with database.alone() as connection:
            if database.knows(connection, job_id):
                return False
            if database.waiting(connection) >= self.queue_limit:
                raise QueueFull(self.queue_limit, retry_after=30)
            client.enqueue_in_transaction(connection, _options(job_id), job)
            return True

    def get(self, job_id: str) -> Job:
        """One job. Raises UnknownJob, JobsUnavailable."""
        with self._open() as (client, _):
            return self._read(client, job_id)[0]

    def page(
        self, *, state: State | None = None, limit: int = 50, offset: int = 0, newest_first: bool = True
    ) -> list[Job]:
        """A page of jobs, newest first."""
        with self._open() as (client, _):
            rows = client.list_workflows(
                name=WORKFLOW,
                status=STATUSES[state] if state else None,
                limit=limit,
                offset=offset,
                sort_desc=newest_first,
            )
            return [self._job(client, row) for row in rows]

    def cancel(self, job_id: str) -> Job:
        """Stop a job; a running one ends within about a second. Cancelling twice is no mistake.

        Raises:
            UnknownJob, JobFinished, JobsUnavailable
        """
        with self._open() as (client, _):
            job, _asked = self._read(client, job_id)
            if job.state in ("succeeded", "failed"):
                raise JobFinished(f"job {job_id} has {job.state}: there is nothing left to cancel")
            if job.state != "cancelled":
                client.cancel_workflow(job_id)
            return self._read(client, job_id)[0]

    def finish(self, job_id: str) -> Job:
        """End a job's training early and go on with the best snapshot so far; within seconds. Twice is no mistake.

        Raises:
            UnknownJob, JobFinished, JobsUnavailable
        """
        with self._open() as (client, database):
            job, _asked = self._read(client, job_id)
            if job.state != "running" or job.step not in (None, "train"):
                raise JobFinished(f"job {job_id} does not train ({job.state}): only a training can be ended early")
            database.finish(job_id)
            return job

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        counts = dict.fromkeys(STATES.values(), 0)
        with self._open() as (_, database):
            for status, count in database.counts().items():
                if status in STATES:
                    counts[STATES[status]] += count
        return {str(state): count for state, count in counts.items()}

    def workers(self) -> list[str]:
        """Ids of the workers that were heard of lately."""
        with self._open() as (_, database):
            return database.workers()

    def _read(self, client: DBOSClient, job_id: str) -> tuple[Job, Any]:
        # A database need not take any text.
        rows = client.list_workflows(workflow_ids=[job_id], name=WORKFLOW) if _IDS.fullmatch(job_id) else []
        if not rows:
            raise UnknownJob(f"no job has the id {job_id!r}; GET /jobs lists them")
        return self._job(client, rows[0]), asked(rows[0])

    def _job(self, client: DBOSClient, row: WorkflowStatus) -> Job:
        import sqlalchemy as sa

        progress = None
        if row.status != "ENQUEUED" or row.recovery_attempts:
            try:
                progress = client.get_event(row.workflow_id, PROGRESS, timeout_seconds=0)
            except sa.exc.SQLAlchemyError:
                raise
            except Exception as error:
                # Whatever its decoder says of what is none of ours.
                log.warning("what job %s has told cannot be read: %r", row.workflow_id, error)
        return read(row, progress)

    @contextmanager
    def _open(self) -> Iterator[tuple[DBOSClient, Database]]:
        import sqlalchemy as sa
        from dbos import DBOSClient

        try:
            with self._lock:
                if self._client is not None and self._file != _identity(self.url):
                    # Removed, with the queue in it: what is written to it now, nobody would ever read.
                    self._let_go()
                if self._client is None:
                    self._database = Database(self.url)
                    self._database.prepare()
                    self._client = DBOSClient(
                        system_database_engine=self._database.engine,
                        application_name=APPLICATION_NAME,
                        retry_connection_errors=False,
                    )
                    self._file = _identity(self.url)
                client, database = self._client, self._database
            assert database is not None
            yield client, database
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            log.warning("the queue's database does not answer: %s", error)
            if isinstance(error, sa.exc.ProgrammingError) or "no such table" in str(error.__cause__):
                # Tables that are gone are made again, as far as that can be.
                self.close()
            raise JobsUnavailable(_unanswered(self.url, error)) from error
        except OSError as error:
            log.warning("the folder of the queue's file cannot be made: %s", error)
            raise JobsUnavailable(_unanswered(self.url, error)) from error


def _unanswered(url: str, error: Exception) -> str:
    """Why the database does not answer, as far as that can be seen, and what would help."""
    import sqlalchemy as sa

    if (file := sqlite_file(url)) is not None and (reason := unwritable(file.parent)):
        return (
            f"the queue's file cannot be written ({reason}): give the folder of GANSERVE_DATA room, and the user "
            "that runs the service the right to write there, or name a database with GANSERVE_JOBS_DB"
        )
    if isinstance(error, sa.exc.DBAPIError) and not is_away(error):
        reason = next(iter(str(error.orig).splitlines()), "")
        return (
            f"the queue's database refuses it ({reason}): see to its tables, and to what the user of "
            "GANSERVE_JOBS_DB may do there"
        )
    return "the queue's database does not answer: try again shortly"


def _identity(url: str) -> tuple[int, int] | None:
    """What tells the queue's file from another one of its name; None where there is none."""
    try:
        found = os.stat(sqlite_file(url) or "")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _options(job_id: str) -> EnqueueOptions:
    from dbos import WorkflowSerializationFormat

    return {
        "workflow_name": WORKFLOW,
        "queue_name": QUEUE,
        "workflow_id": job_id,
        "app_version": APPLICATION_VERSION,
        "serialization_type": WorkflowSerializationFormat.PORTABLE,
    }
