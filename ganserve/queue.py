"""The retraining queue's names and its database: what service and worker agree on, and every statement of SQL.

DBOS keeps the queue, in SQLite or PostgreSQL. The service writes rows and reads them (``service/jobs.py``); a worker
takes the jobs out (``training/worker.py``). Beside DBOS's tables there are three of our own: which workers live, how
often on end a job was begun at the same place, and which jobs shall end their training early.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Imported where it is used: to load it takes as long as the rest of a start, and many services never see a job.
    import sqlalchemy as sa

QUEUE = "retrain"
WORKFLOW = "retrain"
PROGRESS = "progress"
# Pinned: DBOS would otherwise hash the worker's source, and a new release would strand the jobs of the last
# one.
APPLICATION_VERSION = "retrain-1"
APPLICATION_NAME = "ganserve"
# A worker beats every 2 s; one that was silent for this long is taken for dead.
WORKER_SILENT_SECONDS = 15.0
QUEUE_LOCK = 0x67616E73
# Who finds all connections busy for so long is told; a database that hangs holds those that have one.
POOL_SECONDS = 5.0
# Of libpq: the system would wait a quarter of an hour for the other end of a cut link.
ALIVE = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
# A job's steps, for ever: the outcomes of jobs under way are kept by these names.
STEPS = ("train", "export", "evaluate", "publish", "promote")
# The first SQLite that tells parts of a second; Debian 12 has 3.40.
SUBSECONDS = (3, 42)
OWN_TABLES = (
    "ganserve_workers (id TEXT PRIMARY KEY, host TEXT NOT NULL, beat INTEGER NOT NULL, "
    "seen_at DOUBLE PRECISION NOT NULL)",
    "ganserve_attempts (job TEXT PRIMARY KEY, place TEXT NOT NULL, attempts INTEGER NOT NULL)",
    "ganserve_finishes (job TEXT PRIMARY KEY)",
)


def engine_for(url: str) -> sa.Engine:
    """An engine for the queue's database, set up so that several processes can share one SQLite file."""
    import sqlalchemy as sa

    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "postgresql":
        _needs_a_driver()
        return sa.create_engine(
            _kept_alive(parsed).set(drivername="postgresql+psycopg"),
            pool_size=5,
            max_overflow=0,
            pool_timeout=POOL_SECONDS,
            pool_pre_ping=True,
        )
    if parsed.get_backend_name() != "sqlite":
        raise ValueError(
            f"GANSERVE_JOBS_DB: {parsed.drivername} is not supported; expected sqlite or postgresql"
        )
    if sqlite3.sqlite_version_info < SUBSECONDS:
        # All engines: DBOS makes one of its own.
        sa.event.listen(sa.Engine, "connect", _with_subseconds)
    engine = sa.create_engine(parsed, pool_size=5, max_overflow=0)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        connection.execute("PRAGMA busy_timeout=30000")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


def _kept_alive(url: sa.URL) -> sa.URL:
    """A URL of PostgreSQL with what finds in seconds that its machine is gone, where it says nothing of its own."""
    return url.update_query_dict({name: value for name, value in ALIVE.items() if name not in url.query})


def _with_subseconds(connection: Any, record: Any) -> None:
    """``unixepoch('subsec')`` for a SQLite that gives NULL for it: by it DBOS tells the time from Python 3.12 on."""
    with suppress(AttributeError):  # another database's connection
        connection.create_function("unixepoch", 1, lambda told: time.time() if told == "subsec" else None)


