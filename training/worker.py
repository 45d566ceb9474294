"""Take retraining jobs from the queue and carry each one out, through any crash.

    python -m training.worker
    GANSERVE_JOBS_DB=postgresql://host/jobs GANSERVE_WORKER_ID=gpu-1 python -m training.worker --threads 8

A job is the workflow train -> export -> evaluate -> publish -> promote. Each step's outcome is recorded in
the queue's database, so a worker that takes a job over goes on with the first step that has none. Steps can
run more than once: training goes on from the last checkpoint in a folder of its own for each attempt, and
publishing is idempotent by the job's id.

Everything that needs torch runs in child processes, which die with this one and can be killed by a cancelled
job.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, WorkflowSerializationFormat

from ganserve import files
from ganserve.card import ModelCard, RepositoryError
from ganserve.queue import (
    APPLICATION_NAME,
    APPLICATION_VERSION,
    PROGRESS,
    QUEUE,
    STEPS,
    WORKER_SILENT_SECONDS,
    WORKFLOW,
    dbos_url,
    engine_for,
    prepare_database,
)
from ganserve.repository import Repository
from ganserve.settings import SettingsError
from ganserve.settings import load as load_settings
from training import gate

if __name__ == "__main__":
    # Before anything is defined: DBOS registers the workflow by its module's name, once.
    from training.worker import main as run_worker

    run_worker()
    sys.exit()

BEAT_SECONDS = 2.0
# A child that fails is started again from its checkpoint; so often without a new one in between, and the job
# fails.
CHILD_TRIES = 3
# A job over which workers died this often on end, without getting any further, is given up: it must not stop the
# queue. A worker that is told to end, or that got to a new checkpoint or step, does not count.
MAX_DEATHS = 5
PROGRESS_SECONDS = 1.0
STOP_SECONDS = 60.0
BAD_INPUT, FAILED, STOPPED = 2, 3, 75

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
    train: tuple[str, ...] = (sys.executable, "-m", "training.train")
    task: tuple[str, ...] = (sys.executable, "-m", "training.job_tasks")


@dataclass
class Child:
    """How a child process ended."""

    code: int
    result: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


class Worker:
    """One process that carries out one job at a time."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.engine = engine_for(config.jobs_db)
        self.repository = Repository(config.models)
        self.stopping = threading.Event()
        self.children: set[asyncio.subprocess.Process] = set()
        self._job: str | None = None
        self._beat = 0
        self._heard: dict[str, tuple[int, float]] = {}

    # -- life
    # ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; then save a checkpoint, leave the job to the next worker and end."""
        global _worker
        _worker = self
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, frame: self.stopping.set())
        config = self.config
        self._patiently(lambda: prepare_database(config.jobs_db, self.engine))
        # Before DBOS starts: a job whose worker has no row is free to be taken over.
        self._patiently(self.beat)
        DBOS(
            config={
                "name": APPLICATION_NAME,
                "system_database_url": dbos_url(config.jobs_db),
                "application_version": APPLICATION_VERSION,
                "executor_id": config.worker_id,
                "log_level": "WARNING",
                "run_migrations": False,
            }
        )
        self._patiently(DBOS.launch)
        DBOS.register_queue(QUEUE, worker_concurrency=1, polling_interval_sec=1.5)
        log.info("worker %s is ready (queue %s)", config.worker_id, _without_password(config.jobs_db))
        while not self.stopping.wait(BEAT_SECONDS):
            try:
                self.beat()
                self.reap()
            except sa.exc.SQLAlchemyError as error:
                log.warning("the queue's database does not answer, trying again: %s", error)
                # Nobody could beat meanwhile: silence is measured anew.
                self._heard.clear()
        self._stop()

    def _patiently(self, action: Callable[[], object]) -> None:
        """Do it, waiting for a database that is not up yet."""
        while not self.stopping.is_set():
            try:
                action()
                return
            except sa.exc.OperationalError as error:
                log.warning("the queue's database does not answer, trying again: %s", error)
                self.stopping.wait(BEAT_SECONDS)
        sys.exit(0)

    def _stop(self) -> None:
        log.info("worker %s ends; its job goes on with the next worker", self.config.worker_id)
        for child in list(self.children):
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        while self.children and time.monotonic() < until:
            time.sleep(0.05)
        with contextlib.suppress(sa.exc.SQLAlchemyError), self.engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM ganserve_workers WHERE id = :id"), {"id": self.config.worker_id})
            taken_back = "UPDATE ganserve_attempts SET attempts = attempts - 1 WHERE job = :job"
            connection.execute(sa.text(taken_back), {"job": self._job})
        # A step that waits for this end must not get the chance to record an outcome.
        logging.shutdown()
        os._exit(0)

    def beat(self) -> None:
        """Tell that this worker lives."""
        self._beat += 1
        with self.engine.begin() as connection:
            connection.execute(
                sa.text(
                    "INSERT INTO ganserve_workers (id, host, beat, seen_at) VALUES (:id, :host, :beat, :now) "
                    "ON CONFLICT (id) DO UPDATE SET host = :host, beat = :beat, seen_at = :now"
                ),
                {
                    "id": self.config.worker_id,
                    "host": socket.gethostname(),
                    "beat": self._beat,
                    "now": time.time(),
                },
            )

    def reap(self) -> None:
        """Free the jobs of workers that are gone or silent, so that any worker can take them.

        Silence is measured by this process's own clock, from the last beat that it saw change: clocks of
        different machines need not agree.
        """
        mine = self.config.worker_id
        table = self._table("workflow_status")
        with self.engine.connect() as connection:
            beats = {row[0]: row[1] for row in connection.execute(sa.text("SELECT id, beat FROM ganserve_workers"))}
            owners = {
                row[0]
                for row in connection.execute(
                    sa.text(f"SELECT DISTINCT executor_id FROM {table} WHERE name = :name AND status = 'PENDING'"),
                    {"name": WORKFLOW},
                )
            }
        now = time.monotonic()
        for worker_id, beat in beats.items():
            if self._heard.get(worker_id, (None, 0))[0] != beat:
                self._heard[worker_id] = (beat, now)
        dead = {
            worker_id
            for worker_id in owners - {mine}
            if worker_id not in beats or now - self._heard[worker_id][1] > self.config.dead_after_seconds
        }
        if dead:
            log.warning("taking over the jobs of %s, which is gone", ", ".join(sorted(dead)))
            # Internal to DBOS, and the one call that frees a job only while its dead owner still holds it;
            # tests/faults holds it to that.
            DBOS._recover_pending_workflows(sorted(dead))

    def _table(self, name: str) -> str:
        return name if self.engine.dialect.name == "sqlite" else f"dbos.{name}"

    def deaths(self, job_id: str) -> tuple[str, int]:
        """Note that an attempt of the job begins.

        Returns the step that it begins with, and how many attempts on end died there and got no further. A
        database that is away is waited for: an error here would be taken for the job's own.
        """
        while True:
            try:
                return self._count_attempt(job_id)
            except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
                log.warning("the queue's database does not answer, trying again: %s", error)
                time.sleep(BEAT_SECONDS)

    def _count_attempt(self, job_id: str) -> tuple[str, int]:
        outcomes, jobs = self._table("operation_outputs"), self._table("workflow_status")
        with self.engine.begin() as connection:
            done = set(
                connection.execute(
                    sa.text(f"SELECT function_name FROM {outcomes} WHERE workflow_uuid = :job"), {"job": job_id}
                ).scalars()
            )
            step = next((step for step in STEPS if step not in done), STEPS[-1])
            runs = attempts(self.config.data / "runs" / job_id)
            place = f"{step} {max((_newest_checkpoint(run) or '' for run in runs), default='')}"
            connection.execute(
                sa.text(
                    "INSERT INTO ganserve_attempts (job, place, attempts) VALUES (:job, :place, 1) "
                    "ON CONFLICT (job) DO UPDATE SET place = :place, attempts = "
                    "CASE WHEN ganserve_attempts.place = :place THEN ganserve_attempts.attempts + 1 ELSE 1 END"
                ),
                {"job": job_id, "place": place},
            )
            begun = connection.execute(
                sa.text("SELECT attempts FROM ganserve_attempts WHERE job = :job"), {"job": job_id}
            ).scalar_one()
            connection.execute(
                sa.text(
                    "DELETE FROM ganserve_attempts WHERE job NOT IN "
                    f"(SELECT workflow_uuid FROM {jobs} WHERE status IN ('ENQUEUED', 'PENDING'))"
                )
            )
        self._job = job_id
        return step, int(begun) - 1

    # -- children
    # -----------------------------------------------------------------------------------------------

    async def child(
        self, command: Sequence[str], step: str, *, told: dict[str, Any] | None = None, report: bool = False
    ) -> Child:
        """Run a command that speaks JSON lines on stdout; its progress becomes the job's.

        The child is killed when the job is cancelled or taken over, or when it makes no progress for too
        long.
        """
        base = {"step": step, **(told or {})}
        await DBOS.set_event_async(PROGRESS, base)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Where judges that were made for a data set are kept.
            env={**os.environ, "GANSERVE_DATA": str(self.config.data)},
            start_new_session=True,
            limit=2**20,
        )
        self.children.add(process)
        assert process.stdout is not None
        assert process.stderr is not None
        last_words: deque[str] = deque(maxlen=20)
        errors = asyncio.create_task(_drain(process.stderr, last_words))
        ended = Child(code=-1)
        state = _Progress(base)
        moved, mark = time.monotonic(), None
        try:
            if self.stopping.is_set():
                process.send_signal(signal.SIGTERM)
            while True:
                left = moved + self.config.no_progress_seconds - time.monotonic()
                try:
                    line = await asyncio.wait_for(process.stdout.readline(), max(left, 0.01))
                except TimeoutError:
                    ended.reason = f"no progress in {self.config.no_progress_seconds:.0f} s"
                    break
                if not line:
                    break
                event = _event(line)
                kind = event.get("event")
                if (kind, event.get("images"), event.get("step")) != mark and kind != "warning":
                    moved, mark = time.monotonic(), (kind, event.get("images"), event.get("step"))
                if kind == "failed":
                    ended.reason = str(event.get("reason", ""))
                elif kind in ("finished", "result"):
                    ended.result = {key: value for key, value in event.items() if key != "event"}
                if report and state.take(event):
                    await DBOS.set_event_async(PROGRESS, state.value())
            if ended.reason.startswith("no progress"):
                process.kill()
            ended.code = await process.wait()
            await errors
            if report and state.pending:
                await DBOS.set_event_async(PROGRESS, state.value())
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await asyncio.shield(process.wait())
            errors.cancel()
            self.children.discard(process)
        if not ended.reason and ended.code:
            ended.reason = _why(ended.code, last_words)
        if self.stopping.is_set() and ended.code:
            # The process is about to end. An outcome recorded now would be taken for the job's own.
            await asyncio.Event().wait()
        return ended


