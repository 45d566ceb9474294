"""A queue, its workers as real processes, and a PostgreSQL server of the tests' own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ganserve.repository import Repository
from service.job import Job
from service.jobs import JobRequest, JobStore

HERE = Path(__file__).parent
BOUNDS = {
    "stub": {"conditional": False, "overrides": {"batch": {"type": "int", "min": 2, "max": 64, "default": 8}}}
}


class Site:
    """One data folder, one queue, and the processes that work on it."""

    def __init__(self, data: Path, database: str) -> None:
        self.data, self.database = data, database
        self.store = JobStore(database, bounds=BOUNDS, queue_limit=50)
        self.repository = Repository(data / "models")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.clients: list[httpx.Client] = []
        (data / "models").mkdir()

    def behave(self, **seconds: float) -> None:
        """How long steps last: ``train`` a step, the others at all."""
        (self.data / "behaviour.json").write_text(json.dumps(seconds))

    def worker(self, name: str = "w1", script: str = "stub_worker.py") -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent)}
        with (self.data / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(HERE / script), str(self.data), self.database, name],
                stdout=log,
                stderr=log,
                env=environment,
            )
        self.processes.append(process)
        return process

    def service(self, workers: int = 2) -> Service:
        """A running ``python -m service`` of this site, of so many processes."""
        service = Service(self, workers)
        self.processes.append(service.process)
        self.clients.append(service.client)
        self.until(service.answers)
        return service

    def submit(self, dataset: str = "digits", images: int = 200, key: str | None = None, **more: Any) -> Job:
        if dataset != "digits":
            (self.data / "datasets" / dataset).mkdir(parents=True, exist_ok=True)
        request = JobRequest(model="m", recipe="stub", dataset=dataset, images=images, seed=7, **more)
        return self.store.submit(request, key)[0]

    def end(self, job: Job, seconds: float = 300.0) -> Job:
        """The job when it has ended."""
        ended: Job = self.until(lambda: found if (found := self.store.get(job.id)).finished else None, seconds)
        return ended

    def until(self, condition: Callable[[], Any], seconds: float = 180.0) -> Any:
        """Wait until it is true; its value. A busy machine takes a minute to start a process."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if value := condition():
                return value
            time.sleep(0.05)
        logs = "\n".join(
            f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.data.glob("*.log"))
        )
        raise AssertionError(f"nothing happened in {seconds} s\n{logs}")

    def reached(self, step: str, kind: str = "step") -> None:
        """Wait until a step has begun (``step``) or has done its work but not ended (``done``)."""
        if step == "train":
            self.until(lambda: list(self.data.glob("runs/*/attempt-*/checkpoints/*.pt")))
        else:
            self.until((self.data / f"{kind}-{step}").exists)

    def child(self, worker: subprocess.Popen[bytes]) -> int:
        """The process id of a worker's training child."""
        path = Path(f"/proc/{worker.pid}/task")
        return int(
            self.until(
                lambda: " ".join(task.joinpath("children").read_text() for task in path.iterdir()).split()
            )[0]
        )

    def weights(self, version: int = 1) -> str:
        return str(self.repository.card("m", version).training["weights"])

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        for client in self.clients:
            client.close()
        self.store.close()


class Service:
    """``python -m service`` and a client with its admin token."""

    def __init__(self, site: Site, workers: int) -> None:
        port = free_port()
        environment = {
            **os.environ,
            "PYTHONPATH": str(HERE.parent.parent),
            "GANSERVE_DATA": str(site.data),
            "GANSERVE_MODELS": str(site.data / "models"),
            "GANSERVE_JOBS_DB": site.database,
            "GANSERVE_ADMIN_TOKEN": "admin",
            "GANSERVE_PORT": str(port),
            "GANSERVE_LANES": "1",
            "GANSERVE_WORKERS": str(workers),
        }
        with (site.data / "service.log").open("ab") as log:
            command = [sys.executable, "-m", "service"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": "Bearer admin"}, timeout=30
        )

    def answers(self) -> bool:
        assert self.process.poll() is None, "the service ended"
        try:
            return self.client.get("/health/live").status_code == 200
        except httpx.HTTPError:
            return False

    def post(self, key: str, images: int = 200) -> str:
        """Ask for a job; its id."""
        body = {"model": "m", "recipe": "cgan", "dataset": "digits", "images": images, "seed": 7}
        answer = self.client.post("/jobs", json=body, headers={"Idempotency-Key": key})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def end(self, number: int) -> int:
        """Send a signal; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(120)


def undisturbed(images: int, seed: int = 7) -> str:
    """The weights of a stub training of so many images that nothing interrupts."""
    import hashlib

    state = f"seed {seed} None"
    for step in range(1, images // 10 + 1):
        state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
    return state


def ended_well(site: Site, job: str, images: int, versions: list[int], seconds: float = 300.0) -> tuple[str, list[str]]:
    """How a job ended, and which promises it broke: it has the weights of an undisturbed one, and it alone made a
    version, which is added to ``versions``. "" for one that does not end."""
    try:
        ended: Any = site.end(site.store.get(job), seconds)
    except AssertionError as error:
        return "", [str(error)]
    broken = []
    if ended.state != "succeeded":
        broken.append(f"it ended as {ended.state}: {ended.error}")
    elif site.weights(ended.result["version"]) != undisturbed(images):
        broken.append("its weights are others")
    else:
        versions.append(ended.result["version"])
    if site.repository.versions("m") != sorted(versions):
        broken.append(f"versions {site.repository.versions('m')} for jobs of versions {versions}")
    return str(ended.state), broken


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A PostgreSQL server in a folder of its own, run as an unprivileged user where the tests run as root."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder, self.binaries, self.port = folder, binaries, free_port()
        self.databases = 0
        folder.mkdir()
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        self.call("initdb", "-D", str(folder / "db"), "-A", "trust", "-U", "ganserve", "--no-sync")
        self.start()

    def call(self, program: str, *arguments: str) -> None:
        user = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        command = [str(self.binaries / program), *arguments]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, **user)  # type: ignore[call-overload]
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.call(
            "pg_ctl", "-D", f"{self.folder}/db", "-l", f"{self.folder}/log", "-o", options, "-w", "start"
        )

    def stop(self, mode: str = "immediate") -> None:
        self.call("pg_ctl", "-D", f"{self.folder}/db", "-m", mode, "-w", "stop")

    def database(self) -> str:
        self.databases += 1
        name = f"jobs{self.databases}"
        self.call("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "ganserve", name)
        return f"postgresql://ganserve@127.0.0.1:{self.port}/{name}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL server is installed here: apt-get install postgresql")
    # Below /tmp, since the server's user must be able to reach it and a socket's path is short.
    import tempfile

    with tempfile.TemporaryDirectory(prefix="ganserve-pg-", ignore_cleanup_errors=True) as parent:
        Path(parent).chmod(0o755)
        server = Postgres(Path(parent) / "pg", found[-1].parent)
        yield server
        server.stop()


@pytest.fixture
def sqlite_site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, f"sqlite:///{tmp_path}/jobs.sqlite")
    yield site
    site.close()


@pytest.fixture
def postgres_site(tmp_path: Path, postgres: Postgres) -> Iterator[Site]:
    site = Site(tmp_path, postgres.database())
    yield site
    site.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def site(request: pytest.FixtureRequest) -> Site:
    """The same promises on both databases."""
    found: Site = request.getfixturevalue(f"{request.param}_site")
    return found


@pytest.fixture
def expected_weights() -> Callable[[int], str]:
    return undisturbed
