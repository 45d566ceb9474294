"""ganserve models

ganserve models FOLDER
ganserve models s3://BUCKET/PREFIX
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ganserve import calls, errors
from ganserve.place import place

HEADS = ("MODEL", "LIVE", "VERSIONS", "CLASSES", "NOTE")


def main(arguments: Sequence[str]) -> int:
    """List models; returns the exit status."""
    options = calls.parser("models", "Which models a server has, or a repository: a folder or an object store.")
    calls.add_url(options)
    told = "a repository, as a folder or s3://, gs:// or az://; no server is asked"
    options.add_argument("path", nargs="?", metavar="PLACE", help=told)
    given = options.parse_args(arguments)
    return calls.run(lambda: print(calls.table(HEADS, _rows(given))))


def _rows(given: argparse.Namespace) -> list[tuple[object, ...]]:
    if given.path is not None:
        return _local(given.path)
    with calls.connect(given) as client:
        return [
            (
                model.name,
                model.live,
                _listed(model.versions),
                len(model.class_names),
                f"left out: {model.left_out}" if model.left_out else "default" if model.default else "",
            )
            for model in client.models()
        ]


def _local(told: str) -> list[tuple[object, ...]]:
    from ganserve.card import RepositoryError
    from ganserve.repository import Repository

    try:
        root = place(told)
    except ValueError as error:
        raise errors.Invalid(f"{error}; a server's address goes to --url") from None
    if isinstance(root, Path) and not root.is_dir():
        raise errors.NotFound(f"{root} is no folder: expected a model repository")
    rows: list[tuple[object, ...]] = []
    try:
        repository = Repository(root)
        found = {name: repository.versions(name) for name in repository.names()}
    except RepositoryError as error:
        raise errors.Unavailable(str(error)) from error
    for name, versions in found.items():
        try:
            live = repository.live(name)
            card = repository.card(name, live or versions[-1])
            rows.append((name, live, _listed(versions), len(card.classes), ""))
        except RepositoryError as error:
            rows.append((name, None, _listed(versions), None, f"left out: {error}"))
    return rows


def _listed(versions: Sequence[int]) -> str:
    return ",".join(map(str, versions))
