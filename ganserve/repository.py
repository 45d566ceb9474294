"""The model repository: cards, versions, the live pointer; read, publish, promote, roll back.

The layout is NVIDIA Triton's, so that ``tritonserver --model-repository=models`` serves the same folder::

    models/<name>/config.pbtxt              derived from the live version's card, never edited
    models/<name>/live.json                 the pointer that ganserve follows
    models/<name>/<version>/model.onnx      immutable
    models/<name>/<version>/card.json
    models/<name>/<version>/samples.png
    models/<name>/<version>/weights.safetensors  beside an exact version: what a training can begin from
    models/<name>/<version>/measures.jsonl  measurements, one a line; no part of what the version promises
    models/<name>/.highest                  the highest version ever given, so that none is given again
    models/<name>/.lock                     held by whoever writes

A version never changes once it is there; only measurements are added beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from pydantic import ValidationError

from ganserve import signature
from ganserve.card import (
    NAME,
    LivePointer,
    ModelCard,
    ModelCorrupt,
    ModelNotFound,
    ModelUnreadable,
    PublishRefused,
    VersionNotFound,
    to_json,
)
from ganserve.latents import RECIPES as LATENT_RECIPES
from ganserve.store import FolderStore, Missing, Unreadable

VERSION = re.compile(r"[1-9][0-9]*")
HIGHEST = ".highest"
MEASURES, WEIGHTS = "measures.jsonl", "weights.safetensors"


class Repository:
    """The models. Every method reads the store anew: several processes share it."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.store = FolderStore(self.root)

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
        return self._file(name, version, "model.onnx")

    def samples_path(self, name: str, version: int) -> Path:
        """Where ``samples.png`` is. Raises ModelNotFound, VersionNotFound, ModelCorrupt for a link."""
        return self._file(name, version, "samples.png")

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
        content = self._part(name, version, "model.onnx")
        digest = hashlib.sha256(content).hexdigest()
        if digest != card.sha256:
            raise ModelCorrupt(
                f"{name} version {version}: model.onnx has sha256 {digest[:12]}..., its card says "
                f"{card.sha256[:12]}...; restore the file or publish it anew"
            )
        if reason := _unservable(card):
            raise ModelCorrupt(f"{name} version {version}: {reason}")
        return card, content

    def publish(
        self,
        card: ModelCard,
        onnx: bytes,
        samples_png: bytes,
        *,
        job_id: str | None = None,
        weights: bytes | None = None,
    ) -> int:
        """Add the next version of ``card.name``, all of it or nothing; returns its number.

        The card's version and digest are set here. With a ``job_id`` that a version bears already, that version is
        the answer: a step that runs twice publishes once. The new version is not live until it is promoted. ``weights``
        (.safetensors) are for trainings that begin from a graph that no longer holds them.

        Raises:
            PublishRefused: the graph does not load, or does not give what the card says.
        """
        digest = hashlib.sha256(onnx).hexdigest()
        told = {"sha256": digest, "file_bytes": len(onnx), "job_id": job_id or card.job_id}
        if weights is not None:
            told["weights_sha256"] = hashlib.sha256(weights).hexdigest()
        card = card.model_copy(update=told)
        self.store.path(card.name).mkdir(parents=True, exist_ok=True)
        with self.store.exclusive(card.name):
            self.store.sweep(card.name)
            if job_id is not None and (found := self._of_job(card.name, job_id)) is not None:
                return found
            _check(card, onnx)
            version = max(self._taken(card.name), default=0)
            created = False
            while not created:
                version += 1
                card = card.model_copy(update={"version": version})
                beside = {} if weights is None else {WEIGHTS: weights}
                parts = {"model.onnx": onnx, **beside, "samples.png": samples_png, "card.json": to_json(card)}
                created = self.store.create(f"{card.name}/{version}", parts)
            # After the version stands: until it is written, the version itself holds the number.
            self._put(f"{card.name}/{HIGHEST}", f"{version}\n".encode())
            if "config.pbtxt" not in self.store.names(card.name):
                self._put(f"{card.name}/config.pbtxt", signature.config_pbtxt(card, version).encode())
        return version

    def weights(self, card: ModelCard) -> bytes | None:
        """The float weights beside a version, where there are some. Raises ModelCorrupt if they are not its card's."""
        if card.weights_sha256 is None:
            return None
        content = self._part(card.name, card.version, WEIGHTS)
        if hashlib.sha256(content).hexdigest() != card.weights_sha256:
            raise ModelCorrupt(f"{card.name} version {card.version}: {WEIGHTS} is not what its card says")
        return content

    def record(self, name: str, version: int, measure: dict[str, Any]) -> None:
        """Add a measurement beside a version, which itself never changes. Raises as :meth:`card`."""
        self.card(name, version)
        line = json.dumps(measure, ensure_ascii=False).encode()
        self.store.append(f"{name}/{version}/{MEASURES}", line)

    def measures(self, name: str, version: int) -> list[dict[str, Any]]:
        """The measurements that were added, oldest first; a line that a crash cut short is passed over."""
        self._known(name, version)
        try:
            lines = self.store.read(f"{name}/{version}/{MEASURES}").splitlines()
        except (Missing, Unreadable):
            return []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return [measure for measure in found if isinstance(measure, dict)]

    def scores(self, name: str, version: int) -> dict[str, Any]:
        """How good a version is known to be: its last measurement, else the one that its card was published with."""
        measures = self.measures(name, version)
        return measures[-1] if measures else self.card(name, version).metrics

    def promote(self, name: str, version: int) -> LivePointer:
        """Make a sound version live. Raises VersionNotFound, ModelCorrupt; then nothing has changed."""
        self.verify(name, version)
        moved = False
        while not moved:
            before, content = self._pointer(name)
            if before is not None and before.version == version:
                pointer = before
                break
            previous = before.version if before else None
            pointer = LivePointer(version=version, previous=previous, promoted_at=datetime.now(UTC))
            moved = self.store.replace(f"{name}/live.json", to_json(pointer), content)
        self.mend(name)
        return pointer

    def mend(self, name: str) -> None:
        """Bring ``config.pbtxt`` in line with the live pointer, however many others move it meanwhile."""
        live = None
        while (now := self.live(name)) is not None and now != live:
            live = now
            self._put(f"{name}/config.pbtxt", signature.config_pbtxt(self.card(name, live), live).encode())

    def rollback(self, name: str) -> LivePointer:
        """Make the previous version live again. Raises VersionNotFound if there is none."""
        pointer = self.live_pointer(name)
        if pointer is None or pointer.previous is None:
            raise VersionNotFound(f"{name} has no previous version to roll back to; promote one by its number")
        return self.promote(name, pointer.previous)

    def _known(self, name: str, version: int | None = None) -> None:
        """Raises ModelNotFound, VersionNotFound, ModelUnreadable."""
        with _told("the models folder"):
            there = bool(NAME.fullmatch(name)) and name in self.store.folders()
        if not there:
            raise ModelNotFound(f"no model {name!r}: there are {', '.join(self.names()) or 'none yet'}")
        with _told(f"{name}: its folder"):
            if version is not None and str(version) not in self.store.folders(name):
                known = ", ".join(map(str, self._versions(name))) or "none"
                raise VersionNotFound(f"{name} has no version {version}: there are {known}")

    def _may_have_versions(self, name: str) -> bool:
        try:
            return bool(self._versions(name))
        except OSError:
            return True

    def _versions(self, name: str) -> list[int]:
        return sorted(int(folder) for folder in self.store.folders(name) if VERSION.fullmatch(folder))

    def _part(self, name: str, version: int, part: str) -> bytes:
        self._known(name, version)
        try:
            return self.store.read(f"{name}/{version}/{part}")
        except Missing as error:
            raise ModelCorrupt(f"{name} version {version}: {part} cannot be read ({error})") from error
        except Unreadable as error:
            raise ModelUnreadable(f"{name} version {version}: {part} cannot be read ({error})") from error

    def _file(self, name: str, version: int, part: str) -> Path:
        self._known(name, version)
        path = self.store.path(f"{name}/{version}/{part}")
        if path.is_symlink():
            raise ModelCorrupt(f"{name} version {version}: {part} is a link; put the file itself in its place")
        with _told(f"{name} version {version}: {part}"):
            if path.exists() and not path.is_file():
                raise ModelCorrupt(f"{name} version {version}: {part} is no regular file")
        return path

    def _pointer(self, name: str) -> tuple[LivePointer | None, bytes | None]:
        """The pointer, and the very bytes that it was read from."""
        self._known(name)
        try:
            content = self.store.read(f"{name}/live.json")
            return LivePointer.model_validate_json(content), content
        except Missing:
            return None, None
        except (Unreadable, ValidationError) as error:
            known = isinstance(error, ValidationError)
            told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise (ModelCorrupt if known else ModelUnreadable)(
                f"{name}: live.json cannot be read ({told}); restore it, or remove it and promote a version"
            ) from error

    def _put(self, key: str, content: bytes) -> None:
        """Replace a key that is derived, whatever stands there."""
        done = False
        while not done:
            try:
                before: bytes | None = self.store.read(key)
            except Missing:
                before = None
            done = before == content or self.store.replace(key, content, before)

    def _taken(self, name: str) -> list[int]:
        """Numbers that may not be given again: whatever stands in their place, and those of removed versions."""
        taken = [int(entry) for entry in self.store.names(name) if VERSION.fullmatch(entry)]
        try:
            noted = self.store.read(f"{name}/{HIGHEST}").decode("ascii", "replace").strip()
        except (Missing, Unreadable):
            noted = ""
        if VERSION.fullmatch(noted):
            taken.append(int(noted))
        pointer = self.live_pointer(name)
        if pointer is not None:
            taken += [pointer.version, *([pointer.previous] if pointer.previous else [])]
        return taken

    def _of_job(self, name: str, job_id: str) -> int | None:
        for version in self.versions(name):
            try:
                if self.card(name, version).job_id == job_id:
                    return version
            except ModelCorrupt:
                continue
        return None