class _Progress:
    """The job's progress as it is told: the latest of each kind of event, at most once a second."""

    def __init__(self, base: dict[str, Any]) -> None:
        self.base = base
        self.latest: dict[str, Any] = {}
        self.pending = False
        self._told = 0.0

    def take(self, event: dict[str, Any]) -> bool:
        """Note an event; says whether it is time to tell."""
        kind = event.get("event")
        content = {key: value for key, value in event.items() if key != "event"}
        if kind == "progress":
            self.latest.update(_renamed(content))
            if "images" in content and "images_total" in content:
                self.latest["images_left"] = max(0, content["images_total"] - content["images"])
        elif kind == "samples":
            self.latest["metrics"] = {k: v for k, v in content.items() if k not in ("path", "step", "images")}
            self.latest["samples"] = content.get("path")
        elif kind == "warning":
            self.latest["warnings"] = [*self.latest.get("warnings", []), content.get("reason")][-10:]
        else:
            return False
        self.pending = True
        return time.monotonic() - self._told >= PROGRESS_SECONDS

    def value(self) -> dict[str, Any]:
        """What to tell now."""
        self._told, self.pending = time.monotonic(), False
        return {**self.base, **self.latest}


def _renamed(content: dict[str, Any]) -> dict[str, Any]:
    """``step`` names the job's step, so the optimiser's steps are told as ``training_step``."""
    names = {"step": "training_step", "steps": "training_steps"}
    return {names.get(key, key): value for key, value in content.items()}


