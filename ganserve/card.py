"""What a version of a model is, in words and numbers; and every way in which the repository can refuse.

RepositoryError
├── ModelNotFound
├── VersionNotFound
│   └── VersionRemoved      there was one, and it was taken away for good
├── VersionLive             it is live, so it cannot be removed
├── PointerMoved            another version went live than the one that was to be replaced
├── ModelCorrupt            what is on disk is not what its card says
│   ├── ModelUnreadable     the disk does not give it; it may again in a moment
│   └── ModelRefused        it is what its card says, and cannot be served
└── PublishRefused          what was handed over is not a servable model
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import AwareDatetime, BaseModel, Field

MAX_BATCH_SIZE = 64
# Longer names are none, whatever a file system takes.
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,199}")
MOST_VERSIONS = 2**31


class RepositoryError(RuntimeError):
    """Anything that the repository refuses; the message says what would be right."""


class ModelNotFound(RepositoryError):  # noqa: N818
    """No model of that name."""


class VersionNotFound(RepositoryError):  # noqa: N818
    """The model has no such version."""


class VersionRemoved(VersionNotFound):
    """The version was removed; its number is never given again."""


class VersionLive(RepositoryError):  # noqa: N818
    """The version is live: another must be, before this one can be removed."""


class PointerMoved(RepositoryError):  # noqa: N818
    """The live pointer is not the one that was to be replaced."""


class ModelCorrupt(RepositoryError):  # noqa: N818
    """A version whose files do not agree with its card; it is never loaded."""


class ModelUnreadable(ModelCorrupt):
    """The disk refuses a file or a folder, or does not answer; nothing is known against what is in it."""


class ModelRefused(ModelCorrupt):
    """Its graph is the one that its card names, and it cannot be opened, or not as the card promises."""


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
    # Of weights.safetensors beside an exact version: the float weights that a training can begin from.
    weights_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
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


def to_json(model: BaseModel) -> bytes:
    """The bytes of ``card.json`` and ``live.json``."""
    return (json.dumps(model.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()
