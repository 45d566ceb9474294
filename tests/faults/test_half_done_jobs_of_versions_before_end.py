"""Jobs outlive upgrades: what an earlier version began, this one ends. ``before/README.md`` tells of the data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from service.jobs import JobRequest, JobStore

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# Where the data folder lay when the job was begun, and who worked on it.
FOLDER, WORKER = "/srv/ganserve/var", "worker-1"


@pytest.fixture
def upgraded(sqlite_site: Any) -> Any:
    """A site whose data folder an earlier version left in the middle of a job."""
    shutil.unpack_archive(HERE / "before" / "half-done.zip", sqlite_site.data)
    # An upgrade in place finds the folder where it was; here it has moved.
    for config in sqlite_site.data.glob("runs/*/attempt-*/config.json"):
        config.write_text(config.read_text().replace(FOLDER, str(sqlite_site.data)))
    return sqlite_site


def work(site: Any) -> None:
    """Start the worker as its users do, under the name of the one that was killed."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "GANSERVE_DATA": str(site.data),
        "GANSERVE_MODELS": str(site.data / "models"),
        "GANSERVE_WORKER_ID": WORKER,
    }
    command = [sys.executable, "-m", "training.worker", "--threads", "1"]
    with (site.data / "worker.log").open("ab") as log:
        site.processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))


def logged(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, but for the rates."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def test_a_half_done_job_goes_on_from_its_checkpoint_and_its_version_is_published(upgraded: Any) -> None:
    (begun,) = upgraded.store.page()
    assert (begun.state, begun.step, begun.attempts) == ("running", "train", 2)
    work(upgraded)
    job = upgraded.end(begun)
    assert job.state == "succeeded", job.error
    assert (job.result["version"], job.result["promoted"], job.attempts) == (1, True, 3)
    card = upgraded.repository.verify("letters", 1)
    assert (card.job_id, card.classes, upgraded.repository.live("letters")) == (begun.id, ["a", "b", "c"], 1)

    first, _, last = sorted((upgraded.data / "runs" / begun.id).glob("attempt-*"))
    before, whole = logged(first), logged(last)
    assert [line["step"] for line in whole] == list(range(50, 5001, 50))
    # What was logged before the checkpoint stands as it was: nothing of it was trained again.
    assert whole[: len(before)] == before


def digits_as_published(folder: Path, each: int = 30) -> None:
    """Class folders of small digits at the size of the shipped models."""
    digits = load_digits()
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for index, pixels in enumerate(digits.images[digits.target == label][:each]):
            picture = Image.fromarray((pixels * 15.9375).astype("uint8")).resize((28, 28))
            picture.save(folder / str(label) / f"{index}.png")


@pytest.mark.slow
def test_a_job_begins_from_a_graph_that_a_version_before_published(sqlite_site: Any) -> None:
    site = sqlite_site
    shutil.copytree(ROOT / "models" / "mnist-projgan", site.data / "models" / "mnist-projgan")
    digits_as_published(site.data / "datasets" / "small")
    published, live = site.repository.versions("mnist-projgan"), site.repository.live("mnist-projgan")
    site.store.close()
    site.store = JobStore(site.database)
    request = JobRequest(model="mnist-projgan", recipe="projgan", dataset="small", images=640, seed=3, init="live")
    asked, _ = site.store.submit(request)
    work(site)
    job = site.end(asked)
    assert job.state == "succeeded", job.error
    assert job.result["version"] == max(published) + 1
    card = site.repository.verify("mnist-projgan", job.result["version"])
    assert (card.training["warm_start"], job.result["live_version"]) == (True, live)
    # Ten steps from nothing would make no digit that the judge of the new data knows: a tenth of them by chance.
    assert job.result["metrics"]["label_accuracy"] > 0.3