async def _drain(stream: asyncio.StreamReader, kept: deque[str]) -> None:
    async for line in stream:
        text = line.decode(errors="replace").rstrip()
        if text:
            kept.append(text)


def _event(line: bytes) -> dict[str, Any]:
    """One line as an event; what a library prints between them is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _why(code: int, last_words: deque[str]) -> str:
    """How a child ended, in words."""
    words = last_words[-1] if last_words else ""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (f" ({words})" if words else "")
    return words.removeprefix("error: ") or f"ended with status {code}"


# -- the run's folders
# ------------------------------------------------------------------------------------------


def begin_attempt(job: Path) -> Path:
    """A new folder ``attempt-N`` that holds what the attempt before it left.

    Each attempt writes into its own folder, so a worker that was taken for dead and comes back late cannot
    touch the run of the one that took over.
    """
    job.mkdir(parents=True, exist_ok=True)
    before = attempts(job)
    number = int(before[-1].name.partition("-")[2]) + 1 if before else 1
    while True:
        attempt = job / f"attempt-{number}"
        try:
            attempt.mkdir()
            break
        except FileExistsError:
            number += 1
    if before:
        _inherit(before[-1], attempt)
    return attempt


def _inherit(old: Path, new: Path) -> None:
    for path in sorted(old.rglob("*")):
        # Files that are being written are named so; they may vanish, and an old worker may still be at work.
        if path.name.startswith("."):
            continue
        target = new / path.relative_to(old)
        with contextlib.suppress(FileNotFoundError):
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif path.suffix == ".pt":
                # Checkpoints are never changed once they have their name, so a link is a copy.
                _link_or_copy(path, target)
            else:
                shutil.copy2(path, target)


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(path, target)


def attempts(job: Path) -> list[Path]:
    """The attempts' folders, oldest first."""
    found = [path for path in job.glob("attempt-*") if re.fullmatch(r"attempt-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def _newest_checkpoint(run: Path) -> str | None:
    return max((path.name for path in run.glob("checkpoints/*.pt")), default=None)


# -- the workflow
# -----------------------------------------------------------------------------------------------

_worker: Worker | None = None


def _this() -> Worker:
    assert _worker is not None, "a step runs inside a worker"
    return _worker


@DBOS.workflow(
    name=WORKFLOW,
    max_recovery_attempts=None,
    serialization_type=WorkflowSerializationFormat.PORTABLE,
)
async def retrain(job: dict[str, Any]) -> dict[str, Any]:
    """The job, from request to live model. Returns what GET /jobs/{id} shows as its result."""
    job_id = DBOS.workflow_id
    assert job_id is not None
    spec: dict[str, Any] = job["spec"]
    worker = _this()
    step, deaths = await asyncio.to_thread(worker.deaths, job_id)
    if deaths >= worker.config.max_deaths:
        raise JobFailed(f"{step}: given up, for its worker died {deaths} times on end and got no further")
    trained = await train(job_id, spec)
    await export(job_id, spec, trained)
    measured = await evaluate(job_id, spec)
    version = await publish(job_id, spec, measured)
    promoted = await promote(job_id, spec, version, measured)
    return {
        "model": spec["model"],
        "version": version,
        "metrics": measured["metrics"],
        "live_version": measured["live_version"],
        "live_metrics": measured["live_metrics"],
        "gate": {"better": measured["better"], "reasons": measured["reasons"]},
        **promoted,
    }


@DBOS.step(name="train", preemptible=True)
async def train(job_id: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Train in a child process until the budget is spent; returns the run's folder below the data folder."""
    worker = _this()
    config = worker.config
    run = await asyncio.to_thread(begin_attempt, config.data / "runs" / job_id)
    upload = config.data / "datasets" / spec["dataset"]
    dataset = str(upload) if upload.is_dir() else spec["dataset"]
    command = [
        *config.train,
        *("--recipe", spec["recipe"], "--dataset", dataset),
        *("--images", str(spec["images"]), "--seed", str(spec["seed"]), "--run", str(run)),
        *("--log-steps", "50", "--resume", "--events", "--die-with-parent"),
    ]
    if config.threads:
        command += ["--threads", str(config.threads)]
    if spec["init"] == "live":
        command += ["--init", str(await init_weights(worker, job_id, spec))]
    for name, value in spec["overrides"].items():
        command += ["--set", f"{name}={value}"]
    tries = 0
    while True:
        before = _newest_checkpoint(run)
        ended = await worker.child(command, "train", report=True)
        if ended.code == 0:
            return {"run": str(run.relative_to(config.data)), "status": ended.result}
        if ended.code in (BAD_INPUT, FAILED):
            raise JobFailed(f"training: {ended.reason}")
        tries = 1 if _newest_checkpoint(run) != before else tries + 1
        log.warning("job %s: training ended (%s), try %d of %d", job_id, ended.reason, tries, CHILD_TRIES)
        if tries >= CHILD_TRIES:
            raise JobFailed(f"training failed {tries} times without a new checkpoint; last: {ended.reason}")
        await asyncio.sleep(0.5 * 2**tries)


async def init_weights(worker: Worker, job_id: str, spec: dict[str, Any]) -> Path:
    """The weights that the job begins from: the live version's as it was when the job first asked.

    Raises:
        JobFailed: nothing is live, or it is of another recipe or cannot be rebuilt.
    """
    chosen = worker.config.data / "runs" / job_id / "init.safetensors"
    if chosen.exists():
        return chosen
    card = live_card(worker.repository, spec["model"], spec["recipe"])
    kept = _weights(worker.config.data, card)
    if not kept.exists():
        # Trained on another machine: the weights are in the published graph.
        arguments = {"models": str(worker.repository.root), "model": card.name, "version": card.version}
        await _task(job_id, "recover", {**arguments, "weights": str(kept)}, shown="train")
    await asyncio.to_thread(files.copy, kept, chosen)
    return chosen


def live_card(repository: Repository, model: str, recipe: str) -> ModelCard:
    """The card of the live version, which must be of the recipe. Raises JobFailed."""
    instead = 'ask for init "scratch"'
    try:
        live = repository.live(model)
        if live is None:
            raise JobFailed(f"init: model {model!r} has no live version; {instead}")
        card = repository.card(model, live)
    except RepositoryError as error:
        raise JobFailed(f"init: {error}; {instead}") from error
    if card.recipe != recipe:
        wrong = f"init: {model} {live} is of recipe {card.recipe!r}, not {recipe!r}"
        raise JobFailed(f"{wrong}; name that recipe, or {instead}")
    return card


def _weights(data: Path, card: ModelCard) -> Path:
    """Where a published version's weights are kept, named by its graph."""
    return data / "weights" / f"{card.sha256}.safetensors"


async def _task(job_id: str, step: str, arguments: dict[str, Any], *, shown: str | None = None) -> dict[str, Any]:
    """A task in a child process that can be killed, started again if it dies; ``shown`` is the step as it is told."""
    worker = _this()
    tries = 0
    while True:
        ended = await worker.child([*worker.config.task, step, json.dumps(arguments)], shown or step)
        if ended.code == 0:
            return ended.result
        tries += 1
        log.warning("job %s: %s ended (%s), try %d of %d", job_id, step, ended.reason, tries, CHILD_TRIES)
        if ended.code in (BAD_INPUT, FAILED) or tries >= CHILD_TRIES:
            raise JobFailed(f"{step}: {ended.reason}")
        await asyncio.sleep(0.5 * 2**tries)


@DBOS.step(name="export", preemptible=True)
async def export(job_id: str, spec: dict[str, Any], trained: dict[str, Any]) -> dict[str, Any]:
    """Make the ONNX graph, card and samples in a repository of the job's own: nothing is public yet."""
    config = _this().config
    staged = _staged(config, job_id)
    return await _task(
        job_id,
        "export",
        {
            "run": str(config.data / trained["run"]),
            "repository": str(staged.root),
            "model": spec["model"],
            "job_id": job_id,
        },
    )


def _staged(config: Config, job_id: str) -> Repository:
    root = config.data / "runs" / job_id / "export"
    root.mkdir(parents=True, exist_ok=True)
    return Repository(root)


@DBOS.step(name="evaluate", preemptible=True)
async def evaluate(job_id: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Measure the candidate, and the live version on the same judge, data and image count."""
    return await _evaluate(_this(), job_id, spec)


async def _evaluate(worker: Worker, job_id: str, spec: dict[str, Any]) -> dict[str, Any]:
    staged, name = _staged(worker.config, job_id), spec["model"]
    candidate = str(staged.model_path(name, 1))
    metrics = await _task(job_id, "evaluate", {"onnx": candidate, "dataset": _dataset(worker, spec)})
    live = worker.repository.live(name) if name in worker.repository.names() else None
    live_metrics: dict[str, Any] | None = None
    verdict: gate.Verdict | None = None
    if live is not None:
        onnx = str(worker.repository.model_path(name, live))
        try:
            live_metrics = await _task(job_id, "evaluate", {"onnx": onnx, "dataset": _dataset(worker, spec)})
        except JobFailed as error:
            # Other classes, say. The training was not for nothing: its version is published, and an admin decides.
            verdict = gate.Verdict(False, (f"not comparable: the live version, on this data: {error}",))
    verdict = verdict or gate.compare(metrics, live_metrics)
    return {
        "metrics": metrics,
        "live_version": live,
        "live_metrics": live_metrics,
        "better": verdict.better,
        "reasons": list(verdict.reasons),
    }


def _dataset(worker: Worker, spec: dict[str, Any]) -> str:
    upload = worker.config.data / "datasets" / spec["dataset"]
    return str(upload) if upload.is_dir() else str(spec["dataset"])


@DBOS.step(name="publish", preemptible=True)
async def publish(job_id: str, spec: dict[str, Any], measured: dict[str, Any]) -> int:
    """Put the measured candidate into the model repository; one job gets one version, however often."""
    await DBOS.set_event_async(PROGRESS, {"step": "publish"})
    return await asyncio.to_thread(_publish, _this(), job_id, spec, measured)


def _publish(worker: Worker, job_id: str, spec: dict[str, Any], measured: dict[str, Any]) -> int:
    staged, name = _staged(worker.config, job_id), spec["model"]
    card = staged.verify(name, 1)
    judged = {**measured["metrics"], "gate": {"rules": list(gate.RULES), "reasons": measured["reasons"]}}
    card = card.model_copy(update={"metrics": judged, "job_id": job_id, "dataset": spec["dataset"]})
    onnx = staged.model_path(name, 1).read_bytes()
    version = worker.repository.publish(card, onnx, staged.samples_path(name, 1).read_bytes(), job_id=job_id)
    _keep_weights(worker, job_id, card)
    return version


def _keep_weights(worker: Worker, job_id: str, card: ModelCard) -> None:
    """Keep the generator's weights, so that a later job can begin from them."""
    for run in reversed(attempts(worker.config.data / "runs" / job_id)):
        best = run / "best.safetensors"
        if best.exists():
            files.copy(best, _weights(worker.config.data, card))
            return


@DBOS.step(name="promote")
async def promote(job_id: str, spec: dict[str, Any], version: int, measured: dict[str, Any]) -> dict[str, Any]:
    """Make the version live if the job's owner and the gate say so.

    Not preemptible: it is short, and a job that reads ``cancelled`` should not have been half promoted.
    """
    await DBOS.set_event_async(PROGRESS, {"step": "promote"})
    return await asyncio.to_thread(_promote, _this(), spec, version, measured)


def _promote(worker: Worker, spec: dict[str, Any], version: int, measured: dict[str, Any]) -> dict[str, Any]:
    name = spec["model"]
    now = worker.repository.live(name)
    if now == version:
        return {"promoted": True, "promotion": "live"}
    if spec["promote"] == "never":
        return {"promoted": False, "promotion": 'the job asked for promote "never"'}
    if spec["promote"] == "if_better":
        if not measured["better"]:
            return {"promoted": False, "promotion": "the gate found it no better than the live version"}
        if now != measured["live_version"]:
            changed = f"version {now} went live after version {measured['live_version']} was measured"
            return {"promoted": False, "promotion": f"{changed}; promote by hand"}
    worker.repository.promote(name, version)
    return {"promoted": True, "promotion": "live"}


# -- the command
# ------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Read the settings and work."""
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.exit(f"error: {error}")
    parser = argparse.ArgumentParser(prog="python -m training.worker", description="Carry out retraining jobs.")
    add = parser.add_argument
    add("--data", type=Path, default=settings.data, help="runs and uploads (GANSERVE_DATA)")
    add("--models", type=Path, default=settings.models, help="model repository (GANSERVE_MODELS)")
    add("--jobs-db", default=settings.jobs_db, help="SQLAlchemy URL of the queue (GANSERVE_JOBS_DB)")
    add("--id", default=settings.worker_id or socket.gethostname(), help="unique, stable (GANSERVE_WORKER_ID)")
    add("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of a training")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    Worker(
        Config(
            jobs_db=options.jobs_db or f"sqlite:///{(options.data / 'jobs.sqlite').resolve()}",
            data=options.data.resolve(),
            models=options.models.resolve(),
            worker_id=options.id,
            threads=options.threads,
        )
    ).run()


def _without_password(url: str) -> str:
    return sa.make_url(url).render_as_string(hide_password=True)
