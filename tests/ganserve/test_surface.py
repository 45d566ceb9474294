"""What ``import ganserve`` gives, and what it does not cost."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ganserve

ROOT = Path(__file__).parents[2]
# What takes long to load; service and training have no part in it at all.
HEAVY = {"dbos", "fastapi", "httpx", "numpy", "onnxruntime", "PIL", "pydantic", "service", "training", "torch"}


def loaded(program: str) -> set[str]:
    """The packages that a program has loaded at its end."""
    program += "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    return set(json.loads(done.stdout))


def test_the_public_names_are_these() -> None:
    assert ganserve.__all__ == [
        "AsyncClient", "Client", "Dataset", "Generator", "Images", "Job", "Model", "Verdict", "errors",
    ]  # fmt: skip
    assert set(ganserve.__all__) <= set(dir(ganserve))
    for name in ganserve.__all__:
        assert getattr(ganserve, name).__doc__
    with pytest.raises(AttributeError, match="it has AsyncClient"):
        ganserve.nothing  # noqa: B018


def test_importing_the_package_loads_none_of_what_is_slow_to_load() -> None:
    assert not loaded("import ganserve") & HEAVY


def test_a_client_loads_neither_the_engine_nor_the_queue_nor_the_service() -> None:
    spared = HEAVY - {"httpx", "numpy", "PIL"}
    assert not loaded("import ganserve; ganserve.Client(); ganserve.AsyncClient(); ganserve.errors") & spared


def test_a_local_generator_loads_neither_the_client_nor_the_service() -> None:
    assert not loaded("import ganserve; ganserve.Generator('models/mnist-projgan')") & {
        "dbos", "fastapi", "httpx", "service", "training", "torch",
    }  # fmt: skip


def test_each_package_says_that_it_is_typed() -> None:
    assert all((ROOT / package / "py.typed").exists() for package in ("ganserve", "service", "training"))


@pytest.mark.parametrize(
    "module", ["ganserve.client.sync", "ganserve.client.asynchronous", "ganserve.generator"]
)
def test_the_examples_of_the_docstrings_are_true(module: str, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = importlib.import_module(module)
    runner = doctest.DocTestRunner()
    names = {**vars(found), "admin_token": place.token}
    examples = [test for test in doctest.DocTestFinder().find(found, module, globs=names) if test.examples]
    told: list[str] = []
    for test in examples:
        runner.run(test, out=told.append)
    assert examples
    assert runner.summarize(verbose=False).failed == 0, "".join(told)


def test_the_environment_of_a_test_names_no_server() -> None:
    assert "GANSERVE_URL" not in os.environ
