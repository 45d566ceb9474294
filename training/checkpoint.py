"""Checkpoints: atomic to write, checked by their digest when read, the latest two kept.

A file is a SHA-256 digest (32 bytes) and a ``torch.save`` payload that loads with ``weights_only``.
"""

from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path
from typing import Any

import torch

from ganserve import files

KEPT = 2
# The first checkpoint of a process comes so soon, and none sooner after another than a moment: it must not cost much.
SOON_SECONDS, MOMENT_SECONDS = 2.0, 1.0
SHARE = 1 / 20


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged, or none where one is needed."""


class Schedule:
    """When the next checkpoint of this process is due.

    Soon after it began, then after twice the time each, up to ``seconds``; and with each twentieth of the run. So a
    process that is killed again and again gets further each time, however short it lives and however long the run is.

    Args:
        step: where this process begins.
        total: steps of the whole run.
        seconds: the longest time between two checkpoints.
    """

    def __init__(self, step: int, total: int, seconds: float = 60.0) -> None:
        self.total, self.seconds = total, seconds
        self._step, self._at, self._wait = step, time.monotonic(), SOON_SECONDS

    def due(self, step: int) -> bool:
        """Whether it is time, after so many steps of the run."""
        since = time.monotonic() - self._at
        by_share = step - self._step >= self.total * SHARE and since >= MOMENT_SECONDS
        return by_share or since >= min(self._wait, self.seconds)

    def saved(self, step: int) -> None:
        """Note that a checkpoint stands."""
        self._step, self._at, self._wait = step, time.monotonic(), 2 * self._wait


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
