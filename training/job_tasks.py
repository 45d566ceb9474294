"""The parts of a retraining job that need torch besides training, each in a process that can be killed.

    python -m training.job_tasks export '{"run": "...", "repository": "...", "model": "...", "job_id": "..."}'
    python -m training.job_tasks evaluate '{"onnx": "...", "dataset": "..."}'

The last line on stdout is ``{"event": "result", ...}``. Exit status: 0 done; 2 it can never work, with the
reason in ``{"event": "failed", "reason": ...}``; anything else may be tried again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.train import BAD_INPUT, FINISHED, _die_with_parent

IMAGES = 2000


def export(run: str, repository: str, model: str, job_id: str) -> dict[str, Any]:
    """Export a finished run into a repository of its own."""
    from service.repository import Repository
    from training.export import export_run

    return {"version": export_run(Path(run), Repository(Path(repository)), name=model, promote=False, job_id=job_id)}


def evaluate(onnx: str, dataset: str) -> dict[str, Any]:
    """Measure an exported file against the data set's test split."""
    from training.evaluate import evaluate_onnx

    return dict(evaluate_onnx(Path(onnx), dataset, images=IMAGES))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one task."""
    from training.data import DataError
    from training.export import ExportError

    name, arguments = argv or sys.argv[1:]
    _die_with_parent()
    tasks: dict[str, Callable[..., dict[str, Any]]] = {"export": export, "evaluate": evaluate}
    try:
        result = tasks[name](**json.loads(arguments))
    except (ExportError, DataError) as error:
        print(json.dumps({"event": "failed", "reason": str(error)}), flush=True)
        return BAD_INPUT
    print(json.dumps({**result, "event": "result"}), flush=True)
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
