"""A job's folders: one for each attempt, which begins with what the attempt before it left.

<data>/runs/<job>/attempt-N/     the run of the N-th attempt (training/run.py)
<data>/runs/<job>/export/        the job's own repository, before anything is public
<data>/runs/<job>/float/         the same with the float graph that the exact one is held against
<data>/weights/<sha256>          weights of published versions, named by their graph
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

EXPORT, FLOAT = "export", "float"


def begin_attempt(job: Path, number: int | None = None, further: str = "") -> Path:
    """A new folder ``attempt-N`` that holds what the attempt before it left.

    Each attempt writes into its own folder, so a worker that was taken for dead and comes back late cannot
    touch the run of the one that took over.

    Args:
        number: of the attempt; None: the next one here.
        further: a checkpoint that is kept elsewhere; what is here is left out if it did not get as far.
    """
    job.mkdir(parents=True, exist_ok=True)
    before = [run for run in attempts(job) if (newest_checkpoint(run) or "") >= further]
    if further:
        before.sort(key=lambda run: newest_checkpoint(run) or "")
    if number is None:
        number = number_of(before[-1]) + 1 if before else 1
    while True:
        attempt = job / f"attempt-{number}"
        try:
            attempt.mkdir()
            break
        except FileExistsError:
            number += 1
    if before:
        _inherit(before[-1], attempt)
    return attempt


def _inherit(old: Path, new: Path) -> None:
    for path in sorted(old.rglob("*")):
        # Files that are being written are named so; they may vanish, and an old worker may still be at work.
        if path.name.startswith("."):
            continue
        target = new / path.relative_to(old)
        with contextlib.suppress(FileNotFoundError):
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif path.suffix == ".pt":
                # Checkpoints are never changed once they have their name, so a link is a copy.
                _link_or_copy(path, target)
            else:
                shutil.copy2(path, target)


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(path, target)


def attempts(job: Path) -> list[Path]:
    """The attempts' folders, oldest first."""
    found = [path for path in job.glob("attempt-*") if re.fullmatch(r"attempt-\d+", path.name)]
    return sorted(found, key=number_of)


def number_of(run: Path) -> int:
    """The number of an attempt's folder."""
    return int(run.name.partition("-")[2])


def newest_checkpoint(run: Path) -> str | None:
    """The name of a run's newest checkpoint."""
    return max((path.name for path in run.glob("checkpoints/*.pt")), default=None)


def furthest_checkpoint(job: Path) -> str:
    """The name of the newest checkpoint of all attempts; empty where there is none."""
    return max((newest_checkpoint(run) or "" for run in attempts(job)), default="")
