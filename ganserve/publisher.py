"""The part of the model repository that publishes: versions, each once, each with a number of its own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import numpy as np
import onnxruntime

from ganserve import signature
from ganserve.card import (
    ModelCard,
    ModelCorrupt,
    ModelNotFound,
    PublishRefused,
    VersionNotFound,
    to_json,
)
from ganserve.reader import HIGHEST, REPORT, VERSION, WEIGHTS, Reader, unservable
from ganserve.store import COMMIT, Missing

JOBS = ".jobs"
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class Publisher(Reader):
    """The models, to be read and added to."""

    def publish(
        self,
        card: ModelCard,
        onnx: bytes,
        samples_png: bytes,
        *,
        job_id: str | None = None,
        weights: bytes | None = None,
        logged: bytes | None = None,
    ) -> int:
        """Add the next version of ``card.name``, all of it or nothing; returns its number.

        The card's version and digest are set here. With a ``job_id`` that a version bears already, that version is
        the answer: a step that runs twice publishes once. The new version is not live until it is promoted. ``weights``
        (.safetensors) are for trainings that begin from a graph that no longer holds them; ``logged`` is what the
        training logged, thinned, for people who ask how it went.

        Raises:
            PublishRefused: the graph does not load, or does not give what the card says.
        """
        digest = hashlib.sha256(onnx).hexdigest()
        told = {"sha256": digest, "file_bytes": len(onnx), "job_id": job_id or card.job_id}
        if weights is not None:
            told["weights_sha256"] = hashlib.sha256(weights).hexdigest()
        card = card.model_copy(update=told)
        given = {WEIGHTS: weights, REPORT: logged}
        name, beside = card.name, {part: content for part, content in given.items() if content is not None}
        self.store.ensure(name)
        with self.store.exclusive(name):
            self.store.sweep(name)
            if job_id is not None and (found := self._of_job(name, job_id)) is not None:
                return found
            _check(card, onnx)

            def create(version: int) -> bool:
                numbered = to_json(card.model_copy(update={"version": version}))
                parts = {"model.onnx": onnx, **beside, "samples.png": samples_png, COMMIT: numbered}
                return self.store.create(f"{name}/{version}", parts)

            version = self._next(name, create) if job_id is None else self._once(name, job_id, create)
            # After the version stands: until it is written, the version itself holds the number.
            self.raise_highest(name, version)
            if "config.pbtxt" not in self.store.names(name):
                self.put(f"{name}/config.pbtxt", signature.config_pbtxt(self.card(name, version), version).encode())
        return version

    def _next(self, name: str, create: Callable[[int], bool]) -> int:
        """Create the next version that nobody else does."""
        version = max(self.taken(name), default=0) + 1
        while not create(version):
            version += 1
        return version

    def _once(self, name: str, job_id: str, create: Callable[[int], bool]) -> int:
        """Create the one version of a job, however many work on it: all of them go by the number under its id.

        Who leaves a number for another seals it first, so that whoever is still at work there cannot come to an end.
        """
        key = marker(name, job_id)
        while True:
            try:
                noted: bytes | None = self.store.read(key)
            except Missing:
                noted = None
            if noted is None:
                self.store.replace(key, f"{max(self.taken(name), default=0) + 1}\n".encode(), None)
                continue
            version = int(noted)
            if version in self.removed(name) or create(version):
                return version
            self.store.seal(f"{name}/{version}")
            if self.store.exists(f"{name}/{version}") and self._job_of(name, version) == job_id:
                return version
            following = max([*self.taken(name), version]) + 1
            self.store.replace(key, f"{following}\n".encode(), noted)

    def raise_highest(self, name: str, version: int) -> None:
        """Note that a number was given; a higher one that is noted stays."""
        done = False
        while not done:
            noted = self._noted(name)
            before = None if noted is None else int(noted) if VERSION.fullmatch(noted.decode().strip()) else 0
            higher = before is not None and before >= version
            done = higher or self.store.replace(f"{name}/{HIGHEST}", f"{version}\n".encode(), noted)

    def put(self, key: str, content: bytes) -> None:
        """Replace a key that is derived, whatever stands there."""
        done = False
        while not done:
            try:
                before: bytes | None = self.store.read(key)
            except Missing:
                before = None
            done = before == content or self.store.replace(key, content, before)

    def taken(self, name: str) -> list[int]:
        """Numbers that may not be given again: whatever stands in their place, and those of removed versions."""
        taken = [int(entry) for entry in self.store.names(name) if VERSION.fullmatch(entry)]
        noted = (self._noted(name) or b"").decode("ascii", "replace").strip()
        if VERSION.fullmatch(noted):
            taken.append(int(noted))
        try:
            pointer = self.live_pointer(name)
        except ModelNotFound:
            # In an object store there is no model before its first key.
            pointer = None
        if pointer is not None:
            taken += [pointer.version, *([pointer.previous] if pointer.previous else [])]
        return taken

    def _noted(self, name: str) -> bytes | None:
        """What stands for the highest number ever given."""
        try:
            return self.store.read(f"{name}/{HIGHEST}")
        except Missing:
            return None

    def _of_job(self, name: str, job_id: str) -> int | None:
        found = self.store.created(name)
        versions = sorted(int(folder) for folder in found if VERSION.fullmatch(folder))
        return next((version for version in versions if self._job_of(name, version) == job_id), None)

    def _job_of(self, name: str, version: int) -> str | None:
        """The job that made a version, as its card says."""
        try:
            return self.card(name, version).job_id
        except (ModelCorrupt, VersionNotFound):
            return None


def marker(name: str, job_id: str) -> str:
    """The key under which a job's number is noted."""
    return f"{name}/{JOBS}/{job_id if PLAIN.fullmatch(job_id) else hashlib.sha256(job_id.encode()).hexdigest()}"


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
