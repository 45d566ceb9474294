"""Moving uploads and half-done jobs between stores: a data folder, or what ``GANSERVE_STORE`` names."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ganserve import copying, files
from ganserve.bucket import BucketStore
from ganserve.kept import ROOT, FolderSets, KeptSets, Sets
from ganserve.place import Place, inside
from ganserve.repository import Repository
from ganserve.runs import ATTEMPT, INIT, StoredRuns, newest, whole
from ganserve.store import Missing

Tell = Callable[[str], None]


def sets_of(where: Place) -> Sets:
    """The data sets at a place."""
    return KeptSets(BucketStore(where)) if isinstance(where, str) else FolderSets(where / ROOT)


def data(source: Place, target: Place, names: Iterable[str] = (), tell: Tell = lambda line: None) -> None:
    """Copy uploads and jobs, all or those named. What is there already is passed over.

    Raises:
        CopyRefused: another data set has the name at the target.
        Missing: nothing at the source has a name that is wanted.
        StoreError
    """
    wanted = set(names)
    given, taken = sets_of(source), sets_of(target)
    if absent := wanted - {*given.names(), *_named(source)}:
        raise Missing(f"{source} has no data set or job {', '.join(map(repr, sorted(absent)))}")
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.names():
            if wanted and name not in wanted:
                continue
            folder = given.fetch(name, Path(scratch))
            if taken.keep(name, folder, given.record(name), given.samples(name)):
                tell(f"data set {name}")
            elif json.loads(taken.record(name)) != json.loads(given.record(name)):
                raise copying.CopyRefused(f"another data set is called {name!r} there: delete it, or copy by names")
        for job, folder in _jobs(source, Path(scratch), wanted):
            _job(job, folder, source, target)
            tell(f"job {job}")


def _named(source: Place) -> list[str]:
    """The jobs of a place."""
    if isinstance(source, str):
        return StoredRuns(BucketStore(source)).jobs()
    folders = sorted((source / "runs").glob("*"))
    return [path.name for path in folders if any(ATTEMPT.fullmatch(run.name) for run in path.glob("attempt-*"))]


def _jobs(source: Place, scratch: Path, wanted: set[str]) -> Iterator[tuple[str, Path]]:
    """Each job with a folder of this machine that holds its attempts and the weights that it begins from."""
    named = [job for job in _named(source) if not wanted or job in wanted]
    if isinstance(source, Path):
        yield from ((job, source / "runs" / job) for job in named)
        return
    runs = StoredRuns(BucketStore(source))
    for job in named:
        folder = scratch / "runs" / job
        for number in runs.attempts(job):
            runs.bring(f"runs/{job}/attempt-{number}", folder / f"attempt-{number}")
        classes = runs.init(job, folder / "init.safetensors")
        if classes is not None:
            files.replace(folder / INIT, json.dumps(classes).encode())
        yield job, folder


def _attempt(run: Path, there: Path) -> None:
    """Bring a run's files into another folder, checkpoints last: they say how far the rest is. One that is as far there
    stays as it is."""
    # Listed before anything is read: what a training writes meanwhile is of no older step than these checkpoints.
    found, standing = whole(run), whole(there)
    if newest(standing) and newest(standing) >= newest(found):
        return
    for name in sorted(found, key=lambda name: (name.endswith(".pt"), name)):
        if not (name.endswith(".pt") and name in standing):
            # The training may have taken it away.
            with contextlib.suppress(FileNotFoundError):
                files.copy(found[name], there / name)


def _job(job: str, folder: Path, source: Place, target: Place) -> None:
    attempts = sorted(path for path in folder.glob("attempt-*") if ATTEMPT.fullmatch(path.name))
    weights, classes = folder / "init.safetensors", folder / INIT
    if isinstance(target, Path):
        there = target / "runs" / job
        for run in attempts:
            _attempt(run, there / run.name)
        for path in (weights, classes):
            if path.is_file() and not (there / path.name).exists():
                files.copy(path, there / path.name)
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
