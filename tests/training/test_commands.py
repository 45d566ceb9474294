"""Every command ends a bad input with one sentence on standard error and exit status 2."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ganserve.repository import Repository
from tests.tiny import publish
from training import evaluate, export, judge, models, quality, report, train, worker

Main = Callable[[Sequence[str]], int | None]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a file, an empty folder, what is no ONNX, and a repository."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no such thing")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.onnx").write_bytes(b"\x08\xff broken")
    publish(Repository(tmp_path / "models"), "tiny")
    return tmp_path


def ended(main: Main, arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says on standard error; argparse adds the usage before its sentence."""
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code  # type: ignore[assignment]
    said = capsys.readouterr().err
    assert status == 2, said
    lines = [line for line in said.splitlines() if "error: " in line or "nothing to export" in line]
    assert len(lines) == 1
    assert "Traceback" not in said
    return lines[0]


@pytest.mark.parametrize(
    ("main", "arguments", "words"),
    [
        (export.main, ["nothing"], "is not a run"),
        (export.main, ["file"], "is not a run"),
        (export.main, ["/dev/null"], "is not a run"),
        (export.main, ["tiny:x"], "tiny:x"),
        (export.main, ["tiny:9"], "no version 9"),
        (export.main, ["nobody:1"], "no model 'nobody'"),
        (export.main, ["--runs", "file"], "nothing to export"),
        (export.main, ["empty", "--name", "My Model"], "my-model"),
        (evaluate.main, ["nobody", "--dataset", "digits"], "no model 'nobody'"),
        (evaluate.main, ["tiny:x", "--dataset", "digits"], "NAME:VERSION"),
        (evaluate.main, ["tiny:0", "--dataset", "digits"], "NAME:VERSION"),
        (evaluate.main, ["tiny:9", "--dataset", "digits"], "no version 9"),
        (evaluate.main, ["absent.onnx", "--dataset", "digits"], "absent.onnx"),
        (evaluate.main, ["broken.onnx", "--dataset", "digits"], "onnxruntime"),
        (evaluate.main, ["tiny", "--dataset", "digits"], "latent recipe"),
        (evaluate.main, ["tiny", "--dataset", "digits", "--images", "-3"], "--images"),
        (evaluate.main, ["tiny", "--dataset", "digits", "--threads", "0"], "--threads"),
        (evaluate.main, ["tiny", "--dataset", "digits", "--cas-images", "x"], "--cas-images"),
        (judge.main, ["--dataset", "empty"], "empty"),
        (judge.main, ["--dataset", "digits", "--epochs", "-1"], "--epochs"),
        (judge.main, ["--dataset", "digits", "--out", "file/judge.safetensors"], "--out"),
        (models.main, ["--recipes", "nothing"], "--recipes"),
        (models.main, ["--lanes", "-1"], "--lanes"),
        (models.main, ["--recipes", "cgan", "--runs", "file/runs"], "file/runs"),
        (quality.main, ["--models", "file"], "no models"),
        (report.main, ["nothing"], "is no run"),
        (report.main, ["file"], "is no run"),
        (report.main, ["/dev/null"], "is no run"),
        (train.main, ["--recipe", "cgan", "--dataset", "empty"], "empty"),
        (train.main, ["--recipe", "cgan", "--dataset", "no\nsuch\nset"], "no such set"),
        (train.main, ["--recipe", "cgan", "--dataset", "digits", "--run", "My Run"], "my-run"),
        (train.main, ["--recipe", "cgan", "--dataset", "digits", "--run", "file/run"], "is no folder"),
        (train.main, ["--recipe", "cgan", "--dataset", "digits", "--run", "Fu\u00df \u00dcbung"], "fu-ubung"),
        (train.main, ["--recipe", "cgan", "--dataset", "digits", "--run", "x" * 65], "65 characters: at most 64"),
        (train.main, ["--recipe", "cgan", "--dataset", "digits", "--run", "x" * 300 + "/run"], "at most 255"),
        (train.main, ["--recipe", "cgan", "--dataset", "digits", "--classes", "no list"], "--classes"),
        (train.main, ["--recipe", "cgan", "--dataset", "digits", "--threads", "x"], "--threads"),
        (train.main, ["--recipe", "cgan", "--dataset", "digits", "--init", "absent"], "absent"),
        (worker.main, ["--threads", "0"], "--threads"),
        (worker.main, ["--jobs-db", "nothing://x"], "--jobs-db"),
    ],
)
def test_a_bad_input_is_one_sentence(
    place: Path, signals: None, capsys: pytest.CaptureFixture[str], main: Main, arguments: list[str], words: str
) -> None:
    assert words in ended(main, arguments, capsys)


def test_a_name_that_is_no_utf_8_is_told_as_well(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"runs-\xff")
    assert "runs-" in ended(export.main, [name], capsys)
    assert "runs-" in ended(report.main, [name], capsys)


BROKEN = {
    "refused": {"config.json": "{}"},
    "cut": {"config.json": "{}", "status.json": '{"state": "fin'},
    "listed": {"config.json": "{}", "status.json": "[]"},
    "other": {"config.json": "{}", "status.json": '{"state": "finished"}', "best.safetensors": ""},
    "damaged": {
        "config.json": json.dumps(
            {"recipe": "cgan", "dataset": "x", "images": 9, "seed": 0, "size": 8, "channels": 1, "classes": ["a", "b"]}
        ),
        "status.json": '{"state": "finished", "step": 1}',
        "best.safetensors": "cut",
    },
    "odd": {
        "config.json": json.dumps({"recipe": "nothing", "classes": []}),
        "status.json": '{"state": "finished"}',
        "best.safetensors": "",
    },
}


def test_one_bad_run_never_stops_the_others(
    digits: object, place: Path, signals: None, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--recipe", "cgan", "--dataset", "digits", "--images", "320", "--set", "batch=16", "--set", "width=0.25"]
    assert train.main([*asked, "--snapshots", "1", "--run", "runs/good"]) == 0
    for name, files in BROKEN.items():
        (place / "runs" / name).mkdir()
        for file, content in files.items():
            (place / "runs" / name / file).write_text(content)
    shutil.copytree(place / "runs" / "good", place / "runs" / "My_Run")
    capsys.readouterr()
    assert export.main([]) == 2
    said = capsys.readouterr()
    assert said.out == "good: published version 1 of good\n"
    for name in (*BROKEN, "My_Run"):
        assert f"run {name}" in said.err or repr(name) in said.err or f"/{name} is broken" in said.err
    assert "Traceback" not in said.err
    assert len(said.err.splitlines()) == len(BROKEN) + 1
    assert export.main(["runs/My_Run", "--name", "mine"]) == 0
    assert Repository(place / "models").live("mine") == 1
