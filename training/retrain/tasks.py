"""The parts of a retraining job that need torch besides training, each in a process that can be killed.

    python -m training.retrain.tasks export '{"run": "...", "repository": "...", "model": "...", "job_id": "..."}'
    python -m training.retrain.tasks evaluate '{"onnx": "...", "dataset": "..."}'
    python -m training.retrain.tasks recover '{"models": "...", "model": "...", "version": 1, "weights": "..."}'

The last line on stdout is the event ``result``, or ``failed`` with the reason (:mod:`ganserve.events`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ganserve import events, files
from ganserve.card import RepositoryError
from ganserve.events import AWAY, BAD_INPUT, FINISHED
from ganserve.place import place
from ganserve.store import StoreError
from training.retrain.mirror import store_is_away
from training.train import die_with_parent

IMAGES = 2000


def export(run: str, repository: str, model: str, job_id: str) -> dict[str, Any]:
    """Export a finished run into a repository of its own."""
    from ganserve.repository import Repository
    from training.export import export_run

    return {"version": export_run(Path(run), Repository(place(repository)), name=model, promote=False, job_id=job_id)}


def evaluate(onnx: str, dataset: str) -> dict[str, Any]:
    """Measure an exported file against the data set's test split."""
    from training.evaluate import evaluate_onnx

    return dict(evaluate_onnx(Path(onnx), dataset, images=IMAGES))


def recover(models: str, model: str, version: int, weights: str) -> dict[str, Any]:
    """Write the weights of a published version as a file that a training can begin from."""
    from ganserve.repository import Repository
    from training.recover import recover as recover_weights

    repository = Repository(place(models))
    card = repository.verify(model, version)
    if (kept := repository.weights(card)) is not None:
        files.replace(Path(weights), kept)
        return {"weights": weights}
    recover_weights(repository.model_path(model, version), card, Path(weights))
    return {"weights": weights}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one task."""
    from training.data import DataError
    from training.export import ExportError
    from training.recover import RecoverError

    name, arguments = argv or sys.argv[1:]
    die_with_parent()
    tasks: dict[str, Callable[..., dict[str, Any]]] = {"export": export, "evaluate": evaluate, "recover": recover}
    try:
        result = tasks[name](**json.loads(arguments))
    except (ExportError, DataError, RecoverError) as error:
        events.write({"event": "failed", "reason": str(error)})
        return BAD_INPUT
    except (StoreError, RepositoryError) as error:
        if not store_is_away(error):
            raise
        return AWAY
    events.write({**result, "event": "result"})
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
