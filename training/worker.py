"""Take retraining jobs from the queue and carry each one out, through any crash.

    python -m training.worker
    GANSERVE_JOBS_DB=postgresql://host/jobs GANSERVE_WORKER_ID=gpu-1 python -m training.worker --threads 8

What a job is stands in ``training/retrain/workflow.py``. Here is the worker's own life: it tells that it lives, frees
the jobs of workers that do not, and ends when it is told to. Everything that needs torch runs in child processes, which
die with this one and can be killed by a cancelled job.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa
from dbos import DBOS

from ganserve import signals
from ganserve.events import FINISH
from ganserve.queue import APPLICATION_NAME, APPLICATION_VERSION, QUEUE, dbos_url
from ganserve.settings import SettingsError, database, misspelt
from ganserve.settings import load as load_settings
from ganserve.store import StoreError, Unfit
from training import trackers
from training.command import positive, refuse, where
from training.retrain import workflow
from training.retrain.site import AGAIN_SECONDS, Config, Site

BEAT_SECONDS = 2.0
STOP_SECONDS = 60.0
SWEEP_SECONDS = 3600.0

log = logging.getLogger("ganserve.worker")


class Worker:
    """One process that carries out one job at a time."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.site = Site(config)
        self.stopping = self.site.children.stopping
        self.silence = Silence(config.dead_after_seconds)
        self._beat = 0

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; then save a checkpoint, leave the job to the next worker and end."""
        workflow.work_at(self.site)
        signals.heed()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, frame: self.stopping.set())
        self._patiently(self.site.database.prepare)
        # Before DBOS starts: a job whose worker has no row is free to be taken over.
        self._patiently(self.beat)
        threading.Thread(target=self._sweep, name="sweep", daemon=True).start()
        self._take_jobs()
        log.info("worker %s is ready (queue %s)", self.config.worker_id, _without_password(self.config.jobs_db))
        while not self.stopping.wait(BEAT_SECONDS):
            try:
                self.beat()
                self.reap()
            except sa.exc.SQLAlchemyError as error:
                log.warning("the queue's database does not answer, trying again: %s", error)
                # Nobody could beat meanwhile: silence is measured anew.
                self.silence = Silence(self.config.dead_after_seconds)
        self._stop()

    def _take_jobs(self) -> None:
        """Let DBOS begin jobs in this process, one at a time."""
        self._patiently(self._launch)
        self._patiently(lambda: DBOS.register_queue(QUEUE, worker_concurrency=1, polling_interval_sec=1.5))

    def _launch(self) -> None:
        try:
            DBOS(
                config={
                    "name": APPLICATION_NAME,
                    "system_database_url": dbos_url(self.config.jobs_db),
                    "application_version": APPLICATION_VERSION,
                    "executor_id": self.config.worker_id,
                    "log_level": "WARNING",
                    "run_migrations": False,
                }
            )
            DBOS.launch()
        except Exception:
            # A second launch of the same instance would pass and take no job.
            DBOS.destroy()
            raise

    def _patiently(self, action: Callable[[], object]) -> None:
        """Do it, waiting for a database that is not up yet, whichever way it says so."""
        while not self.stopping.is_set():
            try:
                action()
                return
            except (sa.exc.SQLAlchemyError, OSError) as error:
                log.warning("the queue's database does not answer, trying again: %s", error)
                self.stopping.wait(AGAIN_SECONDS)
        sys.exit(0)

    def _stop(self) -> None:
        log.info("worker %s ends; its job goes on with the next worker", self.config.worker_id)
        self.site.children.stop(STOP_SECONDS)
        if self.site.mirror is not None:
            self.site.mirror.leave()
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            self.site.database.leave(self.config.worker_id, self.site.job)
        # A step that waits for this end must not get the chance to record an outcome.
        logging.shutdown()
        os._exit(0)

    def _sweep(self) -> None:
        """Every hour, let go of what ended jobs left in the store, and of copies here of sets that were deleted."""
        while self.site.runs is not None and self.site.kept is not None:
            try:
                self.site.kept.forget_gone(self.config.data)
                self.site.runs.sweep(self.site.database.under_way())
            except (sa.exc.SQLAlchemyError, StoreError) as error:
                log.warning("the store is not swept this time: %s", error)
            if self.stopping.wait(SWEEP_SECONDS):
                return

    def beat(self) -> None:
        """Tell that this worker lives, and hear whether its job shall end its training early."""
        self._beat += 1
        self.site.database.beat(self.config.worker_id, socket.gethostname(), self._beat)
        run = self.site.run
        if run is not None and self.site.job is not None and self.site.database.finishes(self.site.job):
            with contextlib.suppress(FileNotFoundError):
                (run / FINISH).touch()

    def reap(self) -> None:
        """Free the jobs of workers that are gone or silent, so that any worker can take them."""
        beats, owners = self.site.database.beats(), self.site.database.owners()
        silent = self.silence.listen(beats)
        dead = {owner for owner in owners - {self.config.worker_id} if owner not in beats or owner in silent}
        if dead:
            log.warning("taking over the jobs of %s, which is gone", ", ".join(sorted(dead)))
            # Internal to DBOS, and the one call that frees a job only while its dead owner still holds it;
            # tests/faults holds it to that.
            DBOS._recover_pending_workflows(sorted(dead))


class Silence:
    """Which workers have not been heard of for too long.

    Measured by this process's own clock, from the last beat that it saw change: clocks of different machines need
    not agree.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._heard: dict[str, tuple[int, float]] = {}

    def listen(self, beats: Mapping[str, int]) -> set[str]:
        """Note the latest beat of each worker; returns those that are silent."""
        now = time.monotonic()
        for worker, beat in beats.items():
            if worker not in self._heard or self._heard[worker][0] != beat:
                self._heard[worker] = (beat, now)
        return {worker for worker in beats if now - self._heard[worker][1] > self.seconds}


