"""``/jobs``: retraining. Every call needs the admin token, and none of them waits for training."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from service.http.answers import ALONE
from service.http.errors import NotFound
from service.http.openapi import ADMIN, Sample, told
from service.http.stream import Stream
from service.job import Job
from service.job import State as JobState
from service.jobs import JobRequest, JobStore, JobsUnavailable, UnknownJob
from service.state import Guarded, Phase, State, Store, of, prefix, require_admin

NO_WORKER = "no worker is running: the job waits until one starts (`make worker`)"
POLL_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 15.0
# A client that lost the connection asks again after this long.
RETRY_MILLISECONDS = 2000

# An Idempotency-Key gives its job always the same id.
JOB = "669262f8b97259af96f21b7144d1ddee"
_ASKED = {"model": "letters", "recipe": "projgan", "dataset": "digits", "images": 20000, "overrides": {"batch": 32}}

router = APIRouter(prefix="/jobs", tags=["jobs"], dependencies=[Depends(require_admin)], route_class=Guarded)


class JobPage(BaseModel):
    """A page of jobs, newest first; ``next`` is the path of the next page."""

    jobs: list[Job]
    workers: list[str]
    next: str | None = None


def _noted(job: Job, store: JobStore) -> Job:
    if job.state == "queued" and not store.workers():
        return job.model_copy(update={"note": NO_WORKER})
    return job


@router.post(
    "",
    status_code=202,
    summary="Ask for a retraining",
    openapi_extra=told(
        (*ADMIN, 400, 409, 413, 415, 422, 429, 503),
        Sample(202, "a new model from digits", "/jobs", json.dumps(_ASKED), headers=("Idempotency-Key: letters-1",)),
        Sample(
            409,
            "the key belongs to another request",
            "/jobs",
            json.dumps(_ASKED | {"images": 5}),
            headers=("Idempotency-Key: letters-1",),
        ),
        Sample(400, "broken JSON", "/jobs", '{"model": "letters"'),
        Sample(415, "packed", "/jobs", json.dumps(_ASKED), headers=("Content-Encoding: gzip",)),
        Sample(422, "no such override", "/jobs", json.dumps(_ASKED | {"overrides": {"speed": 9}})),
    ),
)
async def submit(
    body: JobRequest,
    store: Store,
    request: Request,
    response: Response,
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=255, description="the same key never makes two jobs")
    ] = None,
) -> Job:
    """Queue a job and answer at once with where to watch it."""
    job: Job = await of(request).queue(lambda: _noted(store.submit(body, idempotency_key)[0], store))
    response.headers["Location"] = f"{prefix(request)}/jobs/{job.id}"
    return job


@router.get(
    "",
    summary="List jobs",
    openapi_extra=told(
        (*ADMIN, 422, 503),
        Sample(200, "those that wait", "/jobs?state=queued&limit=5"),
        Sample(422, "no such state", "/jobs?state=lost"),
    ),
)
async def page(
    store: Store,
    request: Request,
    state: Annotated[JobState | None, Query(description="only jobs in this state")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> JobPage:
    """Jobs, newest first, and the workers that are alive."""

    def look() -> tuple[list[Job], list[str]]:
        return store.page(state=state, limit=limit + 1, offset=offset), store.workers()

    jobs, workers = await of(request).queue(look)
    more = f"{prefix(request)}/jobs?limit={limit}&offset={offset + limit}" + (f"&state={state}" if state else "")
    return JobPage(jobs=jobs[:limit], workers=workers, next=more if len(jobs) > limit else None)


@router.get(
    "/{job_id}",
    summary="One job",
    openapi_extra=told(
        (*ADMIN, 404, 503), Sample(200, "one job", f"/jobs/{JOB}"), Sample(404, "no such job", "/jobs/nothing")
    ),
)
async def get(job_id: str, store: Store, request: Request) -> Job:
    """State, progress and, at the end, the result with the gate's verdict, or the error."""
    return await of(request).queue(lambda: _noted(store.get(job_id), store))


