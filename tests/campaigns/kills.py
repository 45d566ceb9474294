"""Kill -9 of whatever a job needs, at any moment: no job is lost, none is run twice, each has the weights of an
undisturbed one."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx

from tests.campaigns.journal import Journal
from tests.faults.conftest import Postgres, Service, Site, ended_well

TITLE = "Kill -9 over running jobs"
PROMISE = (
    "A job is asked for over HTTP; at a random moment one of service, serving process, worker, training child and "
    "database is killed with signal 9, and started again where nothing else does that. The job ends as succeeded, as "
    "one version, with the weights of an undisturbed one (training is a stand-in whose weights tell of every step)."
)
CASES = 100
# Then a new site, on the other kind of database.
LIFE = 20
# The steps are 20 images each and take so long; the rest of a job takes about as long again.
IMAGES, STEP_SECONDS = 400, 0.05


def run(journal: Journal, folder: Path) -> None:
    """Lives of ``LIFE`` kills, in turn on SQLite and PostgreSQL."""
    with _postgres() as postgres:
        while _life(journal, folder / f"life-{len(journal.results)}", postgres):
            pass


@contextlib.contextmanager
def _postgres() -> Iterator[Postgres | None]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ganserve-pg-", ignore_cleanup_errors=True) as parent:
        Path(parent).chmod(0o755)
        server = Postgres(Path(parent) / "pg", found[-1].parent)
        yield server
        server.stop()


def _life(journal: Journal, folder: Path, postgres: Postgres | None) -> bool:
    """Whether there is more to try."""
    folder.mkdir(parents=True)
    if len(journal.results) // LIFE % 2 == 0:
        postgres = None
    site = Site(folder, postgres.database() if postgres else f"sqlite:///{folder}/jobs.sqlite")
    try:
        site.behave(step_seconds=STEP_SECONDS)
        life = _Life(site, postgres)
        for number in journal.open():
            if life.kills == LIFE or (number % LIFE == 0 and life.kills):
                return True
            kind, outcome, broken = life.kill(journal.random(number), f"{journal.seed}-{number}")
            journal.add(f"{kind}, {'PostgreSQL' if postgres else 'SQLite'}", outcome, broken)
        return False
    finally:
        site.close()


class _Life:
    """One site, its service and its worker, and the versions that its jobs have made."""

    def __init__(self, site: Site, postgres: Postgres | None) -> None:
        self.site, self.postgres = site, postgres
        self.service: Service = site.service()
        self.worker = site.worker()
        self.kills = 0
        self.versions: list[int] = []

    def kill(self, chance: Random, key: str) -> tuple[str, str, str]:
        """What was killed, how the job ended, and which promise it broke."""
        self.kills += 1
        kinds = ["service", "serving process", "worker", "training child", *(["database"] if self.postgres else [])]
        kind = chance.choice(kinds)
        images = IMAGES + 10 * chance.randrange(20)
        job = self._post(key, images)
        time.sleep(chance.uniform(0, 2.5 * STEP_SECONDS * images / 10))
        getattr(self, "_" + kind.replace(" ", "_"))()
        ended, broken = ended_well(self.site, job, images, self.versions)
        if not ended:
            return kind, "lost", "; ".join(broken)
        if self._post(key, images) != job:
            broken.append("asked for again, it is another job")
        return kind, ended, "; ".join(broken)

    def _post(self, key: str, images: int) -> str:
        """Ask for a job, and again with the same key where no answer comes, as a client would."""

        def asked() -> str | None:
            with contextlib.suppress(httpx.HTTPError):
                return self.service.post(key, images=images)
            return None

        return str(self.site.until(asked))

    def _service(self) -> None:
        self.service.end(signal.SIGKILL)
        self.service = self.site.service()

    def _serving_process(self) -> None:
        children = Path(f"/proc/{self.service.process.pid}/task/{self.service.process.pid}/children").read_text()
        # Not the one that only watches over what they share.
        for pid in children.split():
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)
                break
        self.site.until(self.service.answers)

    def _worker(self) -> None:
        self.worker.kill()
        self.worker.wait()
        self.worker = self.site.worker()

    def _training_child(self) -> None:
        children = f"/proc/{self.worker.pid}/task"
        found = [pid for task in Path(children).iterdir() for pid in (task / "children").read_text().split()]
        for pid in found[:1]:
            # It may have ended by itself.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def _database(self) -> None:
        assert self.postgres is not None
        pid = int((self.postgres.folder / "db" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

        def back() -> bool:
            # What it left ends by itself, and until then nothing starts in its place.
            with contextlib.suppress(AssertionError):
                self.postgres.start()  # type: ignore[union-attr]
                return True
            return False

        self.site.until(back)
        self.site.until(lambda: _reads(self.service))


def _reads(service: Service) -> bool:
    try:
        return service.client.get("/jobs").status_code == 200
    except httpx.HTTPError:
        return False
