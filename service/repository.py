"""The model repository: cards, versions, the live pointer; read, publish, promote, roll back.

The layout is NVIDIA Triton's, so that ``tritonserver --model-repository=models`` serves the same folder::

    models/<name>/config.pbtxt              derived from the live version's card, never edited
    models/<name>/live.json                 the pointer that ganserve follows
    models/<name>/<version>/model.onnx      immutable
    models/<name>/<version>/card.json
    models/<name>/<version>/samples.png
    models/<name>/.highest                  the highest version ever given, so that none is given again
    models/<name>/.lock                     held by whoever writes

    RepositoryError
    ├── ModelNotFound
    ├── VersionNotFound
    ├── ModelCorrupt      what is on disk is not what its card says
    └── PublishRefused    what was handed over is not a servable model
"""

from __future__ import annotations

import fcntl
import hashlib
import json
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
from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from service.latents import RECIPES as LATENT_RECIPES

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
VERSION = re.compile(r"[1-9][0-9]*")
MAX_BATCH_SIZE = 64
STALE_STAGING_SECONDS = 3600.0
HIGHEST = ".highest"
PARTIAL = ".partial"


class RepositoryError(RuntimeError):
    """Anything that the repository refuses; the message says what would be right."""


class ModelNotFound(RepositoryError):  # noqa: N818
    """No model of that name."""


class VersionNotFound(RepositoryError):  # noqa: N818
    """The model has no such version."""


class ModelCorrupt(RepositoryError):  # noqa: N818
    """A version whose files do not agree with its card; it is never loaded."""


class PublishRefused(RepositoryError):  # noqa: N818
    """A model that failed its check; nothing was published."""


class ImageShape(BaseModel):
    """Pixels."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    channels: int = Field(ge=1, le=4)


class ModelCard(BaseModel):
    """What a version is, how it was made and how good it is."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: int = Field(ge=1)
    recipe: str
    source: str
    dataset: str
    created_at: AwareDatetime
    conditional: bool
    classes: list[str]
    z: int = Field(ge=1)
    latent_recipe: str
    # Whole numbers only: the same bytes on every processor, as the digest of 256 named addresses proves.
    exact: bool = False
    exact_digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    image: ImageShape
    opset: int
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    file_bytes: int
    parameters: int
    macs: int | None = None
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    notes: list[str] = []
    job_id: str | None = None


class LivePointer(BaseModel):
    """The content of ``live.json``."""

    version: int = Field(ge=1)
    previous: int | None = None
    promoted_at: AwareDatetime