@contextmanager
def _told(what: str) -> Iterator[None]:
    """What the disk refuses is told as that."""
    try:
        yield
    except OSError as error:
        raise ModelUnreadable(f"{what} cannot be read ({error.strerror})") from error


def _unservable(card: ModelCard) -> str | None:
    """Why a card cannot be served, whatever its graph; None if nothing is against it."""
    if card.conditional != bool(card.classes):
        return (
            f"its card has conditional {card.conditional} and {len(card.classes)} classes; "
            "expected classes for a conditional model and none for another"
        )
    if card.latent_recipe not in LATENT_RECIPES:
        return f"unknown latent recipe {card.latent_recipe!r}, expected one of {', '.join(LATENT_RECIPES)}"
    return None


def _check(card: ModelCard, content: bytes) -> None:
    """A card that can be served, the graph's signature, and one run of it. Raises PublishRefused."""
    if reason := _unservable(card):
        raise PublishRefused(f"{card.name}: {reason}")
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many private kinds
        raise PublishRefused(f"{card.name}: onnxruntime cannot load the graph: {error}") from error
    try:
        signature.check(session, card)
    except signature.SignatureMismatch as error:
        raise PublishRefused(f"{card.name}: {error}") from error
    last = np.full(3, len(card.classes) - 1, np.int64)
    feeds = signature.feeds(card, np.zeros((3, card.z), np.float32), last)
    try:
        shape = session.run(None, feeds)[0].shape
    except Exception as error:  # as above; a label past the graph's last class ends here
        classes = f" and the last of {len(card.classes)} classes" if card.conditional else ""
        raise PublishRefused(f"{card.name}: the graph does not run on 3 rows{classes}: {error}") from error
    if shape != (3, card.image.height, card.image.width, card.image.channels):
        raise PublishRefused(f"{card.name}: the graph gives images {shape}, its card says {card.image}")
