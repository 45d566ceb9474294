"""What a training process tells the one that started it: an event a line, and an exit status.

An event is one JSON object on a line of standard output, with its name under ``event``. Training
(``training/train.py``), a job's other tasks (``training/retrain/tasks.py``) and the worker that reads them
(``training/retrain/children.py``) agree on what is here; the page draws what the worker makes of it
(``service/page/jobs.js``, as a job's ``progress``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, cast, get_args, get_type_hints

# How such a process ends: done; input that can never work; a training that failed (NaN, collapse); told to stop, with a
# checkpoint to go on from; the object store was away, which is waited for. Any other status may be tried again.
FINISHED, BAD_INPUT, FAILED, STOPPED, AWAY = 0, 2, 3, 75, 69


# A file of this name in a run's folder asks its training to end early, as a finished one, with its best snapshot.
FINISH = "finish"


class Progress(TypedDict):
    """A line of the training's log. Losses and D's outputs are further keys, as the recipe has them."""

    event: Literal["progress"]
    step: int
    steps: int
    images: int
    images_total: int
    images_per_second: float
    seconds_left: float


class Samples(TypedDict):
    """A snapshot: a sheet of samples, its path within the run's folder. The scores are further keys; ``curve`` has
    those that a person follows, of every snapshot so far."""

    event: Literal["samples"]
    path: str
    curve: list[dict[str, float]]
    step: int
    images: int


class Warned(TypedDict):
    """Something that a person should know and that stops nothing."""

    event: Literal["warning"]
    reason: str


class Checkpoint(TypedDict):
    """A checkpoint stands."""

    event: Literal["checkpoint"]
    step: int


class Failed(TypedDict):
    """The last event of a process that cannot succeed: why, in words for the job's owner."""

    event: Literal["failed"]
    reason: str


class Finished(TypedDict):
    """The last event of a training; the run's final status is in further keys."""

    event: Literal["finished"]
    state: str


class Result(TypedDict):
    """The last event of a task; what it found is in further keys."""

    event: Literal["result"]


Event = Progress | Samples | Warned | Checkpoint | Failed | Finished | Result
NAMES = frozenset(get_args(get_type_hints(kind)["event"])[0] for kind in get_args(Event))


def write(event: Mapping[str, Any]) -> None:
    """Tell an event on standard output, at once."""
    print(json.dumps(event), flush=True)


def read(line: bytes) -> Event | None:
    """The event of a line; None for what a library prints between them."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return cast(Event, event) if isinstance(event, dict) and event.get("event") in NAMES else None


def content(event: Event) -> dict[str, Any]:
    """What an event tells besides its name."""
    return {key: value for key, value in event.items() if key != "event"}
