"""The model repository: cards, versions, the live pointer; read, publish, promote, roll back.

The layout is NVIDIA Triton's, so that ``tritonserver --model-repository=models`` serves the same folder::

    models/<name>/config.pbtxt              derived from the live version's card, never edited
    models/<name>/live.json                 the pointer that ganserve follows
    models/<name>/<version>/model.onnx      immutable
    models/<name>/<version>/card.json
    models/<name>/<version>/samples.png
    models/<name>/.highest                  the highest version ever given, so that none is given again
    models/<name>/.lock                     held by whoever writes

"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from pydantic import ValidationError

from ganserve import files, signature
from ganserve.card import (
    LivePointer,
    ModelCard,
    ModelCorrupt,
    ModelNotFound,
    PublishRefused,
    Unreadable,
    VersionNotFound,
    to_json,
)
from ganserve.latents import RECIPES as LATENT_RECIPES

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
VERSION = re.compile(r"[1-9][0-9]*")
STALE_STAGING_SECONDS = 3600.0
HIGHEST = ".highest"
# Of a card or a pointer; and of a graph, which protobuf cannot read beyond.
TEXT_BYTES, GRAPH_BYTES = 16 << 20, (1 << 31) - 1


class Repository:
    """The folder of models. Every method reads the disk anew: several processes share it."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def names(self) -> list[str]:
        """Models that have a version, and those whose folder cannot be looked into, sorted. Raises Unreadable."""
        try:
            found = [path for path in self.root.iterdir() if NAME.fullmatch(path.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise Unreadable(f"the models folder cannot be read: {error.strerror}") from error
        return sorted(path.name for path in found if self._may_have_versions(path))

    def versions(self, name: str) -> list[int]:
        """Versions of a model, ascending. Raises ModelNotFound, Unreadable."""
        with _told(f"{name}: its folder"):
            return self._versions(self._folder(name))

    def card(self, name: str, version: int) -> ModelCard:
        """The card as it is written. Raises ModelNotFound, VersionNotFound, ModelCorrupt."""
        path = self._file(name, version, "card.json")
        try:
            card = ModelCard.model_validate_json(files.read(path, TEXT_BYTES))
        except OSError as error:
            raise Unreadable(f"{name} version {version}: card.json cannot be read ({error.strerror})") from error
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
        path = self._folder(name) / "live.json"
        try:
            return LivePointer.model_validate_json(files.read(path, TEXT_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            kind, told = (
                (Unreadable, error.strerror)
                if isinstance(error, OSError)
                else (ModelCorrupt, error.errors()[0]["msg"])
            )
            raise kind(
                f"{name}: live.json cannot be read ({told}); restore it, or remove it and promote a version"
            ) from error

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
        try:
            content = files.read(self.model_path(name, version), GRAPH_BYTES)
        except OSError as error:
            raise Unreadable(f"{name} version {version}: model.onnx cannot be read ({error.strerror})") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != card.sha256:
            raise ModelCorrupt(
                f"{name} version {version}: model.onnx has sha256 {digest[:12]}..., its card says "
                f"{card.sha256[:12]}...; restore the file or publish it anew"
            )
        if reason := _unservable(card):
            raise ModelCorrupt(f"{name} version {version}: {reason}")
        return card, content

    def publish(self, card: ModelCard, onnx: bytes, samples_png: bytes, *, job_id: str | None = None) -> int:
        """Add the next version of ``card.name``, all of it or nothing; returns its number.

        The card's version and digest are set here. With a ``job_id`` that a version bears already, that version is
        the answer: a step that runs twice publishes once. The new version is not live until it is promoted.

        Raises:
            PublishRefused: the graph does not load, or does not give what the card says.
        """
        folder = self.root / card.name
        folder.mkdir(parents=True, exist_ok=True)
        files.sync_folder(self.root)
        digest = hashlib.sha256(onnx).hexdigest()
        card = card.model_copy(update={"sha256": digest, "file_bytes": len(onnx), "job_id": job_id or card.job_id})
        with self._locked(folder):
            self._sweep(folder)
            if job_id is not None and (found := self._of_job(card.name, job_id)) is not None:
                return found
            version = max(self._taken(folder), default=0) + 1
            card = card.model_copy(update={"version": version})
            staging = folder / f".staging-{uuid.uuid4().hex}"
            try:
                staging.mkdir()
                files.write(staging / "model.onnx", onnx)
                files.write(staging / "card.json", to_json(card))
                files.write(staging / "samples.png", samples_png)
                files.sync_folder(staging)
                _check(card, (staging / "model.onnx").read_bytes())
                os.rename(staging, folder / str(version))
                files.sync_folder(folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            # After the rename: until it is written, the folder itself holds the number.
            files.replace(folder / HIGHEST, f"{version}\n".encode())
            if not (folder / "config.pbtxt").exists():
                files.replace(folder / "config.pbtxt", signature.config_pbtxt(card, version).encode())
        return version

    def update_metrics(self, name: str, version: int, metrics: dict[str, Any]) -> ModelCard:
        """Merge measured scores into a card; the model itself never changes."""
        with self._locked(self._folder(name)):
            card = self.card(name, version)
            card = card.model_copy(update={"metrics": {**card.metrics, **metrics}})
            files.replace(self._version(name, version) / "card.json", to_json(card))
        return card

    def promote(self, name: str, version: int) -> LivePointer:
        """Make a sound version live. Raises VersionNotFound, ModelCorrupt; then nothing has changed."""
        card = self.verify(name, version)
        folder = self._folder(name)
        with self._locked(folder):
            before = self.live_pointer(name)
            if before is not None and before.version == version:
                pointer = before
            else:
                pointer = LivePointer(
                    version=version,
                    previous=before.version if before else None,
                    promoted_at=datetime.now(UTC),
                )
                files.replace(folder / "live.json", to_json(pointer))
            files.replace(folder / "config.pbtxt", signature.config_pbtxt(card, version).encode())
        return pointer

    def rollback(self, name: str) -> LivePointer:
        """Make the previous version live again. Raises VersionNotFound if there is none."""
        pointer = self.live_pointer(name)
        if pointer is None or pointer.previous is None:
            raise VersionNotFound(f"{name} has no previous version to roll back to; promote one by its number")
        return self.promote(name, pointer.previous)

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        with _told(f"{name}: its folder"):
            there = bool(NAME.fullmatch(name)) and not folder.is_symlink() and folder.is_dir()
        if not there:
            raise ModelNotFound(f"no model {name!r}: there are {', '.join(self.names()) or 'none yet'}")
        return folder

    def _version(self, name: str, version: int) -> Path:
        folder = self._folder(name)
        path = folder / str(version)
        with _told(f"{name}: its folder"):
            if version < 1 or path.is_symlink() or not path.is_dir():
                known = ", ".join(map(str, self._versions(folder))) or "none"
                raise VersionNotFound(f"{name} has no version {version}: there are {known}")
        return path

    def _file(self, name: str, version: int, file: str) -> Path:
        path = self._version(name, version) / file
        with _told(f"{name} version {version}: {file}"):
            if path.is_symlink():
                raise ModelCorrupt(f"{name} version {version}: {file} is a link; put the file itself in its place")
            if path.exists() and not path.is_file():
                raise ModelCorrupt(f"{name} version {version}: {file} is not a plain file")
        return path

    def _may_have_versions(self, path: Path) -> bool:
        try:
            return path.is_dir() and not path.is_symlink() and bool(self._versions(path))
        except OSError:
            return True

    @staticmethod
    def _versions(folder: Path) -> list[int]:
        return sorted(
            int(p.name) for p in folder.iterdir() if VERSION.fullmatch(p.name) and p.is_dir() and not p.is_symlink()
        )

    def _taken(self, folder: Path) -> list[int]:
        """Numbers that may not be given again: whatever stands in their place, and those of removed versions."""
        taken = [int(p.name) for p in folder.iterdir() if VERSION.fullmatch(p.name)]
        highest = folder / HIGHEST
        if highest.is_file() and VERSION.fullmatch(noted := highest.read_text().strip()):
            taken.append(int(noted))
        pointer = self.live_pointer(folder.name)
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

    @staticmethod
    def _sweep(folder: Path) -> None:
        """Remove what crashed publishers left; the lock says that none is at work."""
        for pattern in (".staging-*", f"*{files.PARTIAL}", f"*/*{files.PARTIAL}"):
            for leftover in folder.glob(pattern):
                if time.time() - leftover.lstat().st_mtime <= STALE_STAGING_SECONDS:
                    continue
                if leftover.is_dir() and not leftover.is_symlink():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink(missing_ok=True)

    @staticmethod
    @contextmanager
    def _locked(folder: Path) -> Iterator[None]:
        """One writer a model, over processes; the kernel frees the lock of a process that dies."""
        with (folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@contextmanager
def _told(what: str) -> Iterator[None]:
    """What the disk refuses is told as that."""
    try:
        yield
    except OSError as error:
        raise Unreadable(f"{what} cannot be read ({error.strerror})") from error


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
    """Digest, a card that can be served, graph signature and one run of what was written."""
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise PublishRefused(f"{card.name}: what was read back is not what was written; is the disk sound?")
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
