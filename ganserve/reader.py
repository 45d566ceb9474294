"""The half of the model repository that reads: cards, versions, files, the live pointer, measurements."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from ganserve.card import (
    MOST_VERSIONS,
    NAME,
    LivePointer,
    ModelCard,
    ModelCorrupt,
    ModelNotFound,
    ModelUnreadable,
    VersionNotFound,
    VersionRemoved,
)
from ganserve.latents import RECIPES as LATENT_RECIPES
from ganserve.place import Place, open_store
from ganserve.store import MOST_BYTES, Missing, Store, Unreadable

VERSION = re.compile(r"[1-9][0-9]{0,9}")
HIGHEST, REMOVED = ".highest", ".removed"
# More numbers than any latent vector has; a card that says more would take the memory before its graph is asked.
MOST_Z = 1 << 16
# A graph may have so many bytes, whatever its card says of it.
UNCOUNTED_BYTES = 64 << 20
MOST_SAMPLES_BYTES = 64 << 20
MEASURES, REPORT, WEIGHTS = "measures.jsonl", "report.json", "weights.safetensors"


class Reader:
    """The models, to be read. Every method reads the store anew: several processes share it.

    Args:
        place: a folder, or the URL of an object store (:func:`ganserve.place.place`).
        store: what is behind ``place``, where it is opened otherwise than :func:`ganserve.place.open_store` does.
    """

    def __init__(self, place: Place, store: Store | None = None) -> None:
        self.place = place
        self.store = store or open_store(place)

    @property
    def root(self) -> Path:
        """The folder, of a repository in one."""
        assert isinstance(self.place, Path), "a repository in an object store has no folder"
        return self.place

    def names(self) -> list[str]:
        """Models that have a version, and those that cannot be looked into, sorted. Raises ModelUnreadable."""
        with _told("the models folder"):
            found = self.store.folders()
        return [name for name in found if NAME.fullmatch(name) and self._may_have_versions(name)]

    def versions(self, name: str) -> list[int]:
        """Versions of a model, ascending. Raises ModelNotFound, ModelUnreadable."""
        self._known(name)
        with _told(f"{name}: its folder"):
            return self._versions(name)

    def card(self, name: str, version: int) -> ModelCard:
        """The card as it is written. Raises ModelNotFound, VersionNotFound, ModelCorrupt."""
        content = self._part(name, version, "card.json")
        try:
            card = ModelCard.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ModelCorrupt(f"{name} version {version}: card.json is wrong at {where}: {first['msg']}") from error
        if (card.name, card.version) != (name, version):
            raise ModelCorrupt(
                f"{name} version {version}: its card says {card.name} version {card.version}; was it moved?"
            )
        return card

    def model_path(self, name: str, version: int) -> Path:
        """Where ``model.onnx`` is. Raises ModelNotFound, VersionNotFound, ModelCorrupt for a link."""
        part = "model.onnx"
        self._known(name, version)
        try:
            path = self.store.local(f"{name}/{version}/{part}")
        except Missing as error:
            raise ModelCorrupt(f"{name} version {version}: {part} cannot be read ({error})") from error
        except Unreadable as error:
            raise ModelUnreadable(f"{name} version {version}: {part} cannot be read ({error})") from error
        if path.is_symlink():
            raise ModelCorrupt(f"{name} version {version}: {part} is a link; put the file itself in its place")
        with _told(f"{name} version {version}: {part}"):
            if path.exists() and not path.is_file():
                raise ModelCorrupt(f"{name} version {version}: {part} is no regular file")
        return path

    def samples(self, name: str, version: int) -> bytes | None:
        """``samples.png``; None where none is kept. Raises ModelNotFound, VersionNotFound, ModelUnreadable."""
        self._known(name, version)
        try:
            return self.store.read(f"{name}/{version}/samples.png", MOST_SAMPLES_BYTES)
        except Missing:
            return None
        except Unreadable as error:
            raise ModelUnreadable(f"{name} version {version}: samples.png cannot be read ({error})") from error

    def live_pointer(self, name: str) -> LivePointer | None:
        """The live version with its predecessor, None before the first promotion. Raises ModelCorrupt."""
        return self._pointer(name)[0]

    def live(self, name: str) -> int | None:
        """The live version, None before the first promotion."""
        pointer = self.live_pointer(name)
        return pointer.version if pointer else None

    def verify(self, name: str, version: int) -> ModelCard:
        """The card, after comparing model.onnx with its digest. Raises ModelCorrupt and what :meth:`card` raises."""
        return self.read(name, version)[0]

    def read(self, name: str, version: int) -> tuple[ModelCard, bytes]:
        """The card and the very bytes that were checked against it. Raises as :meth:`verify`."""
        card = self.card(name, version)
        # Else a file in the graph's place could take all memory only to be found another one.
        most = min(MOST_BYTES, max(card.file_bytes, UNCOUNTED_BYTES))
        content = self._part(name, version, "model.onnx", most)
        digest = hashlib.sha256(content).hexdigest()
        if digest != card.sha256:
            raise ModelCorrupt(
                f"{name} version {version}: model.onnx has sha256 {digest[:12]}..., its card says "
                f"{card.sha256[:12]}...; restore the file or publish it anew"
            )
        if reason := unservable(card):
            raise ModelCorrupt(f"{name} version {version}: {reason}")
        return card, content

    def weights(self, card: ModelCard) -> bytes | None:
        """The float weights beside a version, where there are some. Raises ModelCorrupt if they are not its card's."""
        if card.weights_sha256 is None:
            return None
        content = self._part(card.name, card.version, WEIGHTS)
        if hashlib.sha256(content).hexdigest() != card.weights_sha256:
            raise ModelCorrupt(f"{card.name} version {card.version}: {WEIGHTS} is not what its card says")
        return content

    def measures(self, name: str, version: int) -> list[dict[str, Any]]:
        """The measurements that were added, oldest first; a line that a crash cut short is passed over."""
        self._known(name, version)
        try:
            lines = self.store.lines(f"{name}/{version}/{MEASURES}")
        except (Missing, Unreadable):
            return []
        found = []
        for line in lines:
            try:
                # Which, unlike Python's own, refuses what could not be answered, and any depth.
                found.append(from_json(line))
            except ValueError:
                continue
        return [measure for measure in found if isinstance(measure, dict)]

    def logged(self, name: str, version: int) -> bytes | None:
        """``report.json``: what its training logged, for :func:`ganserve.charts.read`; None where none is kept."""
        self._known(name, version)
        try:
            return self.store.read(f"{name}/{version}/{REPORT}")
        except (Missing, Unreadable):
            return None

    def scores(self, name: str, version: int) -> dict[str, Any]:
        """How good a version is known to be: its last measurement, else the one that its card was published with."""
        measures = self.measures(name, version)
        return measures[-1] if measures else self.card(name, version).metrics

    def removed(self, name: str) -> set[int]:
        """Versions that were removed; none where it cannot be told."""
        try:
            noted = self.store.read(f"{name}/{REMOVED}").decode("ascii", "replace").split()
        except (Missing, Unreadable):
            return set()
        return {int(number) for number in noted if VERSION.fullmatch(number)}

    def _known(self, name: str, version: int | None = None) -> None:
        """Raises ModelNotFound, VersionNotFound, VersionRemoved, ModelUnreadable."""
        if version is not None and version <= MOST_VERSIONS and NAME.fullmatch(name):
            with _told(f"{name}: its folder"):
                if self.store.exists(f"{name}/{version}"):
                    return
        with _told("the models folder"):
            there = bool(NAME.fullmatch(name)) and name in self.store.folders()
        if not there:
            raise ModelNotFound(f"no model {name!r}: there are {', '.join(self.names()) or 'none yet'}")
        if version is None:
            return
        with _told(f"{name}: its folder"):
            known = ", ".join(map(str, self._versions(name))) or "none"
        if version in self.removed(name):
            raise VersionRemoved(f"{name} version {version} was removed for good: there are {known}")
        raise VersionNotFound(f"{name} has no version {version}: there are {known}")

    def _may_have_versions(self, name: str) -> bool:
        try:
            return bool(self._versions(name))
        except OSError:
            return True

    def _versions(self, name: str) -> list[int]:
        return sorted(int(folder) for folder in self.store.created(name) if VERSION.fullmatch(folder))

    def _part(self, name: str, version: int, part: str, most: int | None = None) -> bytes:
        self._known(name, version)
        try:
            return self.store.read(f"{name}/{version}/{part}", most)
        except Missing as error:
            raise ModelCorrupt(f"{name} version {version}: {part} cannot be read ({error})") from error
        except Unreadable as error:
            raise ModelUnreadable(f"{name} version {version}: {part} cannot be read ({error})") from error

    def _pointer(self, name: str) -> tuple[LivePointer | None, bytes | None]:
        """The pointer, and the very bytes that it was read from."""
        if not NAME.fullmatch(name):
            self._known(name)
        try:
            content = self.store.read(f"{name}/live.json")
            return LivePointer.model_validate_json(content), content
        except Missing:
            self._known(name)
            return None, None
        except (Unreadable, ValidationError) as error:
            self._known(name)
            known = isinstance(error, ValidationError)
            told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise (ModelCorrupt if known else ModelUnreadable)(
                f"{name}: live.json cannot be read ({told}); restore it, or remove it and promote a version"
            ) from error


@contextmanager
def _told(what: str) -> Iterator[None]:
    """What the disk refuses is told as that."""
    try:
        yield
    except OSError as error:
        raise ModelUnreadable(f"{what} cannot be read ({error.strerror or error})") from error


def unservable(card: ModelCard) -> str | None:
    """Why a card cannot be served, whatever its graph; None if nothing is against it."""
    if card.conditional != bool(card.classes):
        return (
            f"its card has conditional {card.conditional} and {len(card.classes)} classes; "
            "expected classes for a conditional model and none for another"
        )
    if card.z > MOST_Z:
        return f"its card has latent vectors of more than {MOST_Z} numbers"
    if card.latent_recipe not in LATENT_RECIPES:
        return f"unknown latent recipe {card.latent_recipe!r}, expected one of {', '.join(LATENT_RECIPES)}"
    return None
