"""A service of the campaigns: a real process, two models, a token of each kind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.serving import free_port, memory_mb
from ganserve.repository import Repository
from tests.tiny import publish

ROOT = Path(__file__).parents[2]
ADMIN = {"Authorization": "Bearer campaign-admin"}
USER = {"Authorization": "Bearer campaign-user"}
SECRETS = ("campaign-admin", "campaign-user")


class Serving:
    """A running service.

    Attributes:
        client: with the admin token.
    """

    def __init__(self, folder: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.folder, self.port, self.process = folder, port, process
        self.models, self.data, self.log = folder / "models", folder / "var", folder / "service.log"
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, headers=ADMIN, timeout=120)

    def memory(self) -> float:
        """Resident memory of all its processes, in MiB."""
        return memory_mb(self.process.pid, "VmRSS")

    def image(self) -> bytes:
        """One address of the sound model."""
        answer = self.client.get("/images/digits/1/1/7.png")
        assert answer.status_code == 200, answer.text
        return answer.content

    def told(self) -> str:
        """What its log has that it should not have; empty: nothing."""
        log = self.log.read_text(errors="replace")
        found = re.findall(r"Traceback[\s\S]{0,3000}", log)
        leaked = [secret for secret in SECRETS if secret in log]
        return "; ".join([*found[:1], *(f"the log has {secret}" for secret in leaked)])


@contextmanager
def serving(folder: Path, *flags: str, workers: int = 1) -> Iterator[Serving]:
    """A service on two tiny models, ``digits`` in two versions, until the end of the block."""
    models = Repository(folder / "models")
    if not models.root.exists():
        publish(models, "digits", seed=1)
        publish(models, "digits", seed=3, live=False)
        publish(models, "plain", seed=2, conditional=False, channels=3)
    port = free_port()
    command = [sys.executable, "-m", "service", "--port", str(port), "--models", str(models.root)]
    command += ["--data", str(folder / "var"), "--workers", str(workers), "--lanes", "1", *flags]
    tokens = {"GANSERVE_ADMIN_TOKEN": SECRETS[0], "GANSERVE_TOKEN": SECRETS[1]}
    with (folder / "service.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT), **tokens}
        )
    running = Serving(folder, port, process)
    try:
        end = time.monotonic() + 120
        while True:
            try:
                if running.client.get("/health/ready").status_code == 200:
                    break
            except httpx.HTTPError:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError((folder / "service.log").read_text()[-3000:]) from None
            time.sleep(0.1)
        yield running
    finally:
        running.client.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
