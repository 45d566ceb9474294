"""ganserve verify three.png grid.webp

ganserve verify stripped.png --address /images/mnist-projgan/5/3/42.png
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ganserve import calls, errors
from ganserve.generator import Generator
from ganserve.place import inside, is_url, place
from ganserve.verdict import Verdict

OTHER = 1


def main(arguments: Sequence[str]) -> int:
    """Verify pictures without a server; the exit status is 0 where all match, 1 where one does not, 2 on an error."""
    given = _options().parse_args(arguments)
    found: list[int] = []
    return calls.run(lambda: found.extend(_verify(given))) or max(found)


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="ganserve verify",
        description="Whether pictures are what stands at the addresses that they carry, made again here, without a "
        "server. Exit status 0: all are; 1: one is not, or carries no address; 2: one cannot be verified.",
    )
    options.add_argument("files", metavar="FILE", nargs="+", type=Path, help="PNG or WebP")
    told = "a repository, as a folder or s3://, gs:// or az://; GANSERVE_MODELS without it, else models"
    options.add_argument("--models", metavar="PLACE", help=told)
    options.add_argument("--address", help="/images/... or a query as /generate takes it, in place of what files carry")
    return options


def _verify(given: argparse.Namespace) -> list[int]:
    generator = _generator(given.models or os.environ.get("GANSERVE_MODELS") or "models")
    statuses = []
    for file in given.files:
        try:
            verdict = generator.verify(file, address=given.address)
        except (errors.GanserveError, OSError) as error:
            # The rest is looked at all the same.
            print(f"error: {calls.plain(file)}: {calls.plain(error)}", file=sys.stderr)
            statuses.append(calls.FAILED)
            continue
        print(calls.plain(f"{file}: {_told(verdict)}"))
        statuses.append(0 if verdict else OTHER)
    return statuses


def _generator(told: str) -> Generator:
    """Of the model that an address without one means, as the service has it."""
    from ganserve.card import RepositoryError
    from ganserve.repository import Repository
    from ganserve.settings import PREFERRED

    try:
        root = place(told)
        names = Repository(root).names() if is_url(root) or Path(root).is_dir() else []
    except ValueError as error:
        raise errors.Invalid(str(error)) from None
    except RepositoryError as error:
        raise errors.Unavailable(str(error)) from error
    if not names:
        raise errors.NotFound(f"{told} has no models: name a repository with --models")
    return Generator(str(inside(root, PREFERRED if PREFERRED in names else names[0])))


def _told(verdict: Verdict) -> str:
    parts: list[str] = [verdict.verdict]
    if verdict.differing_pixels:
        parts.append(f"in {verdict.differing_pixels} pixel{'s' if verdict.differing_pixels > 1 else ''}")
    if verdict.address is not None:
        parts.append(verdict.address)
    return " ".join(parts) + (f" ({verdict.note})" if verdict.note else "")
