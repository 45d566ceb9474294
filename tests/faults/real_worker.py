"""A worker with the real training and export; only the judge's measurement is the stub's."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from training import worker
from training.retrain import tasks
from training.retrain.site import Config


def task(arguments: list[str]) -> int:
    if arguments[0] == "evaluate":
        metrics = '"judge": "stub", "dataset": "digits", "split": "test", "images": 100, "frechet": 1.0'
        print('{"event": "result", ' + metrics + "}", flush=True)
        return 0
    return tasks.main(arguments)


def main() -> None:
    data, database, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    logging.basicConfig(level=logging.INFO)
    worker.Worker(
        Config(
            jobs_db=database,
            data=data,
            models=data / "models",
            worker_id=name,
            threads=1,
            task=(sys.executable, __file__, "--task"),
        )
    ).run()


if __name__ == "__main__":
    if sys.argv[1] == "--task":
        sys.exit(task(sys.argv[2:]))
    main()
