from __future__ import annotations

import json
from pathlib import Path

import pytest

from ganserve.repository import Repository
from tests.training.conftest import silent, small
from training import export, quality, trainer
from training.data import Dataset
from training.measure import metrics
from training.run import Intervals


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Speed in no time, and the tables in a folder of the test's own."""
    measure = quality.speed
    monkeypatch.setattr(quality, "speed", lambda card, content: measure(card, content, rounds=1, seconds=0.02))
    monkeypatch.setattr(quality, "HERE", tmp_path / "benchmarks")
    return tmp_path / "benchmarks"


def test_one_command_writes_a_row_a_live_model_and_one_of_real_images(
    digits: Dataset, tmp_path: Path, quick: Path
) -> None:
    run = tmp_path / "tiny"
    trainer.train(small("cgan", digits), digits, run, report=silent, intervals=Intervals(snapshots=1))
    repository = Repository(tmp_path / "models")
    export.export_run(run, repository, name="tiny")
    card, content = repository.read("tiny", 1)
    repository.publish(card.model_copy(update={"name": "waits"}), content, b"")
    scores = dict.fromkeys(metrics.METRICS, 0.25) | {f"{name}_real": 0.75 for name in metrics.METRICS}
    told = {"judge": "f00", "dataset": "digits", "images": 140, "split": "held-out", "frechet_ratio": 4.5}
    repository.record("tiny", 1, scores | told)
    assert quality.main(["--models", str(repository.root)]) == 0
    (row,) = json.loads((quick / "quality.json").read_text())
    assert row["model"] == "tiny"
    assert row["best_images_per_second"] >= row["images_per_second"] > 0
    text = (quick / "quality.md").read_text()
    assert "140 generated images each" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1, "all rows have as many cells"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["`tiny`", "real images (digits)"]
    assert "| 4.5 |" in lines[2]
    assert "0.75" in lines[3]


def test_speeds_that_the_table_has_may_stay(
    digits: Dataset, tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "tiny"
    trainer.train(small("gan", digits), digits, run, report=silent, intervals=Intervals(snapshots=1))
    repository = Repository(tmp_path / "models")
    export.export_run(run, repository, name="tiny")
    quality.main(["--models", str(repository.root)])
    before = json.loads((quick / "quality.json").read_text())

    def never(card: object, content: bytes) -> dict[str, int]:
        raise AssertionError("was measured")

    monkeypatch.setattr(quality, "speed", never)
    repository.record("tiny", 1, {"judge": "f00", "dataset": "digits", "recall": 0.5})
    quality.main(["--models", str(repository.root), "--keep-speeds"])
    (row,) = json.loads((quick / "quality.json").read_text())
    assert row == {**before[0], "metrics": row["metrics"]}
    assert row["metrics"]["recall"] == 0.5


def test_a_model_that_was_not_scored_yet_has_dashes(digits: Dataset, tmp_path: Path, quick: Path) -> None:
    run = tmp_path / "tiny"
    trainer.train(small("gan", digits), digits, run, report=silent, intervals=Intervals(snapshots=1))
    export.export_run(run, Repository(tmp_path / "models"), name="tiny")
    quality.main(["--models", str(tmp_path / "models")])
    (line,) = [line for line in (quick / "quality.md").read_text().splitlines() if line.startswith("| `tiny`")]
    assert line.count("| - ") == len(quality.SHOWN)
