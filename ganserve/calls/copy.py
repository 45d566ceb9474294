"""ganserve copy models s3://BUCKET/models

ganserve copy s3://BUCKET/models backup mnist-projgan
ganserve copy --data var s3://BUCKET/store
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ganserve import calls, errors
from ganserve.place import Place, place


def main(arguments: Sequence[str]) -> int:
    """Copy; returns the exit status."""
    options = argparse.ArgumentParser(
        prog="ganserve copy",
        description="Copy models between repositories of any kind: versions with their numbers, later measurements, "
        "which version is live. Or, with --data, uploads and half-done jobs. What is there already is passed over.",
    )
    add = options.add_argument
    add("--data", action="store_true", help="uploads and half-done jobs, between data folders or GANSERVE_STOREs")
    add("source", metavar="FROM", help="a folder, or s3://, gs:// or az://")
    add("target", metavar="TO", help="the same")
    add("names", metavar="NAME", nargs="*", help="models (with --data: data sets or jobs); all without")
    given = options.parse_args(arguments)
    return calls.run(lambda: _copy(given))


def _copy(given: argparse.Namespace) -> None:
    from ganserve import copying, copying_data
    from ganserve.card import ModelNotFound, RepositoryError
    from ganserve.repository import Repository

    source, target = _place(given.source), _place(given.target)
    if isinstance(source, Path) and not source.is_dir():
        raise errors.NotFound(f"{source} is no folder")
    if source == target:
        raise errors.Invalid("FROM and TO are the same place")
    try:
        if given.data:
            copying_data.data(source, target, given.names, _tell)
            return
        done = copying.models(Repository(source), Repository(target), given.names, _tell)
    except ModelNotFound as error:
        raise errors.NotFound(str(error)) from error
    except copying.CopyRefused as error:
        raise errors.Conflict(str(error)) from error
    except RepositoryError as error:
        raise errors.Unavailable(str(error)) from error
    print(f"{len(done.versions)} versions copied, {done.there} were there; {len(done.live)} pointers moved")


def _place(told: str) -> Place:
    try:
        return place(told)
    except ValueError as error:
        raise errors.Invalid(str(error)) from None


def _tell(line: str) -> None:
    print(calls.plain(line), flush=True)
