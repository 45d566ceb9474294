"""Processes that do a job's work: started, listened to, killed when they stall, and ended with their worker.

Everything that needs torch runs in one. It speaks the lines of :mod:`ganserve.events`; what it tells of its progress
becomes the job's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from asyncio.subprocess import Process
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from dbos import DBOS

from ganserve import events
from ganserve.events import Event
from ganserve.queue import PROGRESS

PROGRESS_SECONDS = 1.0
# The longest line that a child may write.
LINE_BYTES = 2**20
LAST_WORDS = 20
STAY = ("curve", "metrics", "samples", "warnings")
# libgomp's threads spin where they wait for each other, by default, and so take cores from those they wait for on a
# machine that serves as well. It reads this once, when torch is loaded.
AT_BARRIERS = {"OMP_WAIT_POLICY": "PASSIVE"}


@dataclass
class Ended:
    """How a child process ended: its status, what it found, and why it failed, if it said so."""

    code: int = -1
    result: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    def note(self, event: Event) -> None:
        """Keep what an event tells of the end."""
        if event["event"] == "failed":
            self.reason = str(event.get("reason", ""))
        elif event["event"] in ("finished", "result"):
            self.result = events.content(event)


class Children:
    """A worker's child processes, one at a time unless a cancelled one is just ending.

    Args:
        data: data folder, where judges that were made for a data set are kept.
        no_progress_seconds: a child that tells nothing new for so long is killed.
    """

    def __init__(self, data: Path, no_progress_seconds: float) -> None:
        self.data, self.no_progress_seconds = data, no_progress_seconds
        self.stopping = threading.Event()
        self._alive: set[Process] = set()
        # What the job's training was worth, which its later steps go on telling.
        self._trained: dict[str, Any] = {}

    async def run(self, command: Sequence[str], step: str) -> Ended:
        """Run a command as the job's step, to its end.

        The child is killed when the job is cancelled or taken over, or when it makes no progress for too long.
        """
        trains = step == "train"
        progress = Progress({"step": step, **({} if trains else self._trained)})
        await progress.tell()
        async with self._child(command) as (process, last_words):
            if self.stopping.is_set():
                process.send_signal(signal.SIGTERM)
            ended = await self._follow(process, progress)
            words = await last_words
        if trains:
            self._trained = {name: progress.latest[name] for name in STAY if name in progress.latest}
        if not ended.reason and ended.code:
            ended.reason = why(ended.code, words)
        if self.stopping.is_set() and ended.code:
            await _until_the_worker_ends()
        return ended

    def stop(self, seconds: float) -> None:
        """Tell them to end, and give them so long for a checkpoint. From any thread."""
        for process in list(self._alive):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        until = time.monotonic() + seconds
        while self._alive and time.monotonic() < until:
            time.sleep(0.05)

    @contextlib.asynccontextmanager
    async def _child(self, command: Sequence[str]) -> AsyncIterator[tuple[Process, asyncio.Task[deque[str]]]]:
        """A started child and, once it has ended, its last lines on standard error. However it is left, it is dead."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**AT_BARRIERS, **os.environ, "GANSERVE_DATA": str(self.data)},
            start_new_session=True,
            limit=LINE_BYTES,
        )
        self._alive.add(process)
        assert process.stderr is not None
        last_words = asyncio.create_task(_last_words(process.stderr))
        try:
            yield process, last_words
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await asyncio.shield(process.wait())
            last_words.cancel()
            self._alive.discard(process)

    async def _follow(self, process: Process, progress: Progress) -> Ended:
        """Listen to a child until it ends, or until it stalls and is killed."""
        assert process.stdout is not None
        ended, watch = Ended(), StallWatch(self.no_progress_seconds)
        while line := await _next_line(process.stdout, watch.left()):
            event = events.read(line)
            watch.look(event)
            if event is None:
                continue
            ended.note(event)
            if progress.take(event):
                await progress.tell()
        if line is None:
            ended.reason = f"no progress in {self.no_progress_seconds:.0f} s"
            process.kill()
        ended.code = await process.wait()
        if progress.pending:
            await progress.tell()
        return ended


class StallWatch:
    """The time that a child has left to tell something new. The same again is nothing new, and a warning never is."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._moved = time.monotonic()
        self._last: tuple[object, ...] | None = None

    def look(self, event: Event | None) -> None:
        """Note a line."""
        told: dict[str, Any] = {} if event is None else dict(event)
        place = (told.get("event"), told.get("images"), told.get("step"))
        if place != self._last and place[0] != "warning":
            self._moved, self._last = time.monotonic(), place

    def left(self) -> float:
        """Seconds until it counts as stalled; always some, so that a line that is there is read."""
        return max(self._moved + self.seconds - time.monotonic(), 0.01)


class Progress:
    """The job's progress as it is told: the latest of each kind of event, at most once a second."""

    def __init__(self, base: dict[str, Any]) -> None:
        self.base = base
        self.latest: dict[str, Any] = {}
        self.pending = False
        self._told = 0.0

    def take(self, event: Event) -> bool:
        """Note an event; says whether it is time to tell."""
        told = events.content(event)
        if event["event"] == "progress":
            self.latest.update(_renamed(told))
            if "images" in told and "images_total" in told:
                self.latest["images_left"] = max(0, told["images_total"] - told["images"])
        elif event["event"] == "samples":
            self.latest["metrics"] = {k: v for k, v in told.items() if k not in ("path", "step", "images", "curve")}
            self.latest["curve"] = told.get("curve", [])
            self.latest["samples"] = told.get("path")
        elif event["event"] == "warning":
            self.latest["warnings"] = [*self.latest.get("warnings", []), told.get("reason")][-10:]
        else:
            return False
        self.pending = True
        return time.monotonic() - self._told >= PROGRESS_SECONDS

    def value(self) -> dict[str, Any]:
        """What to tell now."""
        self._told, self.pending = time.monotonic(), False
        return {**self.base, **self.latest}

    async def tell(self) -> None:
        """Tell it as the progress of the job that this runs in."""
        await DBOS.set_event_async(PROGRESS, self.value())


def _renamed(content: dict[str, Any]) -> dict[str, Any]:
    """``step`` names the job's step, so the optimiser's steps are told as ``training_step``."""
    names = {"step": "training_step", "steps": "training_steps"}
    return {names.get(key, key): value for key, value in content.items()}


async def _next_line(stream: asyncio.StreamReader, seconds: float) -> bytes | None:
    """The next line, empty where the stream has ended; None where none comes in time."""
    try:
        return await asyncio.wait_for(stream.readline(), seconds)
    except TimeoutError:
        return None


async def _last_words(stream: asyncio.StreamReader) -> deque[str]:
    """The last lines of a stream that are not empty."""
    kept: deque[str] = deque(maxlen=LAST_WORDS)
    async for line in stream:
        if text := line.decode(errors="replace").rstrip():
            kept.append(text)
    return kept


def why(code: int, last_words: Sequence[str]) -> str:
    """How a child ended, in words."""
    words = last_words[-1] if last_words else ""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (f" ({words})" if words else "")
    return words.removeprefix("error: ") or f"ended with status {code}"


async def _until_the_worker_ends() -> NoReturn:
    """Wait for ever: the worker is about to end, and an outcome recorded now would be taken for the job's own."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets this event")
