"""What the steps of a job work with: the data folder, the repository, the queue's database and child processes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ganserve import machine
from ganserve.card import ModelCard
from ganserve.events import BAD_INPUT, FAILED
from ganserve.queue import WORKER_SILENT_SECONDS, Database, is_away
from ganserve.repository import Repository
from training.retrain.attempts import furthest_checkpoint
from training.retrain.children import Children

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
    models: Path
    worker_id: str
    threads: int = 0
    no_progress_seconds: float = 600.0
    dead_after_seconds: float = WORKER_SILENT_SECONDS
    max_deaths: int = MAX_DEATHS
    local_datasets: bool = False
    tracker: str | None = None
    train: tuple[str, ...] = field(default_factory=lambda: machine.python("training.train"))
    task: tuple[str, ...] = field(default_factory=lambda: machine.python("training.retrain.tasks"))


class Site:
    """One worker's."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.database = Database(config.jobs_db)
        self.repository = Repository(config.models)
        self.children = Children(config.data, config.no_progress_seconds)
        # The job that was begun last.
        self.job: str | None = None

    def folder(self, job_id: str) -> Path:
        """Where a job's attempts are kept."""
        return self.config.data / "runs" / job_id

    def staged(self, job_id: str) -> Repository:
        """The job's own repository: nothing in it is public."""
        root = self.folder(job_id) / "export"
        root.mkdir(parents=True, exist_ok=True)
        return Repository(root)

    def weights(self, card: ModelCard) -> Path:
        """Where a published version's weights are kept, named by its graph."""
        return self.config.data / "weights" / f"{card.sha256}.safetensors"

    def dataset(self, spec: dict[str, Any]) -> str:
        """The data set of a job as its children are told it: an upload's folder, or the name.

        Raises:
            JobFailed: children would read the name as a path on this machine, which is not allowed here.
        """
        name = str(spec["dataset"])
        upload = self.config.data / "datasets" / name
        if upload.is_dir():
            return str(upload)
        if not self.config.local_datasets and name != "digits" and Path(name).exists():
            raise JobFailed(
                f"dataset: {name!r} is on the worker's own disk, which no job may read: upload it "
                "(PUT /datasets/NAME), or set GANSERVE_LOCAL_DATASETS=true for the worker"
            )
        return name

    def deaths(self, job_id: str) -> tuple[str, int]:
        """Note that an attempt of the job begins.

        Returns the step that it begins with, and how many attempts on end died there and got no further. A
        database that is away is waited for: an error here would be taken for the job's own.
        """
        while True:
            try:
                step = self.database.next_step(job_id)
                place = f"{step} {furthest_checkpoint(self.folder(job_id))}"
                begun = self.database.count_attempt(job_id, place)
            except Exception as error:
                if not is_away(error):
                    raise
                log.warning("the queue's database does not answer, trying again: %s", error)
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
            tries += 1
            log.warning("job %s: %s ended (%s), try %d of %d", job_id, task, ended.reason, tries, CHILD_TRIES)
            if ended.code in (BAD_INPUT, FAILED) or tries >= CHILD_TRIES:
                raise JobFailed(f"{task}: {ended.reason}")
            await asyncio.sleep(0.5 * 2**tries)
