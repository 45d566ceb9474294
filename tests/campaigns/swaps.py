"""Swaps and roll backs under load: no request fails, and every answer is of the version that it names."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import httpx

from ganserve.repository import Repository
from tests.campaigns.journal import Journal
from tests.campaigns.serving import ADMIN, Serving, serving

TITLE = "Swaps under load"
PROMISE = (
    "Promotions and roll backs, over HTTP and by another process in the folder, while clients ask two serving "
    "processes for images: each answer is 200, and its bytes are those of the version that it names."
)
CASES = 1000
CLIENTS = 3
SEEDS = 5
PATIENCE_SECONDS = 300.0
ASKED = {"model": "digits", "label": 1, "n": 3}


def run(journal: Journal, folder: Path) -> None:
    """One swap a case; its outcome is of the requests that were answered since the last."""
    with serving(folder, workers=2) as running:
        expected = {
            (version, seed): running.client.post("/generate", json={**ASKED, "seed": seed, "version": version}).content
            for version in (1, 2)
            for seed in range(SEEDS)
        }
        assert len(set(expected.values())) == len(expected)
        told: Counter[str] = Counter()
        wrong: list[str] = []
        ended = threading.Event()
        threads = [
            threading.Thread(target=_client, args=(running.url, index, expected, told, wrong, ended))
            for index in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        try:
            log = ""
            for number in journal.open():
                _swap(journal, running, number, told, wrong)
                if (now := running.told()) != log:
                    journal.results[-1]["broken"] = log = now
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def _client(
    url: str,
    index: int,
    expected: dict[tuple[int, int], bytes],
    told: Counter[str],
    wrong: list[str],
    ended: threading.Event,
) -> None:
    """Ask without an end; each answer is compared."""
    turn = index
    with httpx.Client(base_url=url, headers=ADMIN, timeout=60) as client:
        while not ended.is_set():
            turn += 1
            seed = turn % SEEDS
            try:
                answer = client.post("/generate", json={**ASKED, "seed": seed})
                version = answer.headers.get("X-Model-Version", "-")
                if answer.status_code != 200:
                    wrong.append(f"{answer.status_code}: {answer.text[:200]}")
                elif answer.content != expected[int(version), seed]:
                    wrong.append(f"other bytes than those of version {version}, seed {seed}")
                told[version] += 1
            except httpx.HTTPError as error:
                wrong.append(repr(error))


def _swap(journal: Journal, running: Serving, number: int, told: Counter[str], wrong: list[str]) -> None:
    """Make the other version live, in one of three ways, and see all processes come to it."""
    chance = journal.random(number)
    version = 3 - running.client.get("/models/digits").json()["live"]
    already, asked = len(wrong), sum(told.values())
    repository = Repository(running.models)
    # There is something to roll back to from the second on.
    kind = chance.choice(("over HTTP", "by another process", "rolled back by another process")[: 3 if number else 2])
    if kind == "by another process":
        repository.promote("digits", version)
    elif kind == "rolled back by another process":
        repository.rollback("digits")
    else:
        answer = running.client.put("/models/digits/live", json={"version": version})
        if answer.status_code != 200:
            wrong.append(f"{kind}: {answer.status_code} {answer.text[:200]}")
    # Within the watcher's interval, and as long as a busy machine takes.
    end, seen = time.monotonic() + PATIENCE_SECONDS, 0
    while seen < 8:
        answer = running.client.post("/generate", json={**ASKED, "seed": 0})
        seen = seen + 1 if answer.headers.get("X-Model-Version") == str(version) else 0
        if time.monotonic() > end:
            wrong.append(f"version {version} was not live everywhere after {PATIENCE_SECONDS:g} s")
            break
    time.sleep(chance.uniform(0, 0.2))
    journal.add(kind, "swapped", "; ".join(wrong[already : already + 3]), requests=sum(told.values()) - asked)
