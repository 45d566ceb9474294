"""A checkout's commands and its service, as processes of their own."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

ADMIN, USER = "the-admin-token", "the-user-token"
START_SECONDS = 180


@dataclass(frozen=True)
class Checkout:
    """``root`` is where its modules lie, ``models`` the repository it serves a copy of, ``place`` an empty folder."""

    root: Path
    models: Path
    place: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Of a child process: this checkout's modules, one thread, and no setting of the caller's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GANSERVE_")}
        return {**kept, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", "COLUMNS": "120", **more}

    def run(self, *arguments: str, **environment: str) -> CompletedProcess[str]:
        """``python -m ...`` to its end."""
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.root,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def settings(self, name: str) -> dict[str, str]:
        """Data and a copy of the models in a folder of this name, made on first use."""
        place = self.place / name
        if not place.exists():
            shutil.copytree(self.models, place / "models")
            (place / "data").mkdir()
        return {"GANSERVE_DATA": str(place / "data"), "GANSERVE_MODELS": str(place / "models")}

    @contextmanager
    def process(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """``python -m ...`` in the background, ended by SIGTERM."""
        with (self.place / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.root,
                env=self.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @contextmanager
    def served(self, name: str, **more: str) -> Iterator[int]:
        """The service of ``settings(name)``; gives its port once it is ready.

        Raises:
            RuntimeError: it ended, or was not ready in three minutes; with the end of its log.
        """
        port = free_port()
        environment = {
            **self.settings(name),
            "GANSERVE_ADMIN_TOKEN": ADMIN,
            "GANSERVE_PORT": str(port),
            "GANSERVE_WORKERS": "1",
            **more,
        }
        with self.process("service", **environment) as process:
            limit = time.monotonic() + START_SECONDS
            while not _ready(port):
                if process.poll() is not None or time.monotonic() > limit:
                    raise RuntimeError("the service does not start:\n" + (self.place / "log").read_text()[-3000:])
                time.sleep(0.1)
            yield port


def _ready(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health/ready")
        ready = connection.getresponse().status == 200
        connection.close()
    except OSError:
        return False
    return ready


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
