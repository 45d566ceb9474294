"""One job as it stands: what its row in the queue tells, and that a row which tells nothing sensible is damaged."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

if TYPE_CHECKING:
    # Imported where it is used: to load it takes as long as the rest of a start, and many services never see a job.
    from dbos import WorkflowStatus

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATES: Mapping[str, State] = {
    "ENQUEUED": "queued",
    "DELAYED": "queued",
    "PENDING": "running",
    "SUCCESS": "succeeded",
    "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
    "CANCELLED": "cancelled",
}
STATUSES: Mapping[State, list[str]] = {
    state: [status for status, named in STATES.items() if named == state] for state in STATES.values()
}

log = logging.getLogger(__name__)


class Job(BaseModel):
    """One job as it stands."""

    id: str
    state: State
    step: str | None = None
    request: dict[str, Any]
    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0
    worker: str | None = None
    note: str | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing about it will change any more."""
        return self.state in ("succeeded", "failed", "cancelled")


def read(row: WorkflowStatus, progress: Any) -> Job:
    """The job of a row, with what its worker told last (None: nothing yet).

    A row that this service does not understand, whoever wrote it, is a job that has failed: the others are listed.
    """
    try:
        return _read(row, progress)
    except (AttributeError, LookupError, OverflowError, OSError, TypeError, ValueError) as error:
        log.warning("the row of job %s in the queue is damaged: %r", row.workflow_id, error)
        return Job(
            id=row.workflow_id,
            state="failed",
            request={},
            error=f"its row in the queue is damaged ({type(error).__name__})",
            created_at=datetime.fromtimestamp(0, UTC),
        )


def asked(row: WorkflowStatus) -> Any:
    """What was asked for, as it was asked; None where the row is damaged."""
    try:
        return _inputs(row)["asked"]
    except (AttributeError, LookupError, TypeError, ValueError):
        return None


def _read(row: WorkflowStatus, progress: Any) -> Job:
    state = STATES[row.status]
    return Job(
        id=row.workflow_id,
        state=state,
        step=None if progress is None else progress.get("step"),
        request=_inputs(row)["spec"],
        progress=progress,
        result=row.output if state == "succeeded" else None,
        error=_reason(row) if state == "failed" else None,
        created_at=_moment(row.created_at) or datetime.now(UTC),
        started_at=_moment(row.dequeued_at),
        finished_at=_moment(row.completed_at),
        attempts=row.recovery_attempts or 0,
        worker=row.executor_id or None,
    )


def _inputs(row: WorkflowStatus) -> dict[str, Any]:
    if row.input is None:
        raise ValueError("no input")
    found: dict[str, Any] = row.input["args"][0]
    return found


def _reason(row: WorkflowStatus) -> str:
    return str(row.error) if row.error is not None else "no reason was recorded"


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
