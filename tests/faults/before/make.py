"""Make the data of a job that is half done: the queue's file, the run with its checkpoint, and the upload.

    python tests/faults/before/make.py CHECKOUT tests/faults/before/half-done.zip

CHECKOUT is the version that did the first half, driven by its commands and its HTTP calls alone. Its worker is told to
end once training is on its way, which saves a checkpoint; it is started again, and killed when it has gone on. The
data folder lies at FOLDER meanwhile, which the version wrote into the run's configuration.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

FOLDER = Path("/srv/ganserve/var")
WORKER = "worker-1"
DATASET, CLASSES, EACH = "letters", 3, 24
JOB = {
    "model": "letters",
    "recipe": "cdcgan",
    "dataset": DATASET,
    "images": 40_000,
    "seed": 11,
    "overrides": {"width": 0.125, "batch": 8},
}
# What a run draws for people to look at; no later version reads it.
DRAWN = ("report.html", "curves.png")


def upload() -> bytes:
    """A ZIP of class folders of small digits."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits, content = load_digits(), io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for label in range(CLASSES):
            for index, pixels in enumerate(digits.images[digits.target == label][:EACH]):
                picture = io.BytesIO()
                Image.fromarray((pixels * 15.9375).astype("uint8")).save(picture, "PNG", optimize=True)
                archive.writestr(f"{'abc'[label]}/{index}.png", picture.getvalue())
    return content.getvalue()


class Site:
    """A checkout's service and workers on FOLDER."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(checkout),
            "OMP_NUM_THREADS": "1",
            "GANSERVE_DATA": str(FOLDER),
            "GANSERVE_MODELS": str(FOLDER.parent / "models"),
            "GANSERVE_ADMIN_TOKEN": "admin",
            "GANSERVE_PORT": str(self.port),
            "GANSERVE_WORKER_ID": WORKER,
        }
        (FOLDER.parent / "models").mkdir(parents=True)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """``python -m ...`` in the background."""
        return subprocess.Popen([sys.executable, "-m", *command], cwd=self.checkout, env=self.environment)

    def call(self, method: str, path: str, body: bytes, kind: str) -> Any:
        """The JSON that the service answers."""
        headers = {"Authorization": "Bearer admin", "Content-Type": kind, "Idempotency-Key": "half-done"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body or None, headers, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def ready(self) -> bool:
        """Whether the service answers."""
        try:
            return bool(self.call("GET", "/health/live", b"", "text/plain"))
        except OSError:
            return False


def until(condition: Callable[[], object]) -> None:
    """Wait for it, two minutes at most."""
    limit = time.monotonic() + 120
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError("nothing happened in two minutes")
        time.sleep(0.01)


def half(site: Site) -> None:
    """Ask for the job, and leave it in the middle."""
    service = site.start("service")
    until(site.ready)
    site.call("PUT", f"/datasets/{DATASET}", upload(), "application/zip")
    job = site.call("POST", "/jobs", json.dumps(JOB).encode(), "application/json")["id"]
    run = FOLDER / "runs" / job
    worker = site.start("training.worker", "--threads", "1")
    until(lambda: lines(run / "attempt-1" / "log.jsonl") > 80)
    worker.send_signal(signal.SIGTERM)
    worker.wait()
    worker = site.start("training.worker", "--threads", "1")
    before = lines(run / "attempt-1" / "log.jsonl")
    until(lambda: lines(run / "attempt-2" / "log.jsonl") > before + 2)
    # Its child dies with it.
    worker.kill()
    worker.wait()
    service.terminate()
    service.wait()
    print(f"{before} of {JOB['images'] // 8 // 50} lines were logged when the first worker ended")  # type: ignore[operator]


def lines(path: Path) -> int:
    """How many lines a file has so far."""
    return path.read_text().count("\n") if path.exists() else 0


def tidy() -> None:
    """Take out what is of the machine: its name in the table of workers, and pictures for people."""
    with closing(sqlite3.connect(FOLDER / "jobs.sqlite", isolation_level=None)) as queue:
        queue.execute("UPDATE ganserve_workers SET host = 'a-host'")
        queue.execute("VACUUM")
        queue.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for name in DRAWN:
        for path in FOLDER.rglob(name):
            path.unlink()
    for path in FOLDER.rglob(".*"):
        path.unlink()


def main() -> None:
    """Make the archive."""
    checkout, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    if FOLDER.parent.exists():
        sys.exit(f"error: {FOLDER.parent} exists; remove it first")
    try:
        half(Site(checkout))
        tidy()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(FOLDER.rglob("*")):
                if path.is_file() and path.stat().st_size:
                    archive.write(path, path.relative_to(FOLDER))
    finally:
        shutil.rmtree(FOLDER.parent)


if __name__ == "__main__":
    main()
