"""Workers and services that share a queue and an object store, and no disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx

from ganserve.bucket import BucketStore
from ganserve.repository import Repository
from ganserve.runs import StoredRuns
from tests.faults.conftest import HERE, Site, free_port


class Apart(Site):
    """Every process has a folder of its own; the queue is the tests'.

    Args:
        root: what is the tests' own.
        url: where models and the rest are kept.
        links: what the environment of the processes is to hold besides, as it leads through a proxy.
    """

    def __init__(self, root: Path, database: str, url: str, links: dict[str, str] | None = None) -> None:
        super().__init__(root, database)
        self.url, self.links = url, links or {}
        self.repository = Repository(f"{url}/models")
        self.stored = StoredRuns(BucketStore(f"{url}/store"))
        self.slow: dict[str, float] = {}
        # By which the processes reach the queue.
        self.reached_by = database

    def behave(self, **seconds: float) -> None:
        self.slow = seconds

    def disk(self, name: str) -> Path:
        return self.data / f"disk-{name}"

    def worker(self, name: str = "w1", script: str = "stub_worker.py") -> subprocess.Popen[bytes]:
        self.disk(name).mkdir(exist_ok=True)
        (self.disk(name) / "behaviour.json").write_text(json.dumps(self.slow))
        command = [sys.executable, str(HERE / script), str(self.disk(name)), self.reached_by, name]
        return self._start(name, command, {})

    def serve(self, name: str) -> tuple[subprocess.Popen[bytes], httpx.Client]:
        """``python -m service`` with a folder of its own, once it answers."""
        port = free_port()
        settings = {
            "GANSERVE_DATA": str(self.disk(name)),
            "GANSERVE_JOBS_DB": self.reached_by,
            "GANSERVE_ADMIN_TOKEN": "admin",
            "GANSERVE_PORT": str(port),
            "GANSERVE_LANES": "1",
            "GANSERVE_WORKERS": "1",
        }
        process = self._start(name, [sys.executable, "-m", "service"], settings)
        headers = {"Authorization": "Bearer admin"}
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30)
        self.clients.append(client)

        def answers() -> bool:
            assert process.poll() is None, "the service ended"
            try:
                return client.get("/health/live").status_code == 200
            except httpx.HTTPError:
                return False

        self.until(answers)
        return process, client

    def _start(self, name: str, command: list[str], settings: dict[str, str]) -> subprocess.Popen[bytes]:
        places = {"GANSERVE_MODELS": f"{self.url}/models", "GANSERVE_STORE": f"{self.url}/store"}
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent), **places, **self.links, **settings}
        with (self.data / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.processes.append(process)
        return process

    def began(self, name: str) -> list[int]:
        """The steps at which attempts of a worker began."""
        return [int(path.read_text()) for path in self.disk(name).glob("runs/*/attempt-*/begun")]

    def checkpoint_is_stored(self, job: str) -> None:
        self.until(lambda: self.stored.furthest(job)[0])
