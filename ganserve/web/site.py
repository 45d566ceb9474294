"""Write the static folder of one exact version."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from ganserve import errors, marks
from ganserve.card import ModelCard, ModelNotFound, RepositoryError, VersionNotFound
from ganserve.grid import STEPS, THRESHOLDS
from ganserve.repository import Repository
from ganserve.web.runtime import Runtime

# What the files of one folder are, for their readers.
PAGE = ("index.html", "page.css", "page.js", "generator.js", "latents.js", "picture.js")


def write(model: Path, target: Path, runtime: Runtime, version: int | None = None) -> ModelCard:
    """Write the folder ``target`` for a version of the model in ``REPOSITORY/NAME`` (None: the live one); its card.

    The folder appears whole or not at all.

    Raises:
        errors.NotFound: no such model or version.
        errors.Unavailable: the version's files are not what its card says.
        errors.Invalid: the version is not exact, or ``target`` holds something already.
    """
    card, content = _read(model, version)
    if not card.exact:
        raise errors.Invalid(
            f"{card.name} version {card.version} is a float version, whose pictures may differ between machines: make "
            f"an exact one with ganserve export {card.name}:{card.version}, and name that"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise errors.Invalid(f"{target} holds something already: name a new folder, or an empty one")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as made:
        staged = Path(made) / "site"
        (staged / "runtime").mkdir(parents=True)
        page = files("ganserve.web").joinpath("page")
        for name in PAGE:
            (staged / name).write_bytes(page.joinpath(name).read_bytes())
        (staged / "model.onnx").write_bytes(content)
        (staged / "model.json").write_text(json.dumps(_described(card)) + "\n", encoding="utf-8")
        for path in runtime.files:
            shutil.copyfile(path, staged / "runtime" / path.name)
        os.replace(staged, target)
    return card


def _read(model: Path, version: int | None) -> tuple[ModelCard, bytes]:
    place = model.resolve()
    repository = Repository(place.parent)
    try:
        chosen = version or repository.live(place.name)
        if chosen is None:
            raise errors.NotFound(f"{place.name} has no live version yet: name one with --version")
        return repository.read(place.name, chosen)
    except (ModelNotFound, VersionNotFound) as error:
        raise errors.NotFound(str(error)) from error
    except RepositoryError as error:
        raise errors.Unavailable(str(error)) from error


def _described(card: ModelCard) -> dict[str, Any]:
    """What the page needs of a card, and the recipe of its latents."""
    normal = card.latent_recipe == "philox-grid/v1"
    return {
        **card.model_dump(include={"name", "version", "classes", "z", "latent_recipe", "sha256", "exact_digest"}),
        "image": card.image.model_dump(),
        "mark": base64.b64encode(marks.PNG).decode(),
        "grid": {"steps": STEPS[card.latent_recipe], "thresholds": THRESHOLDS.tolist() if normal else None},
    }
