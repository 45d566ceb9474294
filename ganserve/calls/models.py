"""ganserve models

ganserve models FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ganserve import calls, errors

HEADS = ("MODEL", "LIVE", "VERSIONS", "CLASSES", "NOTE")


def main(arguments: Sequence[str]) -> int:
    """List models; returns the exit status."""
    options = calls.parser("models", "Which models a server has, or a repository's folder.")
    calls.add_url(options)
    options.add_argument("path", nargs="?", metavar="PATH", help="a repository's folder; no server is asked")
    given = options.parse_args(arguments)
    return calls.run(lambda: print(calls.table(HEADS, _rows(given))))


def _rows(given: argparse.Namespace) -> list[tuple[object, ...]]:
    if given.path is not None:
        return _local(Path(given.path))
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


def _local(root: Path) -> list[tuple[object, ...]]:
    from ganserve.card import RepositoryError
    from ganserve.repository import Repository

    if not root.is_dir():
        raise errors.NotFound(f"{root} is no folder: expected a model repository")
    repository = Repository(root)
    rows: list[tuple[object, ...]] = []
    for name in repository.names():
        versions = repository.versions(name)
        try:
            live = repository.live(name)
            card = repository.card(name, live or versions[-1])
            rows.append((name, live, _listed(versions), len(card.classes), ""))
        except RepositoryError as error:
            rows.append((name, None, _listed(versions), None, f"left out: {error}"))
    return rows


def _listed(versions: Sequence[int]) -> str:
    return ",".join(map(str, versions))
