"""Statistics of versions, over all processes."""

from pathlib import Path
from typing import Any

from service.observe.statistics import Statistics
from tests.tiny import card


def entry(statistics: Statistics) -> Any:
    [document] = statistics.documents([("m", 1)])
    return document


def test_requests_and_runs_of_all_processes_are_added_up_and_the_last_one_counts(tmp_path: Path) -> None:
    one, other = Statistics(tmp_path), Statistics(tmp_path)
    model = card("m")
    one.run(model, 4, 0.5)
    one.request(model, True, 1.0, 0.25)
    first = entry(one)["last_inference"]
    other.run(model, 4, 0.5)
    other.run(model, 2, 1.0)
    other.request(model, False, 2.0, 0.25)
    told = entry(one)
    assert told == entry(other)
    assert (told["inference_count"], told["execution_count"]) == (10, 3)
    assert told["last_inference"] >= first > 1.7e12
    times = told["inference_stats"]
    assert times["success"] == {"count": 1, "ns": 1_000_000_000}
    assert times["fail"] == {"count": 1, "ns": 2_000_000_000}
    assert times["queue"] == {"count": 1, "ns": 250_000_000}
    assert times["compute_infer"] == {"count": 3, "ns": 2_000_000_000}
    batches = [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in told["batch_stats"]]
    assert batches == [(2, 1), (4, 2)]


def test_a_version_that_nobody_asked_has_zeros() -> None:
    told = entry(Statistics())
    assert (told["last_inference"], told["inference_count"], told["batch_stats"]) == (0, 0, [])
