"""The weights that a job with ``init: "live"`` begins from."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

from ganserve import files
from ganserve.card import ModelCard, RepositoryError
from ganserve.repository import Repository
from ganserve.runs import StoredRuns
from training.retrain.attempts import attempts
from training.retrain.mirror import patiently
from training.retrain.site import JobFailed, Site

INSTEAD = 'ask for init "scratch"'


async def init_weights(site: Site, job_id: str, spec: dict[str, Any]) -> tuple[Path, list[str]]:
    """The weights that the job begins from and the order of their classes: the live version's as it was when the job
    first asked. No classes: they have none, or a version before this one began the job.

    Raises:
        JobFailed: nothing is live, or it is of another recipe or cannot be rebuilt.
    """
    chosen = site.folder(job_id) / "init.safetensors"
    classes = chosen.with_suffix(".json")
    if site.runs is not None and not (chosen.exists() and classes.exists()):
        await patiently(partial(_fetch, site.runs, job_id, chosen))
    if not chosen.exists():
        card = await patiently(partial(live_card, site.repository, spec["model"], spec["recipe"]))
        kept = site.weights(card)
        if not kept.exists():
            # Trained on another machine: the weights are in the published graph.
            arguments = {"models": str(site.repository.place), "model": card.name, "version": card.version}
            await site.task(job_id, "recover", {**arguments, "weights": str(kept)}, shown="train")
        await asyncio.to_thread(files.replace, classes, json.dumps(card.classes).encode())
        await asyncio.to_thread(files.copy, kept, chosen)
        if site.runs is not None:
            # Of several workers of one job the first one chooses.
            await patiently(partial(site.runs.keep_init, job_id, chosen, card.classes))
            await patiently(partial(_fetch, site.runs, job_id, chosen))
    return chosen, json.loads(classes.read_text(encoding="utf-8")) if classes.exists() else []


def _fetch(runs: StoredRuns, job_id: str, chosen: Path) -> None:
    """The weights that a worker of the job has chosen, and the order of their classes, if one has."""
    classes = runs.init(job_id, chosen)
    if classes is not None:
        files.replace(chosen.with_suffix(".json"), json.dumps(classes).encode())


def live_card(repository: Repository, model: str, recipe: str) -> ModelCard:
    """The card of the live version, which must be of the recipe. Raises JobFailed."""
    try:
        live = repository.live(model)
        if live is None:
            raise JobFailed(f"init: model {model!r} has no live version; {INSTEAD}")
        card = repository.card(model, live)
    except RepositoryError as error:
        raise JobFailed(f"init: {error}; {INSTEAD}") from error
    if card.recipe != recipe:
        wrong = f"init: {model} {live} is of recipe {card.recipe!r}, not {recipe!r}"
        raise JobFailed(f"{wrong}; name that recipe, or {INSTEAD}")
    return card


def keep_weights(site: Site, job_id: str, card: ModelCard) -> None:
    """Keep a published generator's weights, so that a later job can begin from them."""
    for run in reversed(attempts(site.folder(job_id))):
        best = run / "best.safetensors"
        if best.exists():
            files.copy(best, site.weights(card))
            return
