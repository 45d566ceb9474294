"""What the steps of a job work with: the data folder, the repository, the queue's database and child processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ganserve import machine
from ganserve.bucket import BucketStore
from ganserve.card import ModelCard
from ganserve.events import AWAY, BAD_INPUT, FAILED
from ganserve.kept import KeptSets, forget_copies
from ganserve.place import CACHE_BYTES, Place, open_store
from ganserve.queue import WORKER_SILENT_SECONDS, Database, is_away
from ganserve.repository import Repository
from ganserve.runs import StoredRuns
from ganserve.store import Away, Missing
from training.retrain.attempts import (
    EXPORT,
    attempts,
    begin_attempt,
    furthest_checkpoint,
    newest_checkpoint,
    number_of,
)
from training.retrain.children import Children
from training.retrain.mirror import Mirror, store_is_away

# A child that fails is started again from its checkpoint; so often without a new one in between, and the job
# fails.
CHILD_TRIES = 3
# A job over which workers died this often on end, without getting any further, is given up: it must not stop the
# queue. A worker that is told to end, or that got to a new checkpoint or step, does not count.
MAX_DEATHS = 5
# How long to wait for a database that does not answer, before it is asked again.
AGAIN_SECONDS = 2.0

log = logging.getLogger("ganserve.worker")


class JobFailed(Exception):  # noqa: N818
    """The job cannot succeed; the message is what its owner reads."""


@dataclass(frozen=True)
class Config:
    """What a worker is told. Commands are prefixes: tests put a small script in their place."""

    jobs_db: str
    data: Path
    models: Place
    worker_id: str
    threads: int = 0
    no_progress_seconds: float = 600.0
    dead_after_seconds: float = WORKER_SILENT_SECONDS
    max_deaths: int = MAX_DEATHS
    local_datasets: bool = False
    tracker: str | None = None
    precision: str = "auto"
    store: Place | None = None
    cache_bytes: int = CACHE_BYTES
    train: tuple[str, ...] = field(default_factory=lambda: machine.python("training.train"))
    task: tuple[str, ...] = field(default_factory=lambda: machine.python("training.retrain.tasks"))


class Site:
    """One worker's."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.database = Database(config.jobs_db)
        self.repository = Repository(
            config.models, open_store(config.models, data=config.data, cache_bytes=config.cache_bytes)
        )
        self.children = Children(config.data, config.no_progress_seconds)
        # Where uploads and runs are, if it is no object store.
        self.place = config.store if isinstance(config.store, Path) else config.data
        bucket = BucketStore(config.store) if isinstance(config.store, str) else None
        self.runs = StoredRuns(bucket) if bucket else None
        self.kept = KeptSets(bucket) if bucket else None
        self.mirror: Mirror | None = None
        # The job that was begun last, and the folder of its run while it trains.
        self.job: str | None = None
        self.run: Path | None = None

    def folder(self, job_id: str) -> Path:
        """Where a job's attempts are kept on this machine."""
        return self.place / "runs" / job_id

    def begin(self, job_id: str) -> Path:
        """The folder of a new attempt, with what the one before it left, wherever that was. Raises Away."""
        if self.runs is None:
            return begin_attempt(self.folder(job_id))
        if self.mirror is not None:
            self.mirror.cancel()
        while True:
            there, of = self.runs.furthest(job_id)
            number = max([*self.runs.attempts(job_id), *map(number_of, attempts(self.folder(job_id)))], default=0) + 1
            if not self.runs.claim(job_id, number):
                continue
            run = begin_attempt(self.folder(job_id), number, there)
            try:
                if there and newest_checkpoint(run) != there:
                    self.runs.bring(f"runs/{job_id}/attempt-{of}", run)
            except Missing:
                # Whoever was taken for dead has put up something newer meanwhile.
                continue
            self.mirror = Mirror(self.runs, f"runs/{job_id}/{run.name}", run)
            return run

    def have(self, run: str) -> Path:
        """The folder of a finished run, fetched if another machine trained it. Raises Away."""
        folder = self.place / run
        if self.runs is not None:
            self.runs.bring(run, folder)
        return folder

    def check(self) -> None:
        """Raises Unfit where the stores cannot be written to; one that is away is waited for later."""
        with contextlib.suppress(Away):
            if isinstance(self.config.models, str):
                self.repository.store.ensure("")
            if self.runs is not None:
                self.runs.store.ensure("")

    def staged(self, job_id: str, folder: str = EXPORT) -> Repository:
        """A repository of the job's own: nothing in it is public."""
        if isinstance(self.config.store, str):
            there = f"{self.config.store}/runs/{job_id}/{folder}"
            return Repository(there, open_store(there, data=self.folder(job_id)))
        root = self.folder(job_id) / folder
        root.mkdir(parents=True, exist_ok=True)
        return Repository(root)

    def weights(self, card: ModelCard) -> Path:
        """Where a published version's weights are kept, named by its graph."""
        return self.config.data / "weights" / f"{card.sha256}.safetensors"

    def dataset(self, spec: dict[str, Any]) -> str:
        """The data set of a job as its children are told it: an upload's folder, or the name.

        Raises:
            JobFailed: there is no such upload, or children would read the name as a path on this machine, which is not
                allowed here.
            Away
        """
        name = str(spec["dataset"])
        upload = self._upload(name) if "/" not in name and name != "digits" else None
        if upload is not None:
            return str(upload)
        if name != "digits" and Path(name).exists() and not self.config.local_datasets:
            raise JobFailed(
                f"dataset: {name!r} is on the worker's own disk, which no job may read: upload it "
                "(PUT /datasets/NAME), or set GANSERVE_LOCAL_DATASETS=true for the worker"
            )
        if "/" not in name and name != "digits" and not Path(name).exists():
            raise JobFailed(f"dataset: there is no upload {name!r}: PUT /datasets/{name}, then ask for the job again")
        return name

    def _upload(self, name: str) -> Path | None:
        """An upload's folder on this machine, fetched if need be; None: there is no such upload. Raises Away."""
        if self.kept is None:
            folder = self.place / "datasets" / name
            return folder if folder.is_dir() else None
        try:
            folder = self.kept.fetch(name, self.config.data)
        except Missing:
            return None
        forget_copies(self.config.data, self.config.cache_bytes, folder)
        return folder

    def deaths(self, job_id: str) -> tuple[str, int]:
        """Note that an attempt of the job begins.

        Returns the step that it begins with, and how many attempts on end died there and got no further. A
        database that is away is waited for: an error here would be taken for the job's own.
        """
        while True:
            try:
                step = self.database.next_step(job_id)
                there = self.runs.furthest(job_id)[0] if self.runs is not None else ""
                place = f"{step} {max(furthest_checkpoint(self.folder(job_id)), there)}"
                begun = self.database.count_attempt(job_id, place)
            except Exception as error:
                if not is_away(error) and not store_is_away(error):
                    raise
                log.warning("the queue's database or the store does not answer, trying again: %s", error)
                time.sleep(AGAIN_SECONDS)
            else:
                self.job = job_id
                return step, begun - 1

    async def task(
        self, job_id: str, task: str, arguments: dict[str, Any], *, shown: str | None = None
    ) -> dict[str, Any]:
        """A task in a child process, started again if it dies; ``shown`` is the step as it is told.

        Raises:
            JobFailed: it can never work, or failed too often.
        """
        tries = 0
        while True:
            ended = await self.children.run([*self.config.task, task, json.dumps(arguments)], shown or task)
            if ended.code == 0:
                return ended.result
            if ended.code == AWAY:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            tries += 1
            log.warning("job %s: %s ended (%s), try %d of %d", job_id, task, ended.reason, tries, CHILD_TRIES)
            if ended.code in (BAD_INPUT, FAILED) or tries >= CHILD_TRIES:
                raise JobFailed(f"{task}: {ended.reason}")
            await asyncio.sleep(0.5 * 2**tries)