def main(argv: Sequence[str] | None = None) -> None:
    """Read the settings and work."""
    try:
        settings = load_settings()
        trackers.check(settings.tracker)
    except (SettingsError, trackers.TrackerError) as error:
        sys.exit(refuse(error))
    parser = argparse.ArgumentParser(prog="python -m training.worker", description="Carry out retraining jobs.")
    add = parser.add_argument
    add("--data", type=Path, default=settings.data, help="runs and uploads (GANSERVE_DATA)")
    add("--models", type=where, default=settings.models, help="model repository, a folder or a URL (GANSERVE_MODELS)")
    add("--store", type=where, default=settings.store, help="uploads and checkpoints, as above (GANSERVE_STORE)")
    add("--jobs-db", type=_database, default=settings.jobs_db, help="SQLAlchemy URL of the queue (GANSERVE_JOBS_DB)")
    add("--id", default=settings.worker_id or socket.gethostname(), help="unique, stable (GANSERVE_WORKER_ID)")
    add("--threads", type=positive, default=os.cpu_count() or 1, help="CPU threads of a training")
    options = parser.parse_args(argv)
    if importlib.util.find_spec("torch") is None:
        # Only its children would notice, one job after the other.
        sys.exit(refuse("a worker needs the extra `training` (torch is missing): pip install 'ganserve[training]'"))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for told in misspelt():
        log.warning("%s", told)
    config = Config(
        jobs_db=options.jobs_db or f"sqlite:///{(options.data / 'jobs.sqlite').resolve()}",
        data=options.data.resolve(),
        models=options.models if isinstance(options.models, str) else options.models.resolve(),
        store=options.store if isinstance(options.store, str) else options.store and options.store.resolve(),
        cache_bytes=settings.cache_bytes,
        worker_id=options.id,
        threads=options.threads,
        local_datasets=settings.local_datasets,
        tracker=settings.tracker,
        precision=settings.precision,
    )
    for place, what in ((config.data, "--data or GANSERVE_DATA"), (config.models, "--models or GANSERVE_MODELS")):
        if isinstance(place, Path) and place.exists() and not place.is_dir():
            sys.exit(refuse(f"{what} is {place}, which is a file: expected a folder"))
    try:
        worker = Worker(config)
        worker.site.check()
    except Unfit as error:
        sys.exit(refuse(error))
    except (ValueError, ImportError, sa.exc.ArgumentError) as error:
        parser.error(f"--jobs-db or GANSERVE_JOBS_DB: {error}")
    except OSError as error:
        sys.exit(refuse(f"--data or GANSERVE_DATA is {options.data}: {error.strerror or error}"))
    worker.run()


def _database(text: str) -> str:
    try:
        return database(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"or GANSERVE_JOBS_DB: {error}") from None


def _without_password(url: str) -> str:
    return sa.make_url(url).render_as_string(hide_password=True)


if __name__ == "__main__":
    main()
