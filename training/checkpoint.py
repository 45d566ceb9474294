"""Checkpoints: atomic to write, checked by their digest when read, the latest two kept.

A file is a SHA-256 digest (32 bytes) and a ``torch.save`` payload that loads with ``weights_only``.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from ganserve import files

KEPT = 2


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged, or none where one is needed."""


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write ``state`` as the checkpoint of ``step``; the older ones but one are removed after it stands."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    path = folder / f"step-{step:09d}.pt"
    files.replace(path, hashlib.sha256(payload).digest() + payload)
    for old in _all(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def load(path: Path) -> dict[str, Any]:
    """The state that was saved.

    Raises:
        CheckpointError: the digest does not match.
    """
    content = path.read_bytes()
    digest, payload = content[:32], content[32:]
    if hashlib.sha256(payload).digest() != digest:
        raise CheckpointError(f"checkpoint {path.name} is damaged: its digest does not match")
    state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True)
    return state


def latest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest sound state, or None, and a warning for each damaged file that was passed over."""
    warnings: list[str] = []
    for path in reversed(_all(folder)):
        try:
            return load(path), warnings
        except CheckpointError as error:
            warnings.append(f"{error}; trying the one before it")
    return None, warnings


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"))
