"""Moving uploads and half-done jobs between stores: a data folder, or what ``GANSERVE_STORE`` names."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from ganserve import copying, files
from ganserve.bucket import BucketStore
from ganserve.kept import RECORD, ROOT, KeptSets
from ganserve.place import Place, inside
from ganserve.repository import Repository
from ganserve.runs import ATTEMPT, INIT, StoredRuns
from ganserve.store import Missing

Tell = Callable[[str], None]


class Sets(Protocol):
    """Data sets somewhere."""

    def names(self) -> list[str]:
        """Sets that are whole."""

    def record(self, name: str) -> bytes:
        """What was noted of one. Raises Missing."""

    def samples(self, name: str) -> bytes | None:
        """One picture a class."""

    def fetch(self, name: str, data: Path) -> Path:
        """A folder of this machine with its pictures."""

    def keep(self, name: str, folder: Path, record: bytes, samples: bytes | None) -> bool:
        """Add one; False if the name is taken."""


class FolderSets:
    """The data sets of a data folder."""

    def __init__(self, root: Path) -> None:
        self.root = root / ROOT

    def names(self) -> list[str]:
        """As :meth:`Sets.names`, sorted."""
        return sorted(path.parent.name for path in self.root.glob(f"[!.]*/{RECORD}"))

    def record(self, name: str) -> bytes:
        """As :meth:`Sets.record`."""
        try:
            return (self.root / name / RECORD).read_bytes()
        except FileNotFoundError as error:
            raise Missing(error.strerror) from error

    def samples(self, name: str) -> bytes | None:
        """As :meth:`Sets.samples`."""
        with contextlib.suppress(FileNotFoundError):
            return (self.root / name / ".samples.png").read_bytes()
        return None

    def fetch(self, name: str, data: Path) -> Path:
        """The folder itself."""
        return self.root / name

    def keep(self, name: str, folder: Path, record: bytes, samples: bytes | None) -> bool:
        """As :meth:`Sets.keep`; whole from the moment it has its name."""
        if (self.root / name).exists():
            return False
        staged = self.root / f".staging-{uuid.uuid4().hex}"
        try:
            shutil.copytree(folder, staged)
            if samples is not None:
                (staged / ".samples.png").write_bytes(samples)
            files.replace(staged / RECORD, record)
            staged.rename(self.root / name)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return True


def sets_of(where: Place) -> Sets:
    """The data sets at a place."""
    return KeptSets(BucketStore(where)) if isinstance(where, str) else FolderSets(where)


def data(source: Place, target: Place, names: Iterable[str] = (), tell: Tell = lambda line: None) -> None:
    """Copy uploads and jobs, all or those named. What is there already is passed over.

    Raises:
        CopyRefused: another data set has the name at the target.
        StoreError
    """
    wanted = set(names)
    given, taken = sets_of(source), sets_of(target)
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.names():
            if wanted and name not in wanted:
                continue
            folder = given.fetch(name, Path(scratch))
            if taken.keep(name, folder, given.record(name), given.samples(name)):
                tell(f"data set {name}")
            elif json.loads(taken.record(name)) != json.loads(given.record(name)):
                raise copying.CopyRefused(f"another data set is called {name!r} there: delete it, or copy by names")
        for job, folder in _jobs(source, Path(scratch)):
            if not wanted or job in wanted:
                _job(job, folder, source, target)
                tell(f"job {job}")


def _jobs(source: Place, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Each job with a folder of this machine that holds its attempts and the weights that it begins from."""
    if isinstance(source, Path):
        for folder in sorted((source / "runs").glob("*")):
            if any(ATTEMPT.fullmatch(run.name) for run in folder.glob("attempt-*")):
                yield folder.name, folder
        return
    runs = StoredRuns(BucketStore(source))
    for job in runs.jobs():
        folder = scratch / "runs" / job
        for number in runs.attempts(job):
            runs.bring(f"runs/{job}/attempt-{number}", folder / f"attempt-{number}")
        classes = runs.init(job, folder / "init.safetensors")
        if classes is not None:
            files.replace(folder / INIT, json.dumps(classes).encode())
        yield job, folder


def _job(job: str, folder: Path, source: Place, target: Place) -> None:
    attempts = sorted(path for path in folder.glob("attempt-*") if ATTEMPT.fullmatch(path.name))
    weights, classes = folder / "init.safetensors", folder / INIT
    if isinstance(target, Path):
        there = target / "runs" / job
        for path in (*(file for run in attempts for file in run.rglob("*")), weights, classes):
            if path.is_file() and not (there / path.relative_to(folder)).exists():
                files.copy(path, there / path.relative_to(folder))
    else:
        runs = StoredRuns(BucketStore(target))
        for run in attempts:
            runs.claim(job, int(run.name.partition("-")[2]))
            runs.push(f"runs/{job}/{run.name}", run, {})
        if weights.exists():
            names = json.loads(classes.read_bytes()) if classes.exists() else []
            runs.keep_init(job, weights, names)
    exported = Repository(inside(source, f"runs/{job}/export"))
    if exported.store.there() and exported.names():
        copying.models(exported, Repository(inside(target, f"runs/{job}/export")))
