"""``/jobs``: retraining. Every call needs the admin token, and none of them waits for training."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from service.api import Phase
from service.http.auth import require_admin
from service.http.errors import Conflict, Invalid, NotFound, Overloaded, Problem, Unavailable
from service.jobs import (
    InvalidJob,
    Job,
    JobFinished,
    JobRequest,
    JobsError,
    JobStore,
    JobsUnavailable,
    KeyReused,
    QueueFull,
    State,
    UnknownJob,
)
from service.uploads import RESERVED, UnknownDataset, Uploads

NO_WORKER = "no worker is running: the job waits until one starts (`make worker`)"
POLL_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 15.0
# A client that lost the connection asks again after this long.
RETRY_MILLISECONDS = 2000

router = APIRouter(prefix="/jobs", tags=["jobs"], dependencies=[Depends(require_admin)])


class JobPage(BaseModel):
    """A page of jobs, newest first; ``next`` is the path of the next page."""

    jobs: list[Job]
    workers: list[str]
    next: str | None = None


def job_store(request: Request) -> JobStore:
    """The application's one queue."""
    state = request.app.state
    if getattr(state, "jobs", None) is None:
        settings = state.settings
        uploads = Uploads(Path(settings.data) / "datasets")
        state.jobs = JobStore(settings.jobs_url, check_dataset=dataset_check(uploads))
    found: JobStore = state.jobs
    return found


def queue_counts(request: Request) -> tuple[dict[str, int] | None, int | None]:
    """Jobs by state and how many workers live; None for what cannot be told just now. At most one look a second."""
    state = request.app.state
    looked, found = getattr(state, "queue_counts", (0.0, (None, None)))
    if time.monotonic() - looked < 1:
        known: tuple[dict[str, int] | None, int | None] = found
        return known
    settings = state.settings
    if settings.jobs_db is None and not (settings.data / "jobs.sqlite").exists():
        # Nothing was ever asked for, and looking shall not make the file.
        return dict.fromkeys(get_args(State), 0), 0
    try:
        store = job_store(request)
        counts: tuple[dict[str, int] | None, int | None] = (store.counts(), len(store.workers()))
    except JobsError:
        counts = (None, None)
    state.queue_counts = (time.monotonic(), counts)
    return counts


def dataset_check(uploads: Uploads) -> Any:
    """A function of a data set's name to the reason why it cannot be trained on, or None."""

    def check(name: str) -> str | None:
        if "/" in name or name in RESERVED:
            return None
        try:
            uploads.get(name)
        except UnknownDataset:
            return (
                f"{name!r} is not uploaded: PUT /datasets/{name} first, or name one of "
                f"{', '.join(sorted(RESERVED))}, or a Hugging Face data set as owner/name"
            )
        return None

    return check


Store = Annotated[JobStore, Depends(job_store)]


def as_problem(error: JobsError) -> Problem:
    """How a refusal of the queue reads over HTTP."""
    if isinstance(error, QueueFull):
        return Overloaded(str(error), error.retry_after)
    if isinstance(error, JobsUnavailable):
        return Unavailable(str(error), retry_after=5)
    if isinstance(error, InvalidJob):
        split = [reason.partition(": ") for reason in error.reasons]
        return Invalid(
            str(error), errors=[{"field": field, "message": message} for field, _, message in split]
        )
    if isinstance(error, UnknownJob):
        return NotFound(str(error))
    assert isinstance(error, KeyReused | JobFinished)
    return Conflict(str(error))


def _noted(job: Job, store: JobStore) -> Job:
    if job.state == "queued" and not store.workers():
        return job.model_copy(update={"note": NO_WORKER})
    return job


@router.post("", status_code=202, summary="Ask for a retraining")
def submit(
    body: JobRequest,
    store: Store,
    response: Response,
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=255, description="the same key never makes two jobs")
    ] = None,
) -> Job:
    """Queue a job and answer at once with where to watch it."""
    try:
        job, _ = store.submit(body, idempotency_key)
        response.headers["Location"] = f"/jobs/{job.id}"
        return _noted(job, store)
    except JobsError as error:
        raise as_problem(error) from error


