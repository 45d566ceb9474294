"""Moving uploads and half-done jobs between stores: a data folder, or what ``GANSERVE_STORE`` names."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ganserve import copying, files
from ganserve.bucket import BucketStore
from ganserve.kept import ROOT, FolderSets, KeptSets, Sets
from ganserve.place import Place, inside
from ganserve.repository import Repository
from ganserve.runs import ATTEMPT, INIT, StoredRuns

Tell = Callable[[str], None]


def sets_of(where: Place) -> Sets:
    """The data sets at a place."""
    return KeptSets(BucketStore(where)) if isinstance(where, str) else FolderSets(where / ROOT)


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
