"""Each attempt of a job has a folder of its own, which begins with what the one before it left."""

from pathlib import Path

from training.retrain.attempts import attempts, begin_attempt, furthest_checkpoint


def test_the_first_attempt_is_empty_and_the_next_one_inherits_what_the_last_one_left(tmp_path: Path) -> None:
    job = tmp_path / "job"
    first = begin_attempt(job)
    assert list(first.iterdir()) == []
    (first / "checkpoints").mkdir()
    (first / "checkpoints/step-1.pt").write_bytes(b"state")
    (first / "log.jsonl").write_text("one\n")
    (first / ".log.jsonl.123").write_text("being written")
    second = begin_attempt(job)
    assert (second / "checkpoints/step-1.pt").read_bytes() == b"state"
    assert not (second / ".log.jsonl.123").exists()
    with (second / "log.jsonl").open("a") as log:
        log.write("two\n")
    assert (first / "log.jsonl").read_text() == "one\n", "a late worker's run is not written into"


def test_attempts_are_counted_as_numbers(tmp_path: Path) -> None:
    for number in (1, 2, 9, 10):
        (tmp_path / f"attempt-{number}").mkdir()
    (tmp_path / "attempt-x").mkdir()
    assert [path.name for path in attempts(tmp_path)][-2:] == ["attempt-9", "attempt-10"]
    assert begin_attempt(tmp_path).name == "attempt-11"


def test_the_furthest_checkpoint_counts_whichever_attempt_it_is_of(tmp_path: Path) -> None:
    assert furthest_checkpoint(tmp_path / "job") == ""
    begin_attempt(tmp_path / "job")
    assert furthest_checkpoint(tmp_path / "job") == ""
    for attempt, step in ((1, 20), (2, 10)):
        folder = tmp_path / "job" / f"attempt-{attempt}" / "checkpoints"
        folder.mkdir(parents=True)
        (folder / f"step-{step:09d}.pt").touch()
    assert furthest_checkpoint(tmp_path / "job") == "step-000000020.pt"
