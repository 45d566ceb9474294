"""Every command's options, and how it refuses what it cannot do."""

from __future__ import annotations

import re
import subprocess
from typing import Any

from benchmarks.unmoved.checkout import Checkout

COMMANDS = {
    "service": [["--port", "x"], ["--device", "tpu"], ["--engine", "x"], ["--nothing"]],
    "training.train": [
        [],
        ["--recipe", "nothing", "--dataset", "digits"],
        ["--recipe", "cgan", "--dataset", "no/such/folder/here"],
        ["--recipe", "cgan", "--dataset", "digits", "--set", "batch=1"],
        ["--recipe", "cgan", "--dataset", "digits", "--set", "speed=9"],
        ["--recipe", "cgan", "--dataset", "digits", "--size", "9"],
        ["--recipe", "cgan", "--dataset", "digits", "--images", "0"],
    ],
    "training.export": [["{place}/nothing"], ["--runs", "{place}/nothing", "--models", "{place}/none"]],
    "training.evaluate": [
        [],
        ["nothing", "--dataset", "digits", "--models", "{place}/none"],
        ["{place}/nothing.onnx", "--dataset", "digits"],
    ],
    "training.worker": [["--nothing"], ["--threads", "x"]],
}


def take(checkout: Checkout) -> dict[str, Any]:
    """Options by command, and the end of each refusal: exit status and last line."""
    found: dict[str, Any] = {}
    for command, refusals in COMMANDS.items():
        told = checkout.run(command, "--help")
        options = sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", told.stdout)))
        found[f"python -m {command} --help"] = {"status": told.returncode, "options": options}
        for arguments in refusals:
            filled = [part.format(place=checkout.place) for part in arguments]
            done = checkout.run(command, *filled)
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            words = " ".join(last).replace(str(checkout.place), "{place}").replace(str(checkout.root), "{root}")
            found[" ".join(["python -m", command, *arguments])] = {"status": done.returncode, "said": words}
    told_by_make = subprocess.run(["make", "help"], cwd=checkout.root, capture_output=True, text=True, check=False)
    targets = sorted({line.split()[1] for line in told_by_make.stdout.splitlines() if line.startswith("make ")})
    found["make help"] = {"status": told_by_make.returncode, "options": targets}
    return found
