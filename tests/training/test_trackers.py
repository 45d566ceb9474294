from __future__ import annotations

import importlib.util
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ganserve import events
from tests.training.conftest import small
from training import trackers, train, worker
from training.data import Dataset
from training.retrain.site import Config, Site
from training.retrain.workflow import train_command
from training.run import Event, Intervals, Stopped
from training.trainer import train as run_training

FEW = ["--recipe", "cgan", "--dataset", "digits", "--images", "640", "--log-steps", "5", "--snapshots", "2"]
FEW += ["--set", "batch=16", "--set", "width=0.25"]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def kept(run: Path) -> EventAccumulator:
    """What TensorBoard itself reads of a run's folder, but for the recipe's values, which it keeps in one below."""
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    return found.Reload()


@pytest.mark.usefixtures("signals")
def test_tensorboard_has_the_losses_metrics_sheets_and_values_that_the_run_itself_keeps(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main([*FEW, "--run", str(run), "--tracker", "tensorboard"]) == events.FINISHED
    found = kept(run)
    logged, taken = lines(run / "log.jsonl"), lines(run / "snapshots.jsonl")
    assert len(logged) == 8
    assert len(taken) == 2
    for name in ("loss_d", "loss_g", "images_per_second"):
        told = found.Scalars(f"training/{name}")
        assert [one.step for one in told] == [line["step"] for line in logged]
        assert all(math.isclose(a.value, line[name], rel_tol=1e-5) for a, line in zip(told, logged, strict=True))
    told = found.Scalars("metrics/score")
    assert [(one.step, pytest.approx(one.value)) for one in told] == [(line["step"], line["score"]) for line in taken]
    for shown, line in zip(found.Images("samples"), taken, strict=True):
        with Image.open(io.BytesIO(shown.encoded_image_string)) as sheet:
            pixels = np.asarray(sheet)
        with Image.open(run / "samples" / f"fresh-{line['step']:09d}.png") as own:
            assert np.array_equal(pixels, np.asarray(own.convert("RGB")))
    [values] = [path.read_text() for path in run.glob("tensorboard/*/hparams.yml")]
    assert "batch: 16" in values
    assert "recipe: cgan" in values


# Both bring packages that this project's own would not go with, so each has an environment of its own.
MLFLOW, WANDB = "mlflow==3.17.2", "wandb==0.31.0"
READ_MLFLOW = """
import json, mlflow
mlflow.set_tracking_uri("sqlite:///kept.db")
client = mlflow.MlflowClient()
[experiment] = [found for found in client.search_experiments() if found.name == "ganserve"]
[run] = client.search_runs([experiment.experiment_id])
losses = [[told.step, told.value] for told in client.get_metric_history(run.info.run_id, "training/loss_d")]
sheets = [found.path for found in client.list_artifacts(run.info.run_id, "samples")]
print(json.dumps([run.info.run_name, run.info.status, run.data.params["batch"], losses, sheets]))
"""


def beside(package: str, place: Path) -> Path:
    """A Python that has a package from an index and, after what that brings, this one's packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    python = place / "bin" / "python"
    asked = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", package]
    installed = subprocess.run(asked, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"{package} cannot be installed here: {installed.stderr.splitlines()[-1:]}")
    [site] = place.glob("lib/python*/site-packages")
    (site / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return python


def tracked(python: Path, folder: Path, tracker: str, **environment: str) -> None:
    """A run of few steps in a folder, with a tracker."""
    kept = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", **environment}
    command = [str(python), "-m", "training.train", *FEW, "--run", "run", "--tracker", tracker]
    ended = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == events.FINISHED, ended.stderr
    assert "told nothing more" not in ended.stderr


@pytest.mark.slow
def test_mlflow_has_the_losses_sheets_and_values_in_its_own_database(tmp_path: Path) -> None:
    python = beside(MLFLOW, tmp_path / "environment")
    tracked(python, tmp_path, "mlflow", MLFLOW_TRACKING_URI="sqlite:///kept.db")
    read = subprocess.run([python, "-c", READ_MLFLOW], cwd=tmp_path, capture_output=True, text=True, check=True)
    name, state, batch, losses, sheets = json.loads(read.stdout)
    assert (name, state, batch) == ("run", "FINISHED", "16")
    logged, taken = lines(tmp_path / "run" / "log.jsonl"), lines(tmp_path / "run" / "snapshots.jsonl")
    assert losses == [[line["step"], line["loss_d"]] for line in logged]
    assert sheets == [f"samples/fresh-{line['step']:09d}.png" for line in taken]


@pytest.mark.slow
def test_weights_and_biases_keeps_losses_and_sheets_offline_to_be_sent_later(tmp_path: Path) -> None:
    python = beside(WANDB, tmp_path / "environment")
    tracked(python, tmp_path, "wandb", WANDB_MODE="offline")
    [kept] = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    content = kept.read_bytes()
    for line in lines(tmp_path / "run" / "log.jsonl"):
        assert str(line["loss_d"]).encode() in content
    assert content.count(b"training/loss_d") >= 8
    assert b"recipe" in content
    shown = sorted(kept.parent.glob("files/media/images/samples_*.png"), key=lambda path: int(path.name.split("_")[1]))
    steps = [line["step"] for line in lines(tmp_path / "run" / "snapshots.jsonl")]
    own = [tmp_path / "run" / "samples" / f"fresh-{step:09d}.png" for step in steps]
    for there, here in zip(shown, own, strict=True):
        with Image.open(there) as sent, Image.open(here) as drawn:
            assert np.array_equal(np.asarray(sent.convert("RGB")), np.asarray(drawn.convert("RGB")))


@pytest.mark.usefixtures("signals")
def test_without_the_option_a_run_keeps_its_own_files_alone(tmp_path: Path) -> None:
    assert train.main([*FEW, "--run", str(tmp_path / "run")]) == events.FINISHED
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert (tmp_path / "run" / "report.html").exists()


def test_a_run_that_goes_on_from_a_checkpoint_reads_like_an_undisturbed_one(few: Dataset, tmp_path: Path) -> None:
    config, run = small("cgan", few), tmp_path / "run"
    told: list[Event] = []
    for resume in (False, True):
        report = trackers.Tracked("tensorboard", config, run, told.append)
        intervals = Intervals(log_steps=1, snapshots=1, checkpoint_steps=8)
        try:
            stop = (lambda: False) if resume else (lambda: len(told) >= 13)
            run_training(config, few, run, report=report, resume=resume, should_stop=stop, intervals=intervals)
        except Stopped:
            assert not resume
    assert [one.step for one in kept(run).Scalars("training/loss_d")] == list(range(1, config.steps + 1))


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_one_sentence_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    asked = ["--recipe", "cgan", "--dataset", str(tmp_path / "nowhere"), "--run", str(tmp_path / "run")]
    assert train.main([*asked, "--tracker", name]) == events.BAD_INPUT
    [told] = capsys.readouterr().err.splitlines()
    assert told.startswith(f"error: the tracker {name} needs the package {name}")
    assert "pip install" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("signals")
def test_an_unknown_tracker_names_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([*FEW, "--run", str(tmp_path / "run"), "--tracker", "neptune"]) == events.BAD_INPUT
    assert "expected one of tensorboard, mlflow, wandb" in capsys.readouterr().err


def test_a_tracker_that_fails_is_told_of_once_and_the_run_goes_on(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, values: Any, step: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("accelerate.tracking.TensorBoardTracker.log", broken)
    config, told = small("cgan", few), list[Event]()
    report = trackers.Tracked("tensorboard", config, tmp_path / "run", told.append)
    assert run_training(config, few, tmp_path / "run", report=report)["state"] == "finished"
    [warned] = [event for event in told if event["event"] == "warning" and "tracker" in event["reason"]]
    assert warned["reason"].endswith("is told nothing more: no space left on device")
    assert told[-1]["event"] == "finished"


def test_values_are_what_every_tracker_takes(few: Dataset) -> None:
    found = trackers.values(small("cgan", few))
    assert (found["batch"], found["recipe"], found["z"]) == (16, "cgan", 100)
    assert all(isinstance(value, bool | int | float | str) for value in found.values())
    assert all(len(value) <= 250 for value in found.values() if isinstance(value, str))


def test_a_worker_passes_its_setting_on_to_its_trainings(tmp_path: Path) -> None:
    spec = {"recipe": "cgan", "dataset": "digits", "images": 100, "seed": 0, "overrides": {}}
    for tracker, told in (("tensorboard", ["--tracker", "tensorboard"]), (None, [])):
        config = Config(f"sqlite:///{tmp_path}/jobs.sqlite", tmp_path, tmp_path / "models", "w", tracker=tracker)
        command = train_command(Site(config), spec, tmp_path / "run")
        assert [word for word in command if "track" in word or word == "tensorboard"] == told


def test_a_worker_whose_tracker_is_missing_does_not_begin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GANSERVE_TRACKER", "mlflow")
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(SystemExit) as ended:
        worker.main([])
    assert ended.value.code == events.BAD_INPUT
    assert "the tracker mlflow needs the package mlflow" in capsys.readouterr().err
