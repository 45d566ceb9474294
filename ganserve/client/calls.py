"""Models, jobs and data sets: what is asked, and what an answer means."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ganserve import errors
from ganserve.client import answers, archive
from ganserve.client.answers import Dataset, Job, Model
from ganserve.client.exchange import Ask, Flow, checked
from ganserve.client.paths import dataset_path, job_path, model_path, version_path
from ganserve.verdict import Verdict, query_of

# The service says something at least every 15 s.
SILENT_SECONDS = 45.0
AGAIN_SECONDS = 2.0
_LINE_END = re.compile(rb"\r\n|\n|\r(?!$)")
# To send a data set, and for the server to unpack and check it.
UPLOAD_SECONDS = 3600.0
UPLOAD_SILENT_SECONDS = 600.0


def models() -> Flow[list[Model]]:
    """All models."""
    told = answers.document(checked((yield Ask("GET", "/models"))))
    return answers.told_as(lambda listed: [Model.read(one) for one in listed], told)  # type: ignore[no-any-return]


def model(name: str) -> Flow[Model]:
    """One model."""
    told = answers.document(checked((yield Ask("GET", model_path(name)))))
    return answers.told_as(Model.read, told)  # type: ignore[no-any-return]


def card(name: str, version: int) -> Flow[Mapping[str, Any]]:
    """One version's card."""
    told = answers.document(checked((yield Ask("GET", version_path(name, version)))))
    return answers.told_as(dict, told)  # type: ignore[no-any-return]


def promote(name: str, version: int) -> Flow[Model]:
    """Make a version live; the model as it is then."""
    checked((yield Ask("PUT", f"{model_path(name)}/live", json={"version": version})))
    return (yield from model(name))


def job_request(
    model: str,
    recipe: str,
    dataset: str,
    images: int,
    seed: int | None,
    init: str,
    promote: str,
    overrides: Mapping[str, float | int | str] | None,
) -> dict[str, Any]:
    """The body of a request for a job."""
    asked: dict[str, Any] = {"model": model, "recipe": recipe, "dataset": dataset, "images": images}
    asked |= {"init": init, "promote": promote, "overrides": dict(overrides or {})}
    return asked if seed is None else {**asked, "seed": seed}


def submit(request: Mapping[str, Any], key: str | None) -> Flow[Job]:
    """Ask for a retraining, under a key so that sending it again makes no second job."""
    headers = {"Idempotency-Key": key or uuid.uuid4().hex}
    told = answers.document(checked((yield Ask("POST", "/jobs", json=dict(request), headers=headers))))
    return answers.told_as(Job.read, told)  # type: ignore[no-any-return]


def jobs(state: str | None, limit: int, offset: int) -> Flow[list[Job]]:
    """Jobs, newest first."""
    query = {"limit": str(limit), "offset": str(offset)} | ({"state": state} if state else {})
    told = answers.document(checked((yield Ask("GET", "/jobs", query))))
    return answers.told_as(lambda page: [Job.read(one) for one in page["jobs"]], told)  # type: ignore[no-any-return]


def job(which: Job | str) -> Flow[Job]:
    """One job."""
    told = answers.document(checked((yield Ask("GET", job_path(job_id(which))))))
    return answers.told_as(Job.read, told)  # type: ignore[no-any-return]


def cancel(which: Job | str, keep: bool) -> Flow[Job]:
    """Stop a job, or end its training early."""
    query = {"keep": "true"} if keep else {}
    told = answers.document(checked((yield Ask("DELETE", job_path(job_id(which)), query))))
    return answers.told_as(Job.read, told)  # type: ignore[no-any-return]


def job_id(which: Job | str) -> str:
    """A job's id, given either."""
    return which.id if isinstance(which, Job) else which


