"""ganserve check ./pets

ganserve check pets.zip
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ganserve import calls, inspection
from ganserve.archives import Refused


def main(arguments: Sequence[str]) -> int:
    """Print what a set is; returns the exit status, 2 for one that training or an upload would refuse."""
    options = argparse.ArgumentParser(
        prog="ganserve check",
        description="Look through a set of pictures without training on it or sending it: what it holds, what is odd.",
    )
    options.add_argument("source", metavar="FOLDER|ZIP", type=Path, help="a folder of class folders, or a ZIP of them")
    options.add_argument(
        "--skip-invalid", action="store_true", help="leave out pictures of a ZIP that cannot be decoded"
    )
    given = options.parse_args(arguments)
    try:
        found = _looked_through(given.source, given.skip_invalid)
    except (Refused, OSError) as error:
        print(f"error: {calls.plain(' '.join(str(error).split()))}", file=sys.stderr)
        return calls.FAILED
    for line in (*found.report.lines(), *_left_out(found)):
        print(calls.plain(line))
    return 0


def _looked_through(source: Path, skip_invalid: bool) -> inspection.Inspected:
    if source.is_dir():
        return inspection.folder(source)
    if not source.exists():
        raise FileNotFoundError(f"{source} is not there: name a folder of class folders, or a ZIP of them")
    return inspection.archive(source, skip_invalid=skip_invalid)


def _left_out(found: inspection.Inspected) -> list[str]:
    """Each picture that was left out."""
    return [f"left out: {one.file}: {one.reason}" for one in found.left_out]
