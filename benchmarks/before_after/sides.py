"""A checkout under load and in training, driven from outside; each turn gives images a second."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

from benchmarks.serving import CASES, load
from benchmarks.unmoved.checkout import Checkout

SERVED = ("n1c32", "n16c1", "n16c8", "n256c2")
# Steps between two lines of a training: lines come about twice a second on one core.
TRAINED = {"gan": 10, "dcgan": 2, "cdcgan": 3, "dcgan-gap": 2, "projgan": 3}
# A run that ends within seconds and so passes through every stage of its recipe.
WHOLE = {"projgan": 96}
ENDLESS = 10**9


def serve(checkout: Checkout, cases: list[str], workers: int, seconds: float) -> dict[str, float]:
    """Images a second of the service in each case, after a second of warm-up."""
    # The port answers as soon as one of its processes does, and connections stay with the one that took them.
    settle = 4 if workers > 1 else 1
    found = {}
    with checkout.served("served", GANSERVE_WORKERS=str(workers)) as port:
        load(port, "n16c8", settle)
        for case in cases:
            load(port, case, 1)
            told = load(port, case, seconds)
            if told["errors"]:
                raise RuntimeError(f"{checkout.root}: {told['errors']:.0f} errors in {case}")
            found[case] = told["requests"] / told["seconds"] * CASES[case][0]
    return found


class Training:
    """A training without end, which stands still between turns: all sides are warm, and none disturbs another's."""

    def __init__(self, checkout: Checkout, recipe: str, threads: int) -> None:
        run = checkout.place / f"{recipe}-{threads}-{time.monotonic_ns()}"
        self.process = _train(checkout, recipe, threads, run, ENDLESS, TRAINED[recipe])
        self.lines: Queue[tuple[float, dict[str, Any]] | None] = Queue()
        Thread(target=self._read, daemon=True).start()
        self._next()
        self.process.send_signal(signal.SIGSTOP)

    def _read(self) -> None:
        for event in _events(self.process):
            if event["event"] == "progress":
                self.lines.put((time.perf_counter(), event))
        self.lines.put(None)

    def _next(self) -> tuple[float, dict[str, Any]]:
        line = self.lines.get(timeout=300)
        if line is None:
            raise RuntimeError(f"the training ended: {' '.join(map(str, self.process.args))}")  # type: ignore[arg-type]
        return line

    def take(self, seconds: float) -> float:
        """Images a second between the first line after it goes on and the first one after so many seconds."""
        while not self.lines.empty():
            self._next()
        self.process.send_signal(signal.SIGCONT)
        begun, first = self._next()
        while True:
            at, last = self._next()
            if at - begun >= seconds:
                break
        self.process.send_signal(signal.SIGSTOP)
        return float((last["images"] - first["images"]) / (at - begun))

    def end(self) -> None:
        """Let it go."""
        self.process.kill()
        self.process.wait()


@contextmanager
def training(checkouts: dict[str, Checkout], recipe: str, threads: int) -> Iterator[dict[str, Training]]:
    """One of each side, standing still."""
    found: dict[str, Training] = {}
    try:
        for side, checkout in checkouts.items():
            found[side] = Training(checkout, recipe, threads)
        yield found
    finally:
        for begun in found.values():
            begun.end()


def whole_run(checkout: Checkout, recipe: str, threads: int) -> float:
    """Images a second of a short run from its first line to its end, with every stage and what is made at the end."""
    run = checkout.place / f"whole-{recipe}-{threads}-{time.monotonic_ns()}"
    images = WHOLE[recipe] * 64
    process = _train(checkout, recipe, threads, run, images, TRAINED[recipe])
    begun, first = 0.0, 0
    for event in _events(process):
        if event["event"] == "progress" and not begun:
            begun, first = time.perf_counter(), event["images"]
    took = time.perf_counter() - begun
    if process.wait():
        raise RuntimeError(f"the training ended with {process.returncode}")
    return (images - first) / took


def _train(
    checkout: Checkout, recipe: str, threads: int, run: Path, images: int, log_steps: int
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "training.train", "--recipe", recipe, "--dataset", "digits", "--size", "28"]
    command += ["--images", str(images), "--seed", "1", "--run", str(run), "--threads", str(threads), "--events"]
    # No checkpoint and no snapshot falls into a turn.
    command += ["--log-steps", str(log_steps), "--checkpoint-steps", str(ENDLESS), "--snapshots", "1"]
    environment = checkout.environment(OMP_NUM_THREADS=str(threads))
    return subprocess.Popen(
        [*command, "--die-with-parent"],
        cwd=checkout.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            yield json.loads(line)
