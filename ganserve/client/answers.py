"""What the service's answers mean: documents to values that name their parts.

Members that this version does not know are passed over, so that a newer server can be asked too.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganserve import errors
from ganserve.client.exchange import Reply

ENDED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class Model:
    """A model of the server.

    Attributes:
        live: the version that is served where none is named; None before the first promotion.
        previous: the version that was live before.
        versions: all numbers, ascending.
        default: whether requests that name no model get this one.
        left_out: why it is not served, where it is not.
        card: the live version's card: classes, image size, how it was made, how good it is.
    """

    name: str
    live: int | None
    previous: int | None
    versions: tuple[int, ...]
    default: bool
    left_out: str | None = None
    card: Mapping[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Model:
        """From the service's document. Raises KeyError, TypeError for another."""
        return cls(
            told["name"],
            told["live"],
            told["previous"],
            tuple(told["versions"]),
            told["default"],
            told.get("left_out"),
            told.get("card"),
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The live version's classes."""
        return tuple((self.card or {}).get("classes", ()))


@dataclass(frozen=True)
class Job:
    """A retraining job as it stood when it was asked for.

    Attributes:
        state: ``queued``, ``running``, ``succeeded``, ``failed`` or ``cancelled``.
        request: what was asked for.
        progress: images seen and their total, losses, metrics; None before training.
        result: the version and the gate's verdict, at the end.
        error: why it failed.
        note: what its user should know, such as that no worker runs.
    """

    id: str
    state: str
    request: Mapping[str, Any] = field(repr=False)
    step: str | None = None
    progress: Mapping[str, Any] | None = field(default=None, repr=False)
    result: Mapping[str, Any] | None = None
    error: str | None = None
    created_at: datetime | None = field(default=None, repr=False)
    started_at: datetime | None = field(default=None, repr=False)
    finished_at: datetime | None = field(default=None, repr=False)
    attempts: int = field(default=0, repr=False)
    worker: str | None = field(default=None, repr=False)
    note: str | None = None

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Job:
        """From the service's document. Raises KeyError, TypeError, ValueError for another."""
        known = {name: told[name] for name in cls.__dataclass_fields__ if told.get(name) is not None}
        for name in ("created_at", "started_at", "finished_at"):
            if name in known:
                known[name] = datetime.fromisoformat(known[name])
        return cls(**known)

    @property
    def finished(self) -> bool:
        """Whether nothing about it will change any more."""
        return self.state in ENDED


@dataclass(frozen=True)
class Dataset:
    """An uploaded data set: ``classes`` has the number of images of each."""

    name: str
    classes: Mapping[str, int]
    images: int
    bytes: int
    created_at: datetime

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Dataset:
        """From the service's document. Raises KeyError, TypeError, ValueError for another."""
        created = datetime.fromisoformat(told["created_at"])
        return cls(told["name"], dict(told["classes"]), told["images"], told["bytes"], created)


def document(reply: Reply) -> Any:
    """The answer's JSON. Raises errors.BadAnswer for anything else."""
    try:
        return json.loads(reply.content)
    except (ValueError, RecursionError):
        kind = reply.headers.get("Content-Type", "no type")
        raise errors.BadAnswer(f"the answer is no JSON but {kind[:80]}: is this the address of the service?") from None


def told_as(read: Any, told: Any) -> Any:
    """``read(told)``. Raises errors.BadAnswer where the document is another than expected."""
    try:
        return read(told)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise errors.BadAnswer(f"the answer is not what was expected ({error!r}): is this the service?") from error


def arrays(reply: Reply) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint64]]:
    """Images, labels and seeds of an NPZ. Raises errors.BadAnswer for anything else."""
    try:
        with np.load(io.BytesIO(reply.content), allow_pickle=False) as found:
            images, labels, seeds = found["images"], found["labels"], found["seeds"]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        kind = reply.headers.get("Content-Type", "no type")
        raise errors.BadAnswer(f"the answer is no NPZ of images but {kind[:80]}: is this the service?") from error
    whole = images.dtype == np.uint8 and images.ndim == 4 and labels.dtype == np.int64 and seeds.dtype == np.uint64
    if not whole or not len(images) == len(labels) == len(seeds):
        raise errors.BadAnswer(f"the NPZ holds images {images.dtype} {images.shape}: is this the service?")
    return images, labels, seeds


def made_by(reply: Reply) -> tuple[str, int, str]:
    """Model, version and latent recipe of generated images. Raises errors.BadAnswer where they are not told."""
    told = reply.headers
    try:
        return told["X-Model"], int(told["X-Model-Version"]), told["X-Latent-Recipe"]
    except (KeyError, ValueError):
        raise errors.BadAnswer("the answer does not tell model and version: is this the service?") from None
