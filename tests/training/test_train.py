"""What the training command does for its process before it trains."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ganserve import events
from ganserve.repository import Repository
from training import export, train

# A step's features, all freed at its end, 192 MB: prints how large the heap is then (mallinfo2's first figure).
STEPS = """
import ctypes, torch
from training.networks.fast import keep_memory
keep_memory()
class Told(ctypes.Structure):
    _fields_ = [(f"figure{index}", ctypes.c_size_t) for index in range(10)]
tell = ctypes.CDLL(None).mallinfo2
tell.restype = Told
for _ in range(3):
    features = [torch.ones(6_000_000) for _ in range(8)]
    del features
print(tell().figure0)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the setting is glibc's, told of since 2.33")
def test_memory_that_a_step_frees_is_there_for_the_next() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run([sys.executable, "-c", STEPS], env=environment, capture_output=True, text=True, check=True)
    assert int(told.stdout) > 192_000_000


TWO_BATCHES = ["--recipe", "cgan", "--images", "8", "--set", "batch=4", "--set", "width=0.125", "--size", "8"]


@pytest.mark.usefixtures("signals")
def test_labels_have_the_order_of_classes_that_was_asked_for(class_folders: Path, tmp_path: Path) -> None:
    asked = [*TWO_BATCHES, "--dataset", str(class_folders), "--run", str(tmp_path / "run")]
    assert train.main([*asked, "--classes", '["dog", "cat"]']) == events.FINISHED
    assert json.loads((tmp_path / "run" / "config.json").read_text())["classes"] == ["dog", "cat"]


@pytest.mark.usefixtures("signals")
def test_other_classes_than_the_version_to_begin_from_has_are_refused_before_training(
    class_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*TWO_BATCHES, "--dataset", str(class_folders), "--run", str(tmp_path / "run"), "--events"]
    assert train.main([*asked, "--classes", '["dog", "bird"]']) == events.BAD_INPUT
    told = events.read(capsys.readouterr().out.encode())
    assert told is not None
    assert told["event"] == "failed"
    assert "begin from alone: bird; the data set alone: cat" in told["reason"]
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("signals")
def test_a_run_tells_what_its_pictures_are_and_so_does_the_card(
    class_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "pets"
    asked = [*TWO_BATCHES, "--dataset", str(class_folders), "--run", str(run)]
    assert train.main(asked) == events.FINISHED
    assert "12 pictures, grey, read at 8 x 8 pixels" in capsys.readouterr().err
    told = json.loads((run / "dataset.json").read_text())
    assert {name: found["pictures"] for name, found in told["classes"].items()} == {"cat": 6, "dog": 6}
    repository = Repository(tmp_path / "models")
    export.export_run(run, repository)
    assert repository.card("pets", 1).training["pictures"] == told
    config = json.loads((run / "config.json").read_text())
    assert config["dataset"] == class_folders.name, "names, never paths"


@pytest.mark.usefixtures("signals")
def test_a_run_is_not_resumed_with_other_pictures(
    class_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*TWO_BATCHES, "--dataset", str(class_folders), "--run", str(tmp_path / "run")]
    assert train.main(asked) == events.FINISHED
    Image.new("L", (10, 10), 77).save(class_folders / "cat" / "another.png")
    assert train.main([*asked, "--resume"]) == events.BAD_INPUT
    assert "have changed since run 'run' was begun" in capsys.readouterr().err


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("name", ["My_Run", "Cats.v2", "a b"])
def test_a_run_whose_name_no_model_can_have_is_refused_before_it_trains(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*TWO_BATCHES, "--dataset", "digits", "--run", str(tmp_path / name)]) == events.BAD_INPUT
    assert "cannot be a model's: expected small letters" in capsys.readouterr().err
    assert not (tmp_path / name).exists()
