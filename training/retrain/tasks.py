"""The parts of a retraining job that need torch besides training, each in a process that can be killed.

    python -m training.retrain.tasks export '{"run": "...", "repository": "...", "beside": "...", "model": "...", ...}'
    python -m training.retrain.tasks evaluate '{"onnx": "...", "dataset": "..."}'
    python -m training.retrain.tasks judge '{"exact": "...", "plain": "...", "dataset": "..."}'
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


def export(run: str, repository: str, beside: str, model: str, job_id: str) -> dict[str, Any]:
    """Export a finished run as an exact graph, and as a float one into the repository ``beside``, which the judge holds
    against it. Of a generator without an exact form there is the float one alone, and ``inexact`` says why."""
    from ganserve.repository import Repository
    from training.exact import ExactError
    from training.export import export_run

    inexact = ""
    try:
        export_run(Path(run), Repository(place(repository)), name=model, promote=False, job_id=job_id, exact=True)
    except ExactError as error:
        inexact = str(error)
    version = export_run(Path(run), Repository(place(beside)), name=model, promote=False, job_id=job_id)
    return {"version": version, "inexact": inexact}


def evaluate(onnx: str, dataset: str) -> dict[str, Any]:
    """Measure an exported file against the data set's test split."""
    from training.evaluate import evaluate_onnx

    return dict(evaluate_onnx(Path(onnx), dataset, images=IMAGES))


def judge(exact: str, plain: str, dataset: str) -> dict[str, Any]:
    """Hold an exact graph against its float one. The metrics are those of the better one; ``inexact`` says why that is
    the float one, or is empty."""
    from training.exact.judged import judge as judged

    verdict = judged(Path(plain).read_bytes(), Path(exact).read_bytes(), dataset, images=IMAGES)
    reason = verdict.reason()
    return {"metrics": dict(verdict.float_results[0] if reason else verdict.exact_result), "inexact": reason}


def recover(models: str, model: str, version: int, weights: str) -> dict[str, Any]:
    """Write the weights of a published version as a file that a training can begin from."""
    from ganserve.repository import Repository
    from training.recover import recover as recover_weights

    repository = Repository(place(models))
    card = repository.verify(model, version)
    if (kept := repository.weights(card)) is not None:
        files.replace(Path(weights), kept)
        return {"weights": weights}
    if card.exact and (of := card.training.get("exact_of")):
        # Made of a published float version, without weights of its own beside it.
        card = repository.verify(model, of["version"])
        version = card.version
    recover_weights(repository.model_path(model, version), card, Path(weights))
    return {"weights": weights}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one task."""
    from training.data import DataError
    from training.export import ExportError
    from training.recover import RecoverError

    name, arguments = argv or sys.argv[1:]
    die_with_parent()
    tasks: dict[str, Callable[..., dict[str, Any]]] = {
        "export": export,
        "evaluate": evaluate,
        "judge": judge,
        "recover": recover,
    }
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