def _needs_a_driver() -> None:
    """Raises ValueError where psycopg cannot be loaded: what DBOS brings of it lacks PostgreSQL's own library."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        needed = "pip install 'ganserve[postgres]'"
        raise ValueError(f"GANSERVE_JOBS_DB: PostgreSQL needs the extra `postgres`: {needed}") from None


def dbos_url(url: str) -> str:
    """The same database, spelled as DBOS expects it."""
    import sqlalchemy as sa

    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = _kept_alive(parsed).set(drivername="postgresql")
    return parsed.render_as_string(hide_password=False)


def sqlite_file(url: str) -> Path | None:
    """The file of a queue in SQLite; None for another database, or one in memory."""
    import sqlalchemy as sa

    parsed = sa.make_url(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


class Database:
    """The queue's database, SQLite or PostgreSQL. Connects at the first call; may be used from any thread.

    Every method may raise what SQLAlchemy raises where the database does not answer, and :meth:`prepare` OSError where
    the folder of SQLite's file cannot be made.

    Raises:
        ValueError: the URL is of another database.
    """

    def __init__(self, url: str) -> None:
        import sqlalchemy as sa

        self.url = url
        self.engine = engine_for(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        schema = None if self.is_sqlite else "dbos"

        def table(name: str, *columns: str) -> sa.TableClause:
            return sa.table(name, *[sa.column(column) for column in columns], schema=schema)

        self._jobs = table("workflow_status", "workflow_uuid", "name", "status", "executor_id")
        self._outcomes = table("operation_outputs", "workflow_uuid", "function_name")

    def prepare(self) -> None:
        """Create or migrate the queue's tables; safe to run in several processes at once, and again."""
        import sqlalchemy as sa
        from dbos import DBOS

        if self.is_sqlite:
            if self.engine.url.database:
                Path(self.engine.url.database).parent.mkdir(parents=True, exist_ok=True)
            with self.engine.connect() as connection:
                # Readers then never wait for the writer. The mode is kept in the file.
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        # It would warn of SQLite at each start; tests/faults holds SQLite to the same promises as PostgreSQL.
        logging.getLogger("dbos").setLevel(logging.WARNING)
        DBOS.migrate(dbos_url(self.url))
        with self.alone() as connection:
            for table in OWN_TABLES:
                connection.execute(sa.text(f"CREATE TABLE IF NOT EXISTS {table}"))

    @contextmanager
    def alone(self) -> Iterator[sa.Connection]:
        """A transaction that no other process is in at the same time."""
        import sqlalchemy as sa

        with self.engine.begin() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": QUEUE_LOCK})
            yield connection

    # -- jobs
    # -----------------------------------------------------------------------------------------------

    def knows(self, connection: sa.Connection, job: str) -> bool:
        """Whether there is such a job."""
        import sqlalchemy as sa

        found = sa.select(sa.literal(1)).select_from(self._jobs).where(self._jobs.c.workflow_uuid == job)
        return connection.execute(found).first() is not None

    def waiting(self, connection: sa.Connection) -> int:
        """How many jobs no worker has taken yet."""
        import sqlalchemy as sa

        jobs = self._jobs.c
        waiting = sa.select(sa.func.count()).where(jobs.name == WORKFLOW, jobs.status == "ENQUEUED")
        return int(connection.execute(waiting).scalar_one())

    def counts(self) -> dict[str, int]:
        """How many jobs have each of DBOS's statuses."""
        import sqlalchemy as sa

        jobs = self._jobs.c
        counted = sa.select(jobs.status, sa.func.count()).where(jobs.name == WORKFLOW).group_by(jobs.status)
        with self.engine.connect() as connection:
            return {str(status): int(count) for status, count in connection.execute(counted)}

    def under_way(self) -> set[str]:
        """The jobs that have not ended."""
        import sqlalchemy as sa

        jobs = self._jobs.c
        found = sa.select(jobs.workflow_uuid).where(jobs.status.in_(("ENQUEUED", "DELAYED", "PENDING")))
        with self.engine.connect() as connection:
            return set(connection.execute(found).scalars())

    def owners(self) -> set[str]:
        """The workers that hold a running job, alive or not."""
        import sqlalchemy as sa

        jobs = self._jobs.c
        owners = sa.select(jobs.executor_id).where(jobs.name == WORKFLOW, jobs.status == "PENDING").distinct()
        with self.engine.connect() as connection:
            return set(connection.execute(owners).scalars())

    def next_step(self, job: str) -> str:
        """The first step of a job that has no outcome yet; the last one if all have."""
        import sqlalchemy as sa

        done = sa.select(self._outcomes.c.function_name).where(self._outcomes.c.workflow_uuid == job)
        with self.engine.connect() as connection:
            ended = set(connection.execute(done).scalars())
        return next((step for step in STEPS if step not in ended), STEPS[-1])

    def finish(self, job: str) -> None:
        """Have a job end its training early, wherever it runs."""
        import sqlalchemy as sa

        told = sa.text("INSERT INTO ganserve_finishes (job) VALUES (:job) ON CONFLICT (job) DO NOTHING")
        with self.engine.begin() as connection:
            connection.execute(told, {"job": job})

    def finishes(self, job: str) -> bool:
        """Whether a job shall end its training early."""
        import sqlalchemy as sa

        found = sa.text("SELECT 1 FROM ganserve_finishes WHERE job = :job")
        with self.engine.connect() as connection:
            return connection.execute(found, {"job": job}).first() is not None

    # -- workers
    # --------------------------------------------------------------------------------------------

    def beat(self, worker: str, host: str, beat: int) -> None:
        """Tell that a worker lives, by a number that changes each time."""
        import sqlalchemy as sa

        told = sa.text(
            "INSERT INTO ganserve_workers (id, host, beat, seen_at) VALUES (:id, :host, :beat, :now) "
            "ON CONFLICT (id) DO UPDATE SET host = :host, beat = :beat, seen_at = :now"
        )
        with self.engine.begin() as connection:
            connection.execute(told, {"id": worker, "host": host, "beat": beat, "now": time.time()})

    def beats(self) -> dict[str, int]:
        """The latest beat of each worker that has not said that it ends."""
        import sqlalchemy as sa

        with self.engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT id, beat FROM ganserve_workers"))
            return {str(worker): int(beat) for worker, beat in rows}

    def workers(self) -> list[str]:
        """Ids of the workers that were heard of lately."""
        import sqlalchemy as sa

        lately = sa.text("SELECT id FROM ganserve_workers WHERE seen_at > :since ORDER BY id")
        with self.engine.connect() as connection:
            rows = connection.execute(lately, {"since": time.time() - WORKER_SILENT_SECONDS})
            return list(rows.scalars())

    def leave(self, worker: str, job: str | None) -> None:
        """A worker ends as it was told to: it is gone, and its job's attempt does not count as a death."""
        import sqlalchemy as sa

        with self.engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM ganserve_workers WHERE id = :id"), {"id": worker})
            taken_back = sa.text("UPDATE ganserve_attempts SET attempts = attempts - 1 WHERE job = :job")
            connection.execute(taken_back, {"job": job})

    # -- attempts
    # -------------------------------------------------------------------------------------------

    def count_attempt(self, job: str, place: str) -> int:
        """Note that a job is begun at a place; how often on end it now was begun there. Ended jobs are forgotten."""
        import sqlalchemy as sa

        begun = sa.text(
            "INSERT INTO ganserve_attempts (job, place, attempts) VALUES (:job, :place, 1) "
            "ON CONFLICT (job) DO UPDATE SET place = :place, attempts = "
            "CASE WHEN ganserve_attempts.place = :place THEN ganserve_attempts.attempts + 1 ELSE 1 END"
        )
        attempts = sa.table("ganserve_attempts", sa.column("job"), sa.column("attempts"))
        under_way = sa.select(self._jobs.c.workflow_uuid).where(self._jobs.c.status.in_(("ENQUEUED", "PENDING")))
        with self.engine.begin() as connection:
            connection.execute(begun, {"job": job, "place": place})
            count = connection.execute(sa.select(attempts.c.attempts).where(attempts.c.job == job)).scalar_one()
            for table in (attempts, sa.table("ganserve_finishes", sa.column("job"))):
                connection.execute(sa.delete(table).where(table.c.job.not_in(under_way)))
        return int(count)


def is_away(error: Exception) -> bool:
    """Whether an error says that the database does not answer just now: to ask again may help."""
    import sqlalchemy as sa

    return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError | sa.exc.TimeoutError)
