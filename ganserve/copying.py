"""Moving models between repositories of any kind, and uploads and half-done jobs between stores.

What is there already, to the byte, is passed over: a copy that was cut goes on where it was, and one that is made again
brings what has come since. So a folder becomes a store, or the other way round, while both serve.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ganserve.card import LivePointer, ModelCard, RepositoryError, to_json
from ganserve.publisher import marker
from ganserve.reader import MEASURES, REPORT, WEIGHTS
from ganserve.repository import Repository
from ganserve.store import COMMIT, Missing

Tell = Callable[[str], None]


class CopyRefused(RepositoryError):  # noqa: N818
    """What stands at the other place is something else; nothing of it was changed."""


@dataclass
class Copied:
    """What was done."""

    versions: list[str] = field(default_factory=list)
    there: int = 0
    live: list[str] = field(default_factory=list)
    measures: int = 0


def models(source: Repository, target: Repository, names: Iterable[str] = (), tell: Tell = lambda line: None) -> Copied:
    """Copy models, all or those named: versions, what was removed, measurements, and which version is live.

    A version keeps its number. The live pointer is taken over where the other place has none, or an older one.

    Raises:
        ModelNotFound, ModelCorrupt: of the source.
        CopyRefused: a number means another version at the target.
    """
    done = Copied()
    for name in list(names) or source.names():
        versions = source.versions(name)
        target.store.ensure(name)
        for version in versions:
            _version(source, target, name, version, done, tell)
        removed = source.removed(name)
        if removed:
            target.note_removed(name, removed)
        if highest := max(source.taken(name), default=0):
            target.raise_highest(name, highest)
        _pointer(source, target, name, done, tell)
    return done


def _version(source: Repository, target: Repository, name: str, version: int, done: Copied, tell: Tell) -> None:
    card, content = source.read(name, version)
    parts = {"model.onnx": content}
    if (weights := source.weights(card)) is not None:
        parts[WEIGHTS] = weights
    for part in ("samples.png", REPORT):
        with contextlib.suppress(Missing):
            parts[part] = source.store.read(f"{name}/{version}/{part}")
    # As it is written: an older card may lack fields that this version of the code would add.
    parts[COMMIT] = source.store.read(f"{name}/{version}/{COMMIT}")
    with target.store.exclusive(name):
        if version in target.removed(name):
            return
        if target.store.create(f"{name}/{version}", parts):
            done.versions.append(f"{name}:{version}")
            tell(f"{name} version {version}: {len(content)} bytes")
        else:
            _same(target, card, parts)
            done.there += 1
    if target.verify(name, version).sha256 != hashlib.sha256(content).hexdigest():
        raise CopyRefused(f"{name} version {version}: what was read back is another graph")
    if card.job_id is not None:
        target.store.replace(marker(name, card.job_id), f"{version}\n".encode(), None)
    known = target.store.lines(f"{name}/{version}/{MEASURES}")
    for line in source.store.lines(f"{name}/{version}/{MEASURES}"):
        if line not in known:
            target.store.append(f"{name}/{version}/{MEASURES}", line)
            done.measures += 1


def _same(target: Repository, card: ModelCard, parts: dict[str, bytes]) -> None:
    """Raises CopyRefused if what stands at the number is not the same version."""
    try:
        if target.store.read(f"{card.name}/{card.version}/{COMMIT}") == parts[COMMIT]:
            return
    except Missing:
        pass
    raise CopyRefused(
        f"{card.name} version {card.version} is another one there: copy to an empty place, or under another name"
    )


def _pointer(source: Repository, target: Repository, name: str, done: Copied, tell: Tell) -> None:
    """Take over which version is live, if that was decided later than what stands."""
    wanted, moved = source.live_pointer(name), False
    while wanted is not None and not moved:
        there, content = _standing(target, name)
        if there is not None and there.promoted_at >= wanted.promoted_at:
            break
        moved = target.store.replace(f"{name}/live.json", to_json(wanted), content)
    if moved and wanted is not None:
        done.live.append(f"{name}:{wanted.version}")
        tell(f"{name}: version {wanted.version} is live")
    target.mend(name)


def _standing(target: Repository, name: str) -> tuple[LivePointer | None, bytes | None]:
    pointer = target.live_pointer(name)
    return pointer, None if pointer is None else target.store.read(f"{name}/live.json")
