"""Short runs of every recipe: their weights, their logs, and what exporting, judging and a whole job make of them."""

from __future__ import annotations

import hashlib
import io
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.unmoved.checkout import Checkout
from benchmarks.unmoved.recorder import Recorder, digest, hidden

STEPS = 200
# By more of the run's options: another size and colour build other networks. (options, steps, the recipes or all)
VARIANTS: dict[str, tuple[list[str], int, tuple[str, ...] | None]] = {
    "": ([], STEPS, None),
    " 28": (["--size", "28"], 16, None),
    " 32 colour": (["--size", "32", "--channels", "3"], 20, ("dcgan-gap", "projgan")),
    " bf16": (["--precision", "bf16"], 20, ("cgan",)),
}
EXPORTED = ("cgan", "dcgan-gap", "projgan")
JUDGED = "cgan"
JOB = {"model": "digits", "recipe": "cgan", "dataset": "digits", "images": 1920, "seed": 3}
TIMES = {"created_at", "started_at", "finished_at", "seconds", "images_per_second", "seconds_left"}


def take(checkout: Checkout, recipes: dict[str, Any]) -> dict[str, Any]:
    """``runs``, ``exports`` and ``jobs``."""
    found: dict[str, Any] = {}
    for kind, (more, steps, named) in VARIANTS.items():
        for name in named or recipes:
            found[name + kind] = run(checkout, name, kind, recipes[name], steps, more)
    weights = checkout.place / JUDGED / "best.safetensors"
    warm = ["--init", str(weights)]
    found[f"{JUDGED} from weights"] = run(checkout, JUDGED, "-warm", recipes[JUDGED], 20, warm)
    exports = {name: export(checkout, name) for name in EXPORTED if name in recipes}
    exports[f"evaluation of {JUDGED}"] = evaluation(checkout, JUDGED)
    return {"runs": found, "exports": exports, "jobs": {"a job to its end": job(checkout)}}


def run(
    checkout: Checkout, name: str, kind: str, recipe: dict[str, Any], steps: int, more: list[str]
) -> dict[str, Any]:
    """So many steps of a recipe on the digits that scikit-learn brings: every stage of it is passed through."""
    overrides = recipe["overrides"]
    images = steps * overrides["batch"]["default"] * overrides["d_steps"]["default"]
    folder = checkout.place / f"{name}{kind.replace(' ', '-')}"
    command = ["training.train", "--recipe", name, "--dataset", "digits", "--images", str(images), "--seed", "5"]
    command += ["--run", str(folder), "--threads", "1", "--log-steps", "20", "--snapshots", "2", "--events", *more]
    done = checkout.run(*command)
    if done.returncode:
        return {"status": done.returncode, "error": done.stderr[-500:]}
    (last,) = sorted(folder.glob("checkpoints/*.pt"))[-1:]
    events = [json.loads(line)["event"] for line in done.stdout.splitlines() if line.startswith("{")]
    config = json.loads((folder / "config.json").read_text())
    return {
        "status": 0,
        "step": last.name,
        "checkpoint": tensors(last),
        "best": digest((folder / "best.safetensors").read_bytes()),
        "events": {kind: events.count(kind) for kind in sorted(set(events))},
        "config": {**config, "init": bool(config.get("init"))},
        "logs": {file.name: digest(lines(file)) for file in sorted(folder.glob("*.jsonl"))},
        "last": hidden(json.loads(lines(folder / "log.jsonl").splitlines()[-1]), TIMES),
        "samples": digest(b"".join(file.read_bytes() for file in sorted(folder.glob("samples/*.png")))),
        "files": sorted(file.name for file in folder.iterdir()),
    }


def tensors(path: Path) -> dict[str, str]:
    """A digest over the tensors of each part of a checkpoint; a file is its own SHA-256 and what torch saved."""
    import torch

    state = torch.load(io.BytesIO(path.read_bytes()[32:]), weights_only=True)
    found = {}
    for part, held in state.items():
        hashed = hashlib.sha256()
        if _feed(hashed, held):
            found[part] = hashed.hexdigest()[:24]
    return found


def _feed(hashed: Any, held: Any) -> bool:
    """Feed tensors to a digest in the order of their names; whether there were any."""
    if isinstance(held, dict):
        fed = []
        for key in sorted(held, key=str):
            hashed.update(str(key).encode())
            fed.append(_feed(hashed, held[key]))
        return any(fed)
    if isinstance(held, list | tuple):
        fed = [_feed(hashed, item) for item in held]
        return any(fed)
    if hasattr(held, "numpy"):
        hashed.update(f"{held.dtype}{tuple(held.shape)}".encode() + held.contiguous().numpy().tobytes())
        return True
    return False


def lines(path: Path) -> bytes:
    """JSON lines without rates."""
    parsed = [hidden(json.loads(line), TIMES) for line in path.read_text().splitlines()]
    return "\n".join(map(json.dumps, parsed)).encode()


def export(checkout: Checkout, name: str) -> dict[str, Any]:
    """``training.export`` of a run: its words, the graph, the samples, and the card less its times."""
    models = checkout.place / "exported"
    done = checkout.run("training.export", str(checkout.place / name), "--models", str(models), "--name", f"new-{name}")
    if done.returncode:
        return {"status": done.returncode, "error": done.stderr[-500:]}
    return {"status": 0, "out": done.stdout, **published(models / f"new-{name}" / "1")}


def published(version: Path) -> dict[str, Any]:
    """What lies in a version's folder and beside it."""
    config = version.parent / "config.pbtxt"
    return {
        "graph": digest((version / "model.onnx").read_bytes()),
        "samples": digest((version / "samples.png").read_bytes()),
        "card": hidden(json.loads((version / "card.json").read_text()), TIMES | {"job_id"}),
        "config.pbtxt": config.read_text() if config.exists() else None,
        "files": sorted(file.name for file in version.iterdir()),
    }


def evaluation(checkout: Checkout, name: str) -> dict[str, Any]:
    """``training.evaluate`` of an export, with a judge that is made for it."""
    models, data = checkout.place / "exported", checkout.place / "judges"
    command = ["training.evaluate", f"new-{name}", "--dataset", "digits", "--models", str(models)]
    done = checkout.run(*command, "--images", "300", "--threads", "1", "--json", GANSERVE_DATA=str(data))
    if done.returncode:
        return {"status": done.returncode, "error": done.stderr[-500:]}
    return {"status": 0, "measures": json.loads(done.stdout)}


def job(checkout: Checkout) -> dict[str, Any]:
    """One retraining from the call to the published version, with the worker as it is started by hand."""
    settings = checkout.settings("job")
    with checkout.served("job") as port, checkout.process("training.worker", "--threads", "1", **settings):
        recorder = Recorder(port)
        asked = recorder.ask("POST", "/jobs", JOB, admin=True, Idempotency_Key="a").json["id"]
        limit = time.monotonic() + 600
        while True:
            ended = recorder.ask("GET", f"/jobs/{asked}", admin=True).json
            if ended["state"] in ("succeeded", "failed", "cancelled") or time.monotonic() > limit:
                break
            time.sleep(2)
        sheet = recorder.ask("GET", f"/jobs/{asked}/samples.png", admin=True)
    found: dict[str, Any] = {"job": hidden(ended, TIMES | {"worker"}), "sheet": [sheet.status, digest(sheet.body)]}
    if ended["state"] == "succeeded":
        found |= published(Path(settings["GANSERVE_MODELS"]) / JOB["model"] / str(ended["result"]["version"]))  # type: ignore[operator]
    return found