@router.delete(
    "/{job_id}",
    status_code=202,
    summary="Cancel a job",
    openapi_extra=told(
        (*ADMIN, 404, 409, 422, 503),
        Sample(202, "cancel it", f"/jobs/{JOB}"),
        Sample(409, "nothing trains that could end early", f"/jobs/{JOB}?keep=true"),
        Sample(422, "keep or not", f"/jobs/{JOB}?keep=perhaps"),
        Sample(404, "no such job", "/jobs/nothing"),
    ),
)
async def cancel(
    job_id: str,
    store: Store,
    request: Request,
    keep: Annotated[
        bool, Query(description="end the training early, and go on with the best snapshot so far as if it were done")
    ] = False,
) -> Job:
    """Stop it; a running one ends within about a second. Cancelling twice is no mistake.

    With `keep` a job that trains ends its training within seconds and goes on: its best snapshot is exported, measured
    and published as at the end of a whole training.
    """
    return await of(request).queue(store.finish if keep else store.cancel, job_id)


@router.get(
    "/{job_id}/events",
    summary="Watch a job",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "one `job` event a change"}},
    openapi_extra=told(
        (*ADMIN, 404, 503),
        Sample(200, "until it has ended", f"/jobs/{JOB}/events"),
        Sample(404, "no such job", "/jobs/nothing/events"),
    ),
)
async def events(job_id: str, store: Store, request: Request) -> StreamingResponse:
    """Server-sent events: the whole job at once, at each change, and a last time when it has ended."""
    first = await of(request).queue(store.get, job_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    retry = f"retry: {RETRY_MILLISECONDS}\n\n".encode()
    return Stream(retry, _watch(first, of(request)), headers, "text/event-stream")


async def _watch(job: Job, app: State) -> AsyncGenerator[bytes, None]:
    told, at = "", time.monotonic()
    while True:
        text = job.model_dump_json(exclude_none=True)
        if text != told:
            told, at = text, time.monotonic()
            yield f"event: job\ndata: {text}\n\n".encode()
        elif time.monotonic() - at > KEEP_ALIVE_SECONDS:
            at = time.monotonic()
            yield b": still here\n\n"
        # A server that is told to stop must not wait for the job's end; the client asks again, where one is.
        if job.finished or app.phase is Phase.DRAINING:
            return
        await asyncio.sleep(POLL_SECONDS)
        try:
            job = await app.queue(app.jobs.get, job.id)
        except JobsUnavailable:
            # The queue's database restarts; what was told stays true, and the watch goes on.
            continue
        except UnknownJob:
            return


@router.get(
    "/{job_id}/samples.png",
    summary="The latest sample sheet",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "one row a class"}},
    openapi_extra=told(
        (*ADMIN, 404, 422, 503),
        Sample(404, "none are drawn before its first snapshot", f"/jobs/{JOB}/samples.png"),
        Sample(422, "fresh or same-noise", f"/jobs/{JOB}/samples.png?kind=old"),
    ),
)
async def samples(
    job_id: str,
    request: Request,
    kind: Annotated[
        Literal["fresh", "same-noise"],
        Query(description="new noise for each image, or one across the classes"),
    ] = "fresh",
) -> Response:
    """What the generator makes right now."""
    state = of(request)
    sheet = await state.queue(_sheet, state, job_id, kind)
    if sheet is None:
        raise NotFound(f"job {job_id} has drawn no {kind} samples yet: the first come with its first snapshot")
    return Response(sheet, media_type="image/png", headers={"Cache-Control": "no-store", **ALONE})


def _sheet(state: State, job_id: str, kind: Literal["fresh", "same-noise"]) -> bytes | None:
    job = state.jobs.get(job_id)
    if state.runs is not None:
        return state.runs.sheet(job.id, kind)
    path = latest_sheet(Path(state.settings.kept) / "runs" / job.id, kind)
    return None if path is None else path.read_bytes()


def latest_sheet(run: Path, kind: str) -> Path | None:
    """The newest sheet of a job, over all its attempts; names carry the step with leading zeros."""
    sheets = run.glob(f"attempt-*/samples/{kind}-*.png")
    return max(sheets, key=lambda path: (path.name, int(path.parts[-3].rpartition("-")[2])), default=None)