class Watch:
    """Server-sent events of one job: what each line means, and when to ask again (HTML standard, section 9.2).

    Args:
        timeout: seconds until :meth:`lost` and :meth:`feed` give up; None: never.
        patience: seconds without a sign of life after which a lost connection is an error.
    """

    def __init__(self, which: Job | str, timeout: float | None, patience: float) -> None:
        self.job_id = job_id(which)
        self.last: Job | None = None
        self.again = AGAIN_SECONDS
        self._timeout, self._patience = timeout, patience
        self._until = None if timeout is None else time.monotonic() + timeout
        self._heard: float | None = None
        self._rest = b""
        self._data: list[bytes] = []

    @property
    def ended(self) -> bool:
        """Whether nothing more will be told."""
        return self.last is not None and self.last.finished

    def ask(self) -> Ask:
        """The request for the events."""
        silent = SILENT_SECONDS
        if self._until is not None:
            silent = max(0.05, min(silent, self._until - time.monotonic()))
        accept = {"Accept": "text/event-stream"}
        return Ask("GET", f"{job_path(self.job_id)}/events", headers=accept, read_timeout=silent)

    def feed(self, part: bytes) -> Iterator[Job]:
        """The job, for each event in these bytes that tells something new.

        Raises:
            errors.TimedOut, errors.BadAnswer
        """
        self._heard = time.monotonic()
        self._check()
        # Lines end at these alone: text may hold what Python takes for the end of a line.
        *lines, self._rest = _LINE_END.split(self._rest + part)
        for line in lines:
            found = self._line(line)
            if found is not None and found != self.last:
                self.last = found
                yield found

    def _line(self, line: bytes) -> Job | None:
        """The job, where this line ends an event."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"retry" and value.isdigit():
            self.again = int(value) / 1000
        if line or not self._data:
            return None
        content, self._data = b"\n".join(self._data), []
        try:
            told = json.loads(content)
        except (ValueError, RecursionError):
            raise errors.BadAnswer("an event is no JSON: is this the address of the service?") from None
        return answers.told_as(Job.read, told)  # type: ignore[no-any-return]

    def lost(self, error: errors.GanserveError | None) -> None:
        """The connection ended before the job did. Raises what ended it, where it is no use to ask again."""
        self._rest, self._data = b"", []
        self._check()
        if error is not None and (self._heard is None or time.monotonic() - self._heard > self._patience):
            raise error

    def pause(self) -> float:
        """Seconds until to ask again."""
        return self.again if self._until is None else max(0.0, min(self.again, self._until - time.monotonic()))

    def _check(self) -> None:
        if self._until is not None and time.monotonic() >= self._until:
            state = f"; it is {self.last.state}" if self.last is not None else ""
            raise errors.TimedOut(f"job {self.job_id} has not ended within {self._timeout:g} s{state}")


def succeeded(last: Job | None) -> Job:
    """The job that was waited for. Raises errors.JobFailed for any other end."""
    if last is None:
        raise errors.BadAnswer("the server told nothing of the job: is this the address of the service?")
    if last.state != "succeeded":
        ended = "failed" if last.state == "failed" else "been cancelled"
        raise errors.JobFailed(f"job {last.id} has {ended}" + (f": {last.error}" if last.error else ""), last)
    return last


def bar_of(told: Job) -> tuple[float, float | None, str]:
    """Images seen, images in all where they are known, and a word on where the job is."""
    progress = told.progress or {}
    total = progress.get("images_total") or told.request.get("images")
    return progress.get("images") or 0, total, told.step or told.state


def upload(name: str, source: archive.Source, tell: Callable[[int], None]) -> Flow[Dataset]:
    """Send an archive. The name is looked up first: a server that refuses a body does not read it to its end."""
    known = yield Ask("GET", dataset_path(name))
    if known.status == 200:
        raise errors.Conflict(f"a data set {name!r} is kept already: delete it first, or take another name")
    if known.status != 404:
        checked(known)
    headers = {"Content-Type": "application/zip", "Content-Length": str(source.size)}
    reply = yield Ask(
        "PUT",
        dataset_path(name),
        body=lambda: source.parts(tell),
        headers=headers,
        read_timeout=UPLOAD_SILENT_SECONDS,
        deadline=UPLOAD_SECONDS,
    )
    return answers.told_as(Dataset.read, answers.document(checked(reply)))  # type: ignore[no-any-return]


def verify(picture: bytes, address: str | None) -> Flow[Verdict]:
    """Does a picture stand at its address?"""
    path = "/verify" if address is None else f"/verify?{query_of(address)}"
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(picture))}
    told = answers.document(checked((yield Ask("POST", path, body=lambda: [picture], headers=headers))))
    known = [field.name for field in fields(Verdict)]
    read: Any = lambda one: Verdict(**{name: one.get(name) for name in known} | {"verdict": one["verdict"]})  # noqa: E731
    return answers.told_as(read, told)  # type: ignore[no-any-return]


def picture_of(given: bytes | str | Path) -> bytes:
    """A picture's file. Raises OSError."""
    return given if isinstance(given, bytes) else Path(given).read_bytes()


def archive_of(path: str | Path) -> archive.Source:
    """The archive to send. Raises errors.Invalid for what is none and makes none."""
    return archive.Source(Path(path))
