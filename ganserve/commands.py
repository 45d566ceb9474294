"""The command ``ganserve``: one door to every part, which opens the part's own module by its name.

    ganserve serve --port 9000
    ganserve train --recipe cgan --dataset digits
    ganserve generate --label 3 -n 16 -o grid.png
    ganserve COMMAND --help
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

BAD_INPUT = 2
EXTRA = "pip install 'ganserve[training]'"


@dataclass(frozen=True)
class Command:
    """``module`` has the function ``main(arguments)``; ``told`` is its line in the overview."""

    module: str
    told: str
    training: bool = False


COMMANDS: Mapping[str, Command] = {
    "serve": Command("service.__main__", "answer image requests over HTTP"),
    "train": Command("training.train", "train a recipe on a data set, in a folder of its own", training=True),
    "export": Command("training.export", "publish finished runs as ONNX in the model repository", training=True),
    "evaluate": Command("training.evaluate", "measure a model or an ONNX file on a data set", training=True),
    "worker": Command("training.worker", "take retraining jobs from the queue and carry them out", training=True),
    "generate": Command("ganserve.calls.generate", "images of a server or of a model's folder, as a file"),
    "models": Command("ganserve.calls.models", "which models a server or a repository has"),
    "copy": Command("ganserve.calls.copy", "copy models between repositories, folders or object stores"),
    "jobs": Command("ganserve.calls.jobs", "ask a server for a retraining, watch it, cancel it"),
    "check": Command("ganserve.calls.check", "look through a folder or a ZIP of pictures, and say what is odd"),
    "verify": Command("ganserve.calls.verify", "whether pictures are what stands at their addresses, without a server"),
    "upload": Command("ganserve.calls.upload", "send a server your own labelled images"),
    "web": Command("ganserve.calls.web", "a model as static files: its pictures in any browser, without a server"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status, 2 for an unknown command or a part that is not installed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else "--help"
    if name in ("--help", "-h", "help"):
        print(overview())
        return 0 if given else BAD_INPUT
    if name == "--version":
        print(f"ganserve {installed_version()}")
        return 0
    if name not in COMMANDS:
        print(f"error: {name!r} is no command of ganserve: expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return BAD_INPUT
    command = COMMANDS[name]
    _look_at_home_first()
    try:
        run = importlib.import_module(command.module).main
    except ModuleNotFoundError as error:
        if not command.training or (error.name or "").partition(".")[0] in ("ganserve", "service", "training"):
            raise
        print(f"error: ganserve {name} needs the extra `training` ({error.name} is missing): {EXTRA}", file=sys.stderr)
        return BAD_INPUT
    return int(run(given[1:]) or 0)


def _look_at_home_first() -> None:
    """``python -m ganserve`` looks into the current folder first, where a user may keep a ``training`` of their own."""
    first, home = Path(sys.path[0]).resolve(), Path(__file__).resolve().parents[1]
    if first != home and any((first / name).exists() for name in ("service", "training", "training.py", "service.py")):
        del sys.path[0]


def overview() -> str:
    """What ``ganserve --help`` prints."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {command.told}" for name, command in COMMANDS.items())
    return (
        "usage: ganserve COMMAND [options]\n\n"
        "Trains small GANs, exports their generators to ONNX, serves labelled, reproducible images over HTTP.\n\n"
        f"{listed}\n\n"
        "ganserve COMMAND --help tells a command's options; ganserve --version the version."
    )


def installed_version() -> str:
    """The package's version; 0 where it runs from a folder that was never installed."""
    try:
        return version("ganserve")
    except PackageNotFoundError:
        return "0"