class Repository:
    """The folder of models. Every method reads the disk anew: several processes share it."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def names(self) -> list[str]:
        """Models that have a version, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(
            p.name
            for p in self.root.iterdir()
            if NAME.fullmatch(p.name) and p.is_dir() and not p.is_symlink() and self._versions(p)
        )

    def versions(self, name: str) -> list[int]:
        """Versions of a model, ascending. Raises ModelNotFound."""
        return self._versions(self._folder(name))

    def card(self, name: str, version: int) -> ModelCard:
        """The card as it is written. Raises ModelNotFound, VersionNotFound, ModelCorrupt."""
        path = self._file(name, version, "card.json")
        try:
            card = ModelCard.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ModelCorrupt(f"{name} version {version}: card.json cannot be read ({error.strerror})") from error
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
            return LivePointer.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            told = error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"]
            raise ModelCorrupt(
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
            content = self.model_path(name, version).read_bytes()
        except OSError as error:
            raise ModelCorrupt(f"{name} version {version}: model.onnx cannot be read ({error.strerror})") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != card.sha256:
            raise ModelCorrupt(
                f"{name} version {version}: model.onnx has sha256 {digest[:12]}..., its card says "
                f"{card.sha256[:12]}...; restore the file or publish it anew"
            )
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
        _sync_folder(self.root)
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
                _write(staging / "model.onnx", onnx)
                _write(staging / "card.json", _json(card))
                _write(staging / "samples.png", samples_png)
                _sync_folder(staging)
                _check(card, (staging / "model.onnx").read_bytes())
                os.rename(staging, folder / str(version))
                _sync_folder(folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            # After the rename: until it is written, the folder itself holds the number.
            _replace(folder / HIGHEST, f"{version}\n".encode())
            if not (folder / "config.pbtxt").exists():
                _replace(folder / "config.pbtxt", self.config_pbtxt(card, version).encode())
        return version

    def update_metrics(self, name: str, version: int, metrics: dict[str, Any]) -> ModelCard:
        """Merge measured scores into a card; the model itself never changes."""
        with self._locked(self._folder(name)):
            card = self.card(name, version)
            card = card.model_copy(update={"metrics": {**card.metrics, **metrics}})
            _replace(self._version(name, version) / "card.json", _json(card))
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
                _replace(folder / "live.json", _json(pointer))
            _replace(folder / "config.pbtxt", self.config_pbtxt(card, version).encode())
        return pointer

    def rollback(self, name: str) -> LivePointer:
        """Make the previous version live again. Raises VersionNotFound if there is none."""
        pointer = self.live_pointer(name)
        if pointer is None or pointer.previous is None:
            raise VersionNotFound(f"{name} has no previous version to roll back to; promote one by its number")
        return self.promote(name, pointer.previous)

    def config_pbtxt(self, card: ModelCard, live: int) -> str:
        """Triton's model configuration for a card."""
        inputs = [f'{{ name: "latent" data_type: TYPE_FP32 dims: [ {card.z} ] }}']
        if card.conditional:
            inputs.append('{ name: "label" data_type: TYPE_INT64 dims: [ 1 ] }')
        shape = f"{card.image.height}, {card.image.width}, {card.image.channels}"
        listed = ",\n  ".join(inputs)
        return (
            f'name: "{card.name}"\n'
            'backend: "onnxruntime"\n'
            f"max_batch_size: {MAX_BATCH_SIZE}\n"
            f"input [\n  {listed}\n]\n"
            f'output [\n  {{ name: "image" data_type: TYPE_UINT8 dims: [ {shape} ] }}\n]\n'
            "dynamic_batching { }\n"
            f"version_policy {{ specific {{ versions: [ {live} ] }} }}\n"
        )

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        if not NAME.fullmatch(name) or folder.is_symlink() or not folder.is_dir():
            raise ModelNotFound(f"no model {name!r}: there are {', '.join(self.names()) or 'none yet'}")
        return folder

    def _version(self, name: str, version: int) -> Path:
        folder = self._folder(name)
        path = folder / str(version)
        if version < 1 or path.is_symlink() or not path.is_dir():
            known = ", ".join(map(str, self._versions(folder))) or "none"
            raise VersionNotFound(f"{name} has no version {version}: there are {known}")
        return path

    def _file(self, name: str, version: int, file: str) -> Path:
        path = self._version(name, version) / file
        if path.is_symlink():
            raise ModelCorrupt(f"{name} version {version}: {file} is a link; put the file itself in its place")
        return path

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
        for pattern in (".staging-*", f"*{PARTIAL}", f"*/*{PARTIAL}"):
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


def _check(card: ModelCard, content: bytes) -> None:
    """Digest, a card that can be served, graph signature and one run of what was written."""
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise PublishRefused(f"{card.name}: what was read back is not what was written; is the disk sound?")
    if card.conditional != bool(card.classes):
        raise PublishRefused(
            f"{card.name}: its card has conditional {card.conditional} and {len(card.classes)} classes; "
            "expected classes for a conditional model and none for another"
        )
    if card.latent_recipe not in LATENT_RECIPES:
        raise PublishRefused(
            f"{card.name}: unknown latent recipe {card.latent_recipe!r}, expected one of {', '.join(LATENT_RECIPES)}"
        )
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many private kinds
        raise PublishRefused(f"{card.name}: onnxruntime cannot load the graph: {error}") from error
    inputs = {i.name: (i.type, i.shape[1:]) for i in session.get_inputs()}
    expected: dict[str, Any] = {"latent": ("tensor(float)", [card.z])}
    if card.conditional:
        expected["label"] = ("tensor(int64)", [1])
    if inputs != expected:
        raise PublishRefused(f"{card.name}: the graph's inputs are {inputs}, expected {expected}")
    if [(o.name, o.type) for o in session.get_outputs()] != [("image", "tensor(uint8)")]:
        raise PublishRefused(f"{card.name}: the graph must have one output, image of uint8")
    fixed = [i.name for i in session.get_inputs() if isinstance(i.shape[0], int)]
    if fixed:
        raise PublishRefused(f"{card.name}: the batch dimension of {', '.join(fixed)} is fixed, expected symbolic")
    feeds: dict[str, Any] = {"latent": np.zeros((3, card.z), np.float32)}
    if card.conditional:
        feeds["label"] = np.full((3, 1), len(card.classes) - 1, np.int64)
    try:
        shape = session.run(None, feeds)[0].shape
    except Exception as error:  # as above; a label past the graph's last class ends here
        classes = f" and the last of {len(card.classes)} classes" if card.conditional else ""
        raise PublishRefused(f"{card.name}: the graph does not run on 3 rows{classes}: {error}") from error
    if shape != (3, card.image.height, card.image.width, card.image.channels):
        raise PublishRefused(f"{card.name}: the graph gives images {shape}, its card says {card.image}")


def _json(model: BaseModel) -> bytes:
    return (json.dumps(model.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, content: bytes) -> None:
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        _write(staged, content)
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
