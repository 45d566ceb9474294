"""The retraining queue's names and its database: what service and worker agree on.

DBOS keeps the queue, in SQLite or PostgreSQL. The service writes rows and reads them (``service/jobs.py``); a worker
takes the jobs out (``training/worker.py``).
"""

from __future__ import annotations

import logging
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
# A job's steps, for ever: the outcomes of jobs under way are kept by these names.
STEPS = ("train", "export", "evaluate", "publish", "promote")


def engine_for(url: str) -> sa.Engine:
    """An engine for the queue's database, set up so that several processes can share one SQLite file."""
    import sqlalchemy as sa

    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "postgresql":
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=5,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 5},
        )
    if parsed.get_backend_name() != "sqlite":
        raise ValueError(
            f"GANSERVE_JOBS_DB: {parsed.drivername} is not supported; expected sqlite or postgresql"
        )
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(parsed, pool_size=5, max_overflow=0)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        connection.execute("PRAGMA busy_timeout=30000")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


def dbos_url(url: str) -> str:
    """The same database, spelled as DBOS expects it."""
    import sqlalchemy as sa

    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql")
    return parsed.render_as_string(hide_password=False)


def prepare_database(url: str, engine: sa.Engine) -> None:
    """Create or migrate the queue's tables; safe to run in several processes at once, and again."""
    import sqlalchemy as sa
    from dbos import DBOS

    sqlite = engine.dialect.name == "sqlite"
    if sqlite:
        with engine.connect() as connection:
            # Readers then never wait for the writer. The mode is kept in the file.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    # It would warn of SQLite at each start; tests/faults holds SQLite to the same promises as PostgreSQL.
    logging.getLogger("dbos").setLevel(logging.WARNING)
    DBOS.migrate(dbos_url(url))
    with engine.begin() as connection:
        if sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": QUEUE_LOCK})
        connection.execute(
            sa.text(
                "CREATE TABLE IF NOT EXISTS ganserve_workers "
                "(id TEXT PRIMARY KEY, host TEXT NOT NULL, beat INTEGER NOT NULL, "
                "seen_at DOUBLE PRECISION NOT NULL)"
            )
        )
        connection.execute(
            sa.text(
                "CREATE TABLE IF NOT EXISTS ganserve_attempts "
                "(job TEXT PRIMARY KEY, place TEXT NOT NULL, attempts INTEGER NOT NULL)"
            )
        )
