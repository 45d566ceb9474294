"""A stand-in for training.train and training.retrain.tasks, without torch: the same arguments, events and exits.

Each step adds to a running hash, so the weights depend on the seed and on every step exactly once: a resumed
run has the weights of an undisturbed one only if it went on from its checkpoint. ``behaviour.json`` in the
data folder says how long things last.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEP_IMAGES = 10


def say(event: str, **more: Any) -> None:
    print(json.dumps({"event": event, **more}), flush=True)


def replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_bytes(content)
    os.replace(staged, path)


def train(argv: list[str], behaviour: dict[str, Any]) -> int:
    parser = argparse.ArgumentParser()
    for name in ("recipe", "dataset", "run", "init", "log-steps", "threads"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--images", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--set", action="append", default=[])
    for name in ("resume", "events", "die-with-parent"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args(argv)
    options.dataset = Path(options.dataset).name
    run = Path(options.run)
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    replace(run / "config.json", b"{}")
    if options.dataset == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    if options.dataset == "deadly":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if options.dataset == "collapse":
        say("failed", reason="the generator has collapsed: all images look alike")
        return 3
    if options.dataset == "bad":
        say("failed", reason="data set 'bad' is empty")
        return 2
    if options.dataset == "hang":
        time.sleep(3600)
    step, state = 0, f"seed {options.seed} {options.init and Path(options.init).read_bytes()!r}"
    for path in sorted(run.glob("checkpoints/*.pt"), reverse=True):
        try:
            saved = json.loads(path.read_text())
        except ValueError:
            say("warning", reason=f"checkpoint {path.name} is damaged; trying the one before it")
            continue
        step, state = saved["step"], saved["state"]
        break
    replace(run / "begun", str(step).encode())
    total = options.images // STEP_IMAGES
    while step < total:
        time.sleep(behaviour.get("step_seconds", 0.0))
        step += 1
        state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
        left = (total - step) * 0.01
        if not behaviour.get("silent"):
            rates = {"images_per_second": 1000.0, "seconds_left": left, "loss_d": 1.0, "loss_g": 1.0}
            say("progress", step=step, steps=total, images=step * 10, images_total=total * 10, **rates)
        if step % 5 == 0 or stop:
            replace(
                run / f"checkpoints/step-{step:09d}.pt", json.dumps({"step": step, "state": state}).encode()
            )
            say("checkpoint", step=step)
            replace(run / f"samples/fresh-{step:09d}.png", b"\x89PNG " + str(step).encode())
            if not behaviour.get("silent"):
                say("samples", path=f"samples/fresh-{step:09d}.png", step=step, images=step * 10, score=1.0)
        if stop:
            return 75
    replace(run / "best.safetensors", state.encode())
    say("finished", state="finished", step=step, images=step * 10)
    return 0


def export(run: str, repository: str, beside: str, model: str, job_id: str) -> dict[str, Any]:
    from fixtures import publish_tiny  # type: ignore[import-not-found]

    weights = Path(run, "best.safetensors").read_bytes()
    return {"version": publish_tiny(repository, model, weights.decode(), job_id)}


def evaluate(onnx: str, dataset: str) -> dict[str, Any]:
    return {"judge": "stub", "dataset": "digits", "split": "test", "images": 100, "frechet": 1.0}


def main() -> int:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    folder, what = Path(sys.argv[1]), sys.argv[2]
    file = folder / "behaviour.json"
    behaviour = json.loads(file.read_text()) if file.exists() else {}
    if what == "train":
        return train(sys.argv[3:], behaviour)
    (folder / f"step-{what}").touch()
    if behaviour.get("other_classes") and "/runs/" not in sys.argv[3]:
        say("failed", reason="the model's classes ('cat',) are not the data set's ('dog',)")
        return 2
    time.sleep(behaviour.get(f"{what}_seconds", 0.0))
    steps: dict[str, Callable[..., dict[str, Any]]] = {"export": export, "evaluate": evaluate}
    result = steps[what](**json.loads(sys.argv[3]))
    say("result", **result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
