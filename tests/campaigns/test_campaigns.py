"""A few cases of each campaign, and the record that they keep."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvloop
from hypothesis.strategies import just
from schemathesis import GenerationMode
from schemathesis.core.failures import Failure, FailureGroup

from benchmarks import overload
from benchmarks.serving import served
from tests.campaigns import fuzz, soak
from tests.campaigns.__main__ import NAMES, ROOT, campaign
from tests.campaigns.journal import Journal

# Cases that go over most kinds, and take a few seconds.
FEW = {"fuzz": 1500, "archives": 32, "models": 20, "swaps": 10, "kills": 2, "machines": 1, "soak": 4}


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cases_of_a_campaign_break_no_promise(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of so few samples, the slope tells nothing.
    monkeypatch.setattr(soak, "SAMPLE_SECONDS", 3.0)
    monkeypatch.setattr(soak, "SLOPE", float("inf"))
    journal = Journal(tmp_path / "journals", name, 1, FEW[name], 600)
    campaign(name).run(journal, tmp_path)
    assert journal.tried >= FEW[name]
    assert not journal.broken


def test_a_flood_is_answered_with_images_or_with_when_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in overload.IDLE.items():
        monkeypatch.setenv(name, value)
    options = argparse.Namespace(n=64, seconds=3, times=10)
    model = ROOT / "models" / "mnist-projgan" / "1" / "model.onnx"
    with served("ganserve", model) as (port, pid, _):
        result = uvloop.run(overload.measure(port, pid, options))
    assert result["statuses"].keys() == {"200", "429"}
    least, most = result["retry_after"]
    assert 1 <= least <= most <= 30
    assert result["accepted_after"] is not None
    assert not [line for line in overload.broken(result) if "answers" in line or "tell when" in line]


class Wrong:
    """A case whose answer is not one that the document tells, always or once."""

    def __init__(self, times: int) -> None:
        self.path_parameters: dict[str, object] = {}
        self.times = times

    def call_and_validate(self, **_: object) -> None:
        self.times -= 1
        if self.times >= 0:
            raise FailureGroup([Failure(operation="GET /", title="Undocumented", message="418")])

    def as_curl_command(self) -> str:
        return "curl of it"


@pytest.mark.parametrize("times", [1, 1000])
def test_a_call_that_is_answered_wrongly_is_told_with_what_was_asked(times: int) -> None:
    operation = SimpleNamespace(as_strategy=lambda generation_mode: just(Wrong(times)))
    tried, broken = fuzz._block(operation, GenerationMode.POSITIVE, {}, 1, known=False)
    assert tried
    assert broken.startswith("curl of it: Undocumented")


def test_the_slope_of_samples_is_that_of_most_pairs() -> None:
    samples = [
        {"kind": "sample", "second": 10.0 * index, "service_mib": 100.0 + 0.5 * index, "worker_mib": 50.0}
        for index in range(60)
    ]
    # What comes first does not count, nor does a peak.
    samples[3]["service_mib"] = 900.0
    samples[45]["service_mib"] = 900.0
    assert soak.theil_sen(samples) == pytest.approx(3.0)


def test_a_campaign_goes_on_where_it_stopped_and_its_table_tells_what_broke(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "any", 3, 10, 60)
    for number in journal.open():
        if number == 2:
            break
        journal.add("a kind", 200, cases=2)
    with journal.path.open("a") as file:
        file.write('{"kind": "cut off by a cra')
    again = Journal(tmp_path, "any", 3, 10, 60)
    assert again.tried == 4
    assert next(again.open()) == 2
    again.add("a kind", 500, "it was answered 500", cases=6)
    assert list(again.open()) == []
    assert Journal(tmp_path, "any", 3, 10, 60).tried == 10
    table = again.table("Title", "Promise.")
    assert "| a kind | 10 | 200: 4, 500: 6 |" in table
    assert "- line 2, a kind: it was answered 500" in table


def test_chance_is_the_seeds_and_the_lines_alone(tmp_path: Path) -> None:
    one, other = (Journal(tmp_path / folder, "any", seed, 1, 1) for folder, seed in (("a", 1), ("b", 2)))
    assert one.random(5).random() == Journal(tmp_path / "c", "any", 1, 1, 1).random(5).random()
    assert one.random(5).random() != one.random(6).random() != other.random(6).random()


def test_a_broken_promise_is_the_commands_exit_status(tmp_path: Path) -> None:
    journals = tmp_path / "journals"
    journals.mkdir()
    (journals / "swaps-1.jsonl").write_text(json.dumps({"kind": "k", "outcome": "o", "broken": "b"}) + "\n")
    command = [sys.executable, "-m", "tests.campaigns", "swaps", "--cases", "1"]
    where = ["--journals", str(journals), "--tables", str(tmp_path / "tables")]
    done = subprocess.run([*command, *where], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "line 0, k: b" in (tmp_path / "tables" / "swaps.md").read_text()
