"""A worker whose training is the stub, and whose short steps can be made long: stub_worker.py DATA DB ID."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos._sys_db import SystemDatabase

from ganserve.place import place
from training import worker
from training.retrain import workflow
from training.retrain.site import MAX_DEATHS, Config


def slowed(name: str, function: Callable[..., Any], data: Path) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        file = data / "behaviour.json"
        behaviour = json.loads(file.read_text()) if file.exists() else {}
        (data / f"step-{name}").touch()
        time.sleep(behaviour.get(f"{name}_seconds", 0.0))
        result = function(*args)
        (data / f"done-{name}").touch()
        time.sleep(behaviour.get(f"{name}_seconds", 0.0))
        return result

    return run


def away_once() -> None:
    """The database answers until DBOS is launched, then once not, then again."""
    create = SystemDatabase.create_application_version

    def away(self: SystemDatabase, version: str, *more: Any) -> None:
        SystemDatabase.create_application_version = create  # type: ignore[method-assign]
        raise sa.exc.OperationalError("select", {}, Exception("the server is starting up"))

    SystemDatabase.create_application_version = away  # type: ignore[assignment,method-assign]


def main() -> None:
    data, database, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    file = data / "behaviour.json"
    behaviour = json.loads(file.read_text()) if file.exists() else {}
    stub = (sys.executable, str(Path(__file__).with_name("stub_training.py")), str(data))
    workflow._publish = slowed("publish", workflow._publish, data)
    workflow._promote = slowed("promote", workflow._promote, data)
    if behaviour.get("away_at_launch"):
        away_once()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    worker.Worker(
        Config(
            jobs_db=database,
            data=data,
            models=place(os.environ.get("GANSERVE_MODELS", str(data / "models"))),
            store=place(os.environ["GANSERVE_STORE"]) if "GANSERVE_STORE" in os.environ else None,
            worker_id=name,
            threads=1,
            # Long, since a busy machine is slow to start a process; a test of it asks for less.
            no_progress_seconds=behaviour.get("no_progress_seconds", 120.0),
            dead_after_seconds=5.0,
            max_deaths=behaviour.get("max_deaths", MAX_DEATHS),
            train=(*stub, "train"),
            task=stub,
        )
    ).run()


if __name__ == "__main__":
    main()