@router.get("", summary="List jobs")
def page(
    store: Store,
    state: Annotated[State | None, Query(description="only jobs in this state")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> JobPage:
    """Jobs, newest first, and the workers that are alive."""
    try:
        jobs = store.page(state=state, limit=limit + 1, offset=offset)
        more = f"/jobs?limit={limit}&offset={offset + limit}" + (f"&state={state}" if state else "")
        return JobPage(jobs=jobs[:limit], workers=store.workers(), next=more if len(jobs) > limit else None)
    except JobsError as error:
        raise as_problem(error) from error


@router.get("/{job_id}", summary="One job")
def get(job_id: str, store: Store) -> Job:
    """State, progress and, at the end, the result with the gate's verdict, or the error."""
    try:
        return _noted(store.get(job_id), store)
    except JobsError as error:
        raise as_problem(error) from error


@router.delete("/{job_id}", status_code=202, summary="Cancel a job")
def cancel(job_id: str, store: Store) -> Job:
    """Stop it; a running one ends within about a second. Cancelling twice is no mistake."""
    try:
        return store.cancel(job_id)
    except JobsError as error:
        raise as_problem(error) from error


@router.get(
    "/{job_id}/events",
    summary="Watch a job",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "one `job` event a change"}},
)
async def events(job_id: str, store: Store, request: Request) -> StreamingResponse:
    """Server-sent events: the whole job at once, at each change, and a last time when it has ended."""
    try:
        first = await run_in_threadpool(store.get, job_id)
    except JobsError as error:
        raise as_problem(error) from error
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_watch(first, store, request.app), media_type="text/event-stream", headers=headers)


async def _watch(job: Job, store: JobStore, app: FastAPI) -> AsyncIterator[str]:
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    told, at = "", time.monotonic()
    while True:
        text = job.model_dump_json(exclude_none=True)
        if text != told:
            told, at = text, time.monotonic()
            yield f"event: job\ndata: {text}\n\n"
        elif time.monotonic() - at > KEEP_ALIVE_SECONDS:
            at = time.monotonic()
            yield ": still here\n\n"
        # A server that is told to stop must not wait for the job's end; the client asks again, where one is.
        if job.finished or getattr(app.state, "phase", None) is Phase.DRAINING:
            return
        await asyncio.sleep(POLL_SECONDS)
        try:
            job = await run_in_threadpool(store.get, job.id)
        except JobsUnavailable:
            # The queue's database restarts; what was told stays true, and the watch goes on.
            continue
        except UnknownJob:
            return


@router.get(
    "/{job_id}/samples.png",
    summary="The latest sample sheet",
    response_class=FileResponse,
    responses={200: {"content": {"image/png": {}}, "description": "one row a class"}},
)
def samples(
    job_id: str,
    store: Store,
    request: Request,
    kind: Annotated[
        Literal["fresh", "same-noise"],
        Query(description="new noise for each image, or one across the classes"),
    ] = "fresh",
) -> FileResponse:
    """What the generator makes right now."""
    try:
        job = store.get(job_id)
    except JobsError as error:
        raise as_problem(error) from error
    sheet = latest_sheet(Path(request.app.state.settings.data) / "runs" / job.id, kind)
    if sheet is None:
        raise NotFound(
            f"job {job.id} has drawn no {kind} samples yet: the first come with its first snapshot"
        )
    return FileResponse(sheet, media_type="image/png", headers={"Cache-Control": "no-store"})


def latest_sheet(run: Path, kind: str) -> Path | None:
    """The newest sheet of a job, over all its attempts; names carry the step with leading zeros."""
    sheets = run.glob(f"attempt-*/samples/{kind}-*.png")
    return max(sheets, key=lambda path: (path.name, int(path.parts[-3].rpartition("-")[2])), default=None)
