"""ganserve web models/mnist-projgan public

python3 -m http.server --directory public
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ganserve import calls
from ganserve.web import runtime, site


def main(arguments: Sequence[str]) -> int:
    """Write the folder; returns the exit status."""
    given = _options().parse_args(arguments)
    return calls.run(lambda: _write(given))


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="ganserve web",
        description="A model as a folder of static files: the same pictures by label and seed in any browser, offline.",
        epilog=f"onnxruntime-web {runtime.VERSION} is fetched with npm the first time, unless --runtime has it.",
    )
    options.add_argument("model", type=Path, metavar="MODEL", help="its folder in a repository: models/mnist-projgan")
    options.add_argument("folder", type=Path, metavar="DIR", help="a new folder, or an empty one")
    options.add_argument("--version", type=int, help="an exact one; the live one without it")
    options.add_argument("--runtime", type=Path, metavar="DIST", help="onnxruntime-web's files, as npm has them")
    return options


def _write(given: argparse.Namespace) -> None:
    card = site.write(given.model, given.folder, runtime.find(given.runtime), given.version)
    print(f"{card.name} version {card.version} is in {given.folder}; any web server shows it, for instance")
    print(f"python3 -m http.server --directory {given.folder}")
