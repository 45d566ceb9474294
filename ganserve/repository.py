"""The model repository: cards, versions, the live pointer; read, publish, promote, roll back, remove.

The layout is NVIDIA Triton's, so that ``tritonserver --model-repository=models`` serves the same folder::

    models/<name>/config.pbtxt              derived from the live version's card, never edited
    models/<name>/live.json                 the pointer that ganserve follows
    models/<name>/<version>/model.onnx      immutable
    models/<name>/<version>/card.json
    models/<name>/<version>/samples.png
    models/<name>/<version>/weights.safetensors  beside an exact version: what a training can begin from
    models/<name>/<version>/measures.jsonl  measurements, one a line; no part of what the version promises
    models/<name>/.highest                  the highest version ever given, so that none is given again
    models/<name>/.removed                  versions that were taken away for good
    models/<name>/.lock                     held by whoever writes

A version never changes once it is there; only measurements are added beside it. It can be removed for good.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import onnxruntime

from ganserve import signature
from ganserve.card import (
    LivePointer,
    ModelCard,
    ModelCorrupt,
    PublishRefused,
    VersionLive,
    VersionNotFound,
    to_json,
)
from ganserve.reader import HIGHEST, MEASURES, REMOVED, VERSION, WEIGHTS, Reader, unservable
from ganserve.store import Missing, Unreadable


class Repository(Reader):
    """The models, to be read and written by several processes at once."""

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

    def record(self, name: str, version: int, measure: dict[str, Any]) -> None:
        """Add a measurement beside a version, which itself never changes. Raises as :meth:`card`."""
        self.card(name, version)
        line = json.dumps(measure, ensure_ascii=False).encode()
        self.store.append(f"{name}/{version}/{MEASURES}", line)

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

    def remove(self, name: str, version: int) -> None:
        """Take a version away for good: its files are gone, its number is never given again.

        Raises:
            VersionLive: nothing has changed.
            ModelNotFound, VersionNotFound, VersionRemoved
        """
        self._known(name, version)
        with self.store.exclusive(name):
            self._known(name, version)
            pointer, content = self._pointer(name)
            if pointer is not None and pointer.version == version:
                raise VersionLive(f"{name} version {version} is live: promote another version first")
            if pointer is not None and pointer.previous == version:
                # A roll back to it would find nothing.
                self.store.replace(f"{name}/live.json", to_json(pointer.model_copy(update={"previous": None})), content)
            self._put(f"{name}/{HIGHEST}", f"{max(self._taken(name))}\n".encode())
            gone = sorted({*self.removed(name), version})
            # Before the files go: a crash between leaves a version that can be removed again.
            self._put(f"{name}/{REMOVED}", "".join(f"{number}\n" for number in gone).encode())
            self.store.remove(f"{name}/{version}")

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


def _check(card: ModelCard, content: bytes) -> None:
    """A card that can be served, the graph's signature, and one run of it. Raises PublishRefused."""
    if reason := unservable(card):
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
