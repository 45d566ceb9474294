"""From a post to served images with nothing stubbed: service, worker, training, export, judge, gate and swap."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
BODY = {"model": "digits", "recipe": "cgan", "dataset": "digits", "seed": 3, "overrides": {"width": 0.25}}


def test_a_model_is_trained_measured_and_served_and_the_next_begins_from_its_published_graph(
    sqlite_site: Any,
) -> None:
    site = sqlite_site
    service = site.service()
    environment = {
        **os.environ,
        "GANSERVE_DATA": str(site.data),
        "GANSERVE_MODELS": str(site.data / "models"),
        "GANSERVE_JOBS_DB": site.database,
        "OMP_NUM_THREADS": "1",
    }
    root = Path(__file__).parent.parent.parent
    with (site.data / "worker.log").open("ab") as log:
        command = [sys.executable, "-m", "training.worker", "--threads", "1"]
        site.processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=root))

    def finished(**more: Any) -> dict[str, Any]:
        job = service.client.post("/jobs", json={**BODY, **more}).json()
        site.end(site.store.get(job["id"]), 300)
        ended = service.client.get(f"/jobs/{job['id']}").json()
        assert ended["state"] == "succeeded", ended
        sheet = service.client.get(f"/jobs/{job['id']}/samples.png")
        assert sheet.content.startswith(b"\x89PNG")
        result: dict[str, Any] = ended["result"]
        return result

    def served() -> int:
        answer = service.client.post("/generate", json={"model": "digits", "label": 3, "n": 2, "seed": 1})
        return int(answer.headers.get("X-Model-Version", 0))

    first = finished(images=6400)
    assert (first["version"], first["promoted"], first["live_metrics"]) == (1, True, None)
    assert first["gate"]["reasons"] == ["no version is live: nothing to beat"]
    site.until(lambda: served() == 1)

    assert 'aria-label="Losses: ' in service.client.get("/models/digits/1/report").text

    # Another machine has no weights but those in the published graph.
    shutil.rmtree(site.data / "weights")
    second = finished(images=640, init="live")
    assert (second["version"], second["live_version"]) == (2, 1)
    same = ("judge", "dataset", "split", "images")
    assert [second["metrics"][key] for key in same] == [second["live_metrics"][key] for key in same]
    assert second["live_metrics"]["frechet"] == first["metrics"]["frechet"]
    # Ten steps from the first version's weights: close to it, which ten steps from nothing are not.
    assert second["metrics"]["frechet"] < 2 * first["metrics"]["frechet"]
    assert second["promoted"] is second["gate"]["better"]
    assert len(second["gate"]["reasons"]) == 4
    site.until(lambda: served() == (2 if second["promoted"] else 1))


