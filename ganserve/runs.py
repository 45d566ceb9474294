"""What of a job is in the object store, so that a worker with an empty disk goes on where another was lost.

    runs/<job>/attempt-N/run.json           which files the run has; the number is its alone, on every machine
    runs/<job>/attempt-N/parts/<sha>.part   what the files are made of
    runs/<job>/init.json                    the weights that the job begins from, and the order of their classes
    runs/<job>/export/                      the job's own repository, before anything is public

Files come down checked by their hashes, and are read as data, never as code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ganserve import blobs
from ganserve.bucket import BucketStore
from ganserve.store import Missing

ROOT, RUN, INIT = "runs", "run.json", "init.json"
# What is left of a job that has ended is removed after a day.
ENDED_SECONDS = 24 * 3600.0
ATTEMPT = re.compile(r"attempt-([1-9][0-9]*)")
SHEET = re.compile(r"samples/([a-z-]+)-\d+\.png")

# What was put up of a file: what it looked like then, and its blob.
Known = dict[str, tuple[object, blobs.Blob]]


class StoredRuns:
    """The jobs of a store. Every method may raise Away."""

    def __init__(self, store: BucketStore) -> None:
        self.store = store

    def jobs(self) -> list[str]:
        """Jobs of which something is here."""
        return self.store.folders(ROOT)

    def claim(self, job: str, number: int) -> bool:
        """Make an attempt's number one worker's alone; False if it is somebody's."""
        self.store.ensure(ROOT)
        return self.store.put(f"{ROOT}/{job}/attempt-{number}/{RUN}", _told({}))

    def attempts(self, job: str) -> dict[int, dict[str, Any]]:
        """The files that attempts have put here, by their numbers."""
        names = self.store.folders(f"{ROOT}/{job}")
        numbers = [int(match[1]) for name in names if (match := ATTEMPT.fullmatch(name))]
        return {number: self.files(f"{ROOT}/{job}/attempt-{number}") for number in numbers}

    def furthest(self, job: str) -> tuple[str, int]:
        """The newest checkpoint that is here and its attempt; an empty name where there is none."""
        return max(((newest(files), number) for number, files in self.attempts(job).items()), default=("", 0))

    def files(self, run: str) -> dict[str, Any]:
        """The files of ``runs/<job>/attempt-N``; none where nothing is."""
        try:
            found: dict[str, Any] = json.loads(self.store.read(f"{run}/{RUN}"))["files"]
        except Missing:
            return {}
        return found

    def bring(self, run: str, folder: Path) -> None:
        """Fetch a run's files into a folder; what is there already stays. Raises Missing, Unreadable."""
        for name, blob in self.files(run).items():
            path = folder / name
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{run} names a file outside of it: {name!r}")
            if not path.exists():
                blobs.fetch(self.store, run, blob, path)

    def push(self, run: str, folder: Path, known: Known) -> None:
        """Put up what is new in a run's folder, then say so, then remove what is no longer said.

        Args:
            known: what was put up before, by name, as this leaves it.
        """
        told = {}
        for name, path in whole(folder).items():
            try:
                status = path.stat()
                mark = (status.st_mtime_ns, status.st_size, status.st_ino)
                if name not in known or known[name][0] != mark:
                    known[name] = (mark, blobs.send(self.store, run, path))
            except FileNotFoundError:
                # The training has taken it away meanwhile.
                continue
            told[name] = known[name][1]
        before, after = self.store.read(f"{run}/{RUN}"), _told(told)
        if before == after or not self.store.replace(f"{run}/{RUN}", after, before):
            return
        for part in _parts(json.loads(before)["files"]) - _parts(told):
            self.store.delete(blobs.part(run, part))

    def sheet(self, job: str, kind: str) -> bytes | None:
        """The newest sheet of samples of a job."""
        sheets = [
            (name, number)
            for number, files in self.attempts(job).items()
            for name in files
            if (match := SHEET.fullmatch(name)) and match[1] == kind
        ]
        if not sheets:
            return None
        name, number = max(sheets)
        run = f"{ROOT}/{job}/attempt-{number}"
        return blobs.content(self.store, run, self.files(run)[name])

    def keep_init(self, job: str, weights: Path, classes: list[str]) -> None:
        """Put the weights that a job begins from here, unless some are."""
        self.store.ensure(ROOT)
        blob = blobs.send(self.store, f"{ROOT}/{job}", weights)
        self.store.put(f"{ROOT}/{job}/{INIT}", json.dumps({"weights": blob, "classes": classes}).encode())

    def init(self, job: str, weights: Path) -> list[str] | None:
        """Fetch them; the order of their classes, or None where there are none."""
        try:
            told = json.loads(self.store.read(f"{ROOT}/{job}/{INIT}"))
        except Missing:
            return None
        blobs.fetch(self.store, f"{ROOT}/{job}", told["weights"], weights)
        return [str(name) for name in told["classes"]]

    def sweep(self, under_way: set[str]) -> None:
        """Remove what a crash left of jobs, and of those that have ended all but their newest sheets, after a day."""
        self.store.ensure(ROOT)
        ended = datetime.now(UTC) - timedelta(seconds=ENDED_SECONDS)
        for job in self.jobs():
            place, old = f"{ROOT}/{job}", job not in under_way
            found = [(key, meta["last_modified"]) for key, meta in self.store.below(place)]
            if not old or max((when for _, when in found), default=ended) > ended:
                for number, files in self.attempts(job).items():
                    blobs.forget(self.store, f"{place}/attempt-{number}", _parts(files))
                continue
            kept: set[str] = set()
            for number, files in self.attempts(job).items():
                run = f"{place}/attempt-{number}"
                sheets = {name: blob for name, blob in files.items() if SHEET.fullmatch(name)}
                self.store.replace(f"{run}/{RUN}", _told(sheets), _told(files))
                kept |= {f"{run}/{RUN}", *(blobs.part(run, part) for part in _parts(sheets))}
            for key, _ in found:
                if key not in kept:
                    self.store.delete(key)


def _told(files: Mapping[str, Any]) -> bytes:
    return json.dumps({"files": files}, sort_keys=True).encode()


def _parts(files: Mapping[str, Any]) -> set[str]:
    return {str(part) for blob in files.values() for part in blob["parts"]}


def whole(run: Path) -> dict[str, Path]:
    """What of a run is put up: everything whole, of the sheets the newest of each kind."""
    found = {str(path.relative_to(run)): path for path in sorted(run.rglob("*")) if path.is_file()}
    seen = {name: path for name, path in found.items() if not any(part.startswith(".") for part in Path(name).parts)}
    latest = {match[1]: name for name in seen if (match := SHEET.fullmatch(name))}
    return {name: path for name, path in seen.items() if not SHEET.fullmatch(name) or name in latest.values()}


def newest(files: Mapping[str, Any]) -> str:
    """The name of the newest checkpoint among files."""
    names = [name for name in files if name.startswith("checkpoints/") and name.endswith(".pt")]
    return max((Path(name).name for name in names), default="")
