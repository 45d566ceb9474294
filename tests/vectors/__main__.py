"""Add an exact version's images to the known answers; what stands there already never changes."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np

from ganserve import signature
from ganserve.latents import MAX_SEED, latents
from ganserve.repository import Repository
from tests import vectors

SEEDS = (0, 1, 42, 255, 2**32 - 1, 2**32, 123456789012345, MAX_SEED - 1)


def described(repository: Repository, name: str, version: int) -> dict[str, Any]:
    """The version, and the digest of some of its images."""
    import onnxruntime

    card, content = repository.read(name, version)
    assert card.exact, "only an exact version is the same everywhere"
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    label = np.arange(len(SEEDS), dtype=np.int64) % max(len(card.classes), 1)
    images = session.run(None, signature.feeds(card, latents(card.latent_recipe, list(SEEDS), card.z), label))[0]
    told = card.model_dump(include={"name", "version", "sha256", "latent_recipe", "z", "classes", "exact_digest"})
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    listed = zip(label.tolist(), SEEDS, digests, strict=True)
    shape = list(card.image.model_dump().values())
    return told | {"image": shape, "images": [{"label": y, "seed": s, "sha256": d} for y, s, d in listed]}


def main() -> None:
    """Each version that is named and not there yet."""
    repository = Repository(vectors.HERE.parents[1] / "models")
    path = vectors.HERE / "exact.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    for asked in sys.argv[1:]:
        name, _, version = asked.partition(":")
        if not any((one["name"], one["version"]) == (name, int(version)) for one in known):
            known.append(described(repository, name, int(version)))
    lines = ",\n".join(json.dumps(one) for one in known)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
