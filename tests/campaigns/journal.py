"""The record of a campaign: a JSON line a case, so that it goes on where it stopped, and the table that follows."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any


class Journal:
    """What has been tried of a campaign under one seed.

    Args:
        folder: where its file is; made.
        wanted: cases in all.
        seconds: how long this run may go on.
    """

    def __init__(self, folder: Path, name: str, seed: int, wanted: int, seconds: float) -> None:
        self.name, self.seed, self.wanted = name, seed, wanted
        self.until = time.monotonic() + seconds
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}-{seed}.jsonl"
        whole = self.path.read_bytes().rpartition(b"\n")[0] + b"\n" if self.path.exists() else b""
        # What a crash cut short was not recorded.
        self.path.write_bytes(whole.lstrip())
        self.results: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines() if line]

    @property
    def tried(self) -> int:
        """Cases so far; a line may tell of several."""
        return sum(result.get("cases", 1) for result in self.results)

    def open(self) -> Iterator[int]:
        """Numbers of lines to come, until all cases were tried or the time is over."""
        while self.tried < self.wanted and time.monotonic() < self.until:
            yield len(self.results)

    def random(self, number: int) -> Random:
        """The chance of one line, the same in every run."""
        return Random(f"{self.name} {self.seed} {number}")

    def add(self, kind: str, outcome: object, broken: str = "", **more: Any) -> None:
        """Record a line; ``broken`` tells the promise that did not hold."""
        result = {"kind": kind, "outcome": str(outcome), **more} | ({"broken": broken} if broken else {})
        self.results.append(result)
        with self.path.open("a") as file:
            file.write(json.dumps(result) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def clear(self) -> None:
        """Begin anew."""
        self.path.unlink(missing_ok=True)
        self.results = []

    @property
    def broken(self) -> list[str]:
        """Each promise that did not hold, with its line."""
        told = [(number, result) for number, result in enumerate(self.results) if "broken" in result]
        return [f"line {number}, {result['kind']}: {result['broken']}" for number, result in told]

    def table(self, title: str, promise: str) -> str:
        """The record as Markdown."""
        kinds: dict[str, Counter[str]] = defaultdict(Counter)
        for result in self.results:
            kinds[result["kind"]][result["outcome"]] += result.get("cases", 1)
        rows = [
            f"| {kind} | {sum(found.values()):,} | {', '.join(f'{key}: {n:,}' for key, n in sorted(found.items()))} |"
            for kind, found in sorted(kinds.items())
        ]
        # The journal has the logs of what was lost, whole.
        broken = [f"- {line[:500]}" for line in self.broken] or ["None."]
        return "\n".join(
            [
                f"# {title}",
                "",
                promise,
                "",
                f"{self.tried:,} of {self.wanted:,} cases, seed {self.seed}, {os.cpu_count()} cores. Made by "
                f"`python -m tests.campaigns {self.name} --seed {self.seed}`.",
                "",
                "| kind | cases | outcomes |",
                "|---|---|---|",
                *rows,
                "",
                "## Promises broken",
                "",
                *broken,
                "",
            ]
        )
