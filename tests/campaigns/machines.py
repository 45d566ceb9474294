"""Machines that share no disk, and lose processes, disks and links while they work."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import httpx

from service.jobs import JobRequest
from tests import stores
from tests.campaigns.journal import Journal
from tests.faults.apart import Apart
from tests.faults.conftest import Postgres, ended_well

TITLE = "Machines without a shared disk"
PROMISE = (
    "Two services and three workers, each with a folder of its own, share PostgreSQL (SQLite where none is installed) "
    "and an S3 server. At a random moment of a job a service, a worker or a training is killed with signal 9, a worker "
    "is lost with its disk, or the link to the store or to the database is cut, slow, or answers 503 for seconds. The "
    "job ends as succeeded, as one version, with the weights of an undisturbed one (training is a stand-in whose "
    "weights tell of every step), and both services answer the same bytes of it."
)
CASES = 100
IMAGES, STEP_SECONDS = 300, 0.05
WORKERS, SERVICES = ("w1", "w2", "w3"), ("s1", "s2")
CUT_SECONDS = 6.0
PATIENCE_SECONDS = 240.0


def run(journal: Journal, folder: Path) -> None:
    """One site for all cases."""
    with _database(folder) as (database, port), stores.s3() as s3_port:
        before = dict(os.environ)
        os.environ.update(stores.environment(s3_port), GANSERVE_DATA=str(folder / "own"))
        proxy = stores.Proxy(s3_port)
        link = stores.Link(port) if port else None
        (folder / "site").mkdir()
        site = Apart(folder / "site", database, f"s3://{stores.BUCKET}/{folder.name}", stores.environment(proxy.port))
        if link is not None:
            site.reached_by = database.replace(f":{port}/", f":{link.port}/")
        try:
            site.behave(step_seconds=STEP_SECONDS)
            life = _Life(site, proxy, link)
            for number in journal.open():
                kind, outcome, broken = life.fault(journal.random(number), f"{journal.seed}-{number}-{folder.name}")
                journal.add(kind, outcome, broken)
        finally:
            site.close()
            proxy.close()
            os.environ.clear()
            os.environ.update(before)


@contextlib.contextmanager
def _database(folder: Path) -> Iterator[tuple[str, int]]:
    """A database and its port; 0 for a file."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        yield f"sqlite:///{folder}/jobs.sqlite", 0
        return
    with tempfile.TemporaryDirectory(prefix="ganserve-pg-", ignore_cleanup_errors=True) as parent:
        Path(parent).chmod(0o755)
        server = Postgres(Path(parent) / "pg", found[-1].parent)
        yield server.database(), server.port
        server.stop()


class _Life:
    """The site with its processes, and the versions that its jobs have made."""

    def __init__(self, site: Apart, proxy: stores.Proxy, link: stores.Link | None) -> None:
        self.site, self.proxy, self.link = site, proxy, link
        self.services = {name: site.serve(name) for name in SERVICES}
        self.workers = {name: site.worker(name) for name in WORKERS}
        self.versions: list[int] = []

    def fault(self, chance: Random, key: str) -> tuple[str, str, str]:
        """What was done, how the job ended, and which promise it broke."""
        kinds = ["service", "worker", "training child", "lost disk", "store cut", "store 503", "store slow"]
        kind = chance.choice([*kinds, *(["database cut"] if self.link is not None else [])])
        images = IMAGES + 10 * chance.randrange(20)
        request = JobRequest(model="m", recipe="stub", dataset="digits", images=images, seed=7)
        job = self.site.store.submit(request, key)[0]
        time.sleep(chance.uniform(0, 2.0 * STEP_SECONDS * images / 10))
        getattr(self, "_" + kind.split(" ")[0])(kind, chance, job.id)
        before = len(self.versions)
        ended, broken = ended_well(self.site, job.id, images, self.versions, PATIENCE_SECONDS)
        if not ended:
            return kind, "lost", "; ".join(broken)
        for version in self.versions[before:]:
            broken += self._served(version)
        return kind, ended, "; ".join(broken)

    def _served(self, version: int) -> list[str]:
        """What is wrong with the pictures that the services give of a version."""
        self.site.repository.verify("m", version)
        found = set()
        for _, client in self.services.values():
            found.add(self.site.until(partial(_image, client, version)))
        return [] if len(found) == 1 else ["the services answer other bytes"]

    def _service(self, kind: str, chance: Random, job: str) -> None:
        name = chance.choice(SERVICES)
        self.services[name][0].kill()
        self.services[name][0].wait()
        self.services[name] = self.site.serve(name)

    def _holder(self, chance: Random, job: str) -> str:
        """The worker that has the job, if one does."""
        found = self.site.store.get(job).worker
        return found if found in WORKERS else chance.choice(WORKERS)

    def _worker(self, kind: str, chance: Random, job: str) -> None:
        name = self._holder(chance, job)
        self.workers[name].kill()
        self.workers[name].wait()
        if chance.random() < 0.5:
            time.sleep(8)
        self.workers[name] = self.site.worker(name)

    def _lost(self, kind: str, chance: Random, job: str) -> None:
        name = self._holder(chance, job)
        self.workers[name].kill()
        self.workers[name].wait()
        shutil.rmtree(self.site.disk(name), ignore_errors=True)
        self.workers[name] = self.site.worker(name)

    def _training(self, kind: str, chance: Random, job: str) -> None:
        tasks = Path(f"/proc/{self.workers[self._holder(chance, job)].pid}/task")
        found = [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
        for pid in found[:1]:
            # It may have ended by itself.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)

    def _store(self, kind: str, chance: Random, job: str) -> None:
        fault: str | float = {"store cut": "cut", "store 503": "503"}.get(kind, 1.5)
        self.proxy.fault = lambda method, path: fault
        time.sleep(chance.uniform(1, 2 * CUT_SECONDS))
        self.proxy.fault = lambda method, path: None

    def _database(self, kind: str, chance: Random, job: str) -> None:
        assert self.link is not None
        self.link.cut()
        time.sleep(chance.uniform(0.5, CUT_SECONDS))
        self.link.mend()


def _image(client: httpx.Client, version: int) -> bytes | None:
    with contextlib.suppress(httpx.HTTPError):
        answer = client.get("/generate", params={"model": "m", "version": version, "seed": 5})
        if answer.status_code == 200:
            return answer.content
    return None
