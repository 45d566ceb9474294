"""Processes that cannot serve what the others do."""

import json
import os
import subprocess
import sys
from pathlib import Path

from service.processes.siblings import Siblings


def test_what_a_living_sibling_serves_and_this_process_does_not_is_missing(tmp_path: Path) -> None:
    siblings = Siblings(tmp_path)
    siblings.tell({"a"})
    assert siblings.missing({"a"}) == set()
    # The parent of this process lives.
    (tmp_path / str(os.getppid())).write_text(json.dumps(["a", "b"]))
    assert siblings.missing({"a"}) == {"b"}
    assert siblings.missing({"a", "b", "c"}) == set()


def test_what_the_dead_had_told_does_not_count(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / str(dead.pid)).write_text(json.dumps(["gone"]))
    assert Siblings(tmp_path).missing(set()) == set()
    Siblings.forget(tmp_path, dead.pid)
    Siblings.forget(tmp_path, dead.pid)
    assert list(tmp_path.iterdir()) == []


def test_a_process_tells_what_it_serves_whenever_that_changes(tmp_path: Path) -> None:
    siblings = Siblings(tmp_path)
    for served in ({"b", "a"}, {"b", "a"}, {"c"}):
        siblings.tell(served)
    assert [json.loads(path.read_text()) for path in tmp_path.iterdir()] == [["c"]]
