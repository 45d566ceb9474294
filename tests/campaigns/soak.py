"""An hour of everything at once: every route, uploads, jobs and swaps, and the memory of all processes meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np

from benchmarks.serving import memory_mb
from tests.campaigns.journal import Journal
from tests.campaigns.serving import ADMIN, ROOT, Serving, serving
from tests.ganserve.zips import archive, picture

TITLE = "An hour of everything at once"
PROMISE = (
    "Clients ask for everything there is while versions are swapped, archives come and go, and jobs are queued, "
    "trained (by a stand-in), published, followed and removed: no answer is wrong, and the memory of all processes "
    "comes to a plateau: the slope of its last half, the median over all pairs of samples (Theil and Sen), is below .3 "
    "MiB a minute."
)
SAMPLE_SECONDS = 10.0
CASES = 360
SLOPE = 0.3
NAME, VERSIONS = "mnist-projgan", (1, 4)
RIGHT = {200, 201, 202, 204, 304}

Ask = Callable[[httpx.Client, Random], httpx.Response]
POSTED: tuple[dict[str, Any], ...] = (
    {"label": 3, "n": 1},
    {"n": 16},
    {"label": [1, 2], "n": 64, "format": "npz"},
    {"n": 9, "format": "webp"},
    {"n": 12, "format": "zip"},
    {"n": 4, "format": "json"},
    {"n": 256, "scale": 2},
    {"model": "cifar10-projgan", "label": "horse", "n": 4},
)
GOT = (
    "/images/mnist-projgan/1/{label}/{seed}.png",
    "/images/mnist-projgan/4/{label}/{seed}.png",
    "/generate?n=4&seed={seed}",
    "/morph?label={label}&from={seed}&to=5&frames=6",
    "/datasets/synthetic?n=300&seed={seed}&format=tar",
    "/datasets/synthetic?n=300&seed={seed}&format=zip",
    "/datasets/synthetic?n=300&seed={seed}&format=npz",
    *("/", "/docs", "/openapi.json", "/metrics", "/health/ready", "/models", "/models/mnist-projgan", "/v2"),
    *("/models/mnist-projgan/1", "/models/mnist-projgan/1/samples.png", "/v2/models/stats", "/datasets", "/jobs"),
    *("/v2/models/mnist-projgan/ready", "/v2/models/mnist-projgan/config"),
)
# What is not there, or cannot be, and its status.
WRONG = (("/nothing", 404), ("/generate?n=0", 422), ("/models/nothing", 404), ("/images/mnist-projgan/1/99/1.png", 422))


class Mix:
    """Who asks for what, and what was answered."""

    def __init__(self, running: Serving, journal: Journal) -> None:
        self.running, self.journal = running, journal
        self.told: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.ended = threading.Event()

    def repeat(self, turn: Callable[[httpx.Client, Random], None], pause: float, number: int) -> threading.Thread:
        """A client that does one thing after the other until the end."""

        def work() -> None:
            chance = self.journal.random(-number)
            with httpx.Client(base_url=self.running.url, headers=ADMIN, timeout=300) as client:
                while not self.ended.wait(pause):
                    try:
                        turn(client, chance)
                    except httpx.HTTPError as error:
                        self.wrong.append(f"{turn.__name__}: {error!r}")

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def see(self, answer: httpx.Response, *right: int) -> httpx.Response:
        """Count an answer, and note one that is not right."""
        self.told[str(answer.status_code)] += 1
        # What is refused and told when to come back is no failure, where others have the cores.
        later = answer.status_code in (429, 503) and "Retry-After" in answer.headers
        if answer.status_code not in (right or RIGHT) and not later:
            self.wrong.append(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:200]}")
        return answer

    def ask(self, client: httpx.Client, chance: Random) -> None:
        """Something that changes nothing."""
        path = chance.choice(GOT).format(label=chance.randrange(10), seed=chance.randrange(1 << 40))
        match chance.randrange(6):
            case 0:
                wrong, status = chance.choice(WRONG)
                self.see(client.get(wrong), status)
            case 1:
                tag = self.see(client.get("/generate?n=1&seed=9")).headers.get("ETag", "*")
                # Another version may be live by then.
                self.see(client.get("/generate?n=1&seed=9", headers={"If-None-Match": tag}), 200, 304)
            case 2:
                self.see(client.get(path))
            case 3:
                latent = {"name": "latent", "shape": [2, 64], "datatype": "FP32", "data": [0.25] * 128}
                label = {"name": "label", "shape": [2, 1], "datatype": "INT64", "data": [1, 2]}
                self.see(client.post(f"/v2/models/{NAME}/infer", json={"inputs": [latent, label]}))
            case _:
                body = {**chance.choice(POSTED), "seed": chance.randrange(1 << 40)}
                self.see(client.post("/generate", json=body))

    def swap(self, client: httpx.Client, chance: Random) -> None:
        """Another version becomes live."""
        self.see(client.put(f"/models/{NAME}/live", json={"version": chance.choice(VERSIONS)}))

    def upload(self, client: httpx.Client, chance: Random) -> None:
        """A set comes and goes, and one is refused."""
        files = {f"{label}/{index}.png": picture(chance.randrange(999), 28) for label in "abc" for index in range(30)}
        kind = {"Content-Type": "application/zip"}
        self.see(client.put("/datasets/soak", content=archive(files), headers=kind))
        self.see(client.get("/datasets/soak"))
        self.see(client.get("/datasets/soak/samples.png"))
        self.see(client.delete("/datasets/soak"))
        self.see(client.put("/datasets/soak", content=archive(files)[:-99], headers=kind), 422)

    def job(self, client: httpx.Client, chance: Random) -> None:
        """A job is queued, watched to its end, and what it made but for the live version removed."""
        body = {"model": "soaked", "recipe": "cgan", "dataset": "digits", "images": 300, "promote": "always"}
        made = self.see(client.post("/jobs", json={**body, "seed": chance.randrange(1 << 20)})).json()
        if "id" not in made:
            return
        with client.stream("GET", f"/jobs/{made['id']}/events") as events:
            for _ in events.iter_lines():
                if self.ended.is_set():
                    return
        if (state := client.get(f"/jobs/{made['id']}").json()["state"]) != "succeeded":
            self.wrong.append(f"a job ended as {state}")
        told = self.see(client.get("/models/soaked")).json()
        for version in told["versions"][:-2]:
            self.see(client.delete(f"/models/soaked/{version}"))


def run(journal: Journal, folder: Path) -> None:
    """Samples of one life of a service; one that was cut off begins anew."""
    if journal.tried < journal.wanted:
        journal.clear()
    models = folder / "models"
    for name in (NAME, "cifar10-projgan"):
        shutil.copytree(ROOT / "models" / name, models / name)
    with serving(folder, workers=2) as running:
        worker = _worker(folder)
        mix = Mix(running, journal)
        threads = [mix.repeat(mix.ask, 0.0, number) for number in range(3)]
        threads += [mix.repeat(mix.swap, 5, 3), mix.repeat(mix.upload, 5, 4), mix.repeat(mix.job, 1, 5)]
        try:
            _sample(journal, running, worker, mix)
        finally:
            mix.ended.set()
            for thread in threads:
                thread.join()
            worker.terminate()
            worker.wait()
    if journal.tried >= journal.wanted:
        slope = theil_sen(journal.results)
        broken = "it grows" if slope >= SLOPE else ""
        journal.add("slope of the last half", f"{slope:+.2f} MiB a minute", broken, cases=0)


def _worker(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "tests" / "faults" / "stub_worker.py"), str(folder / "var")]
    # As the service does by default.
    command += [f"sqlite:///{folder}/var/jobs.sqlite", "soak"]
    (folder / "var").mkdir(exist_ok=True)
    (folder / "var" / "models").symlink_to(folder / "models")
    with (folder / "worker.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)})


def _sample(journal: Journal, running: Serving, worker: subprocess.Popen[bytes], mix: Mix) -> None:
    began, log, asked, seen = time.monotonic(), "", 0, 0
    for number in journal.open():
        time.sleep(max(0.0, began + (number + 1) * SAMPLE_SECONDS - time.monotonic()))
        # Of the worker without its children, which come and go with the jobs.
        status = Path(f"/proc/{worker.pid}/status").read_text()
        own = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        service = memory_mb(running.process.pid, "VmRSS")
        now, wrong = running.told(), mix.wrong[seen:]
        seen += len(wrong)
        broken = "; ".join([*wrong[:3], *([now] if now != log else [])])
        log, answers = now, sum(mix.told.values())
        memory = {"service_mib": round(service, 1), "worker_mib": round(own, 1)}
        journal.add(
            "sample", "taken", broken, second=round(time.monotonic() - began, 1), answers=answers - asked, **memory
        )
        asked = answers


def theil_sen(results: list[dict[str, Any]]) -> float:
    """MiB a minute of the last half of the samples: the median slope over all pairs.

    Source: P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63, 1968.
    """
    samples = [result for result in results if result["kind"] == "sample"]
    half = samples[len(samples) // 2 :]
    minutes = np.array([one["second"] for one in half]) / 60
    memory = np.array([one["service_mib"] + one["worker_mib"] for one in half])
    first, second = np.triu_indices(len(half), 1)
    return float(np.median((memory[second] - memory[first]) / (minutes[second] - minutes[first])))


def details(journal: Journal) -> str:
    """The samples, for the table."""
    rows = [
        f"| {one['second']:.0f} | {one['service_mib']} | {one['worker_mib']} | {one['answers']} |"
        for one in journal.results
        if one["kind"] == "sample"
    ]
    head = "| second | service, MiB | worker, MiB | answers since the last |\n|---|---|---|---|"
    return "\n".join(["", "## Samples", "", head, *rows, ""])
