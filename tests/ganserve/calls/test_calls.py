"""The commands that call a server, as they are typed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganserve import Client, calls, commands


def run(*arguments: str) -> int:
    return commands.main(list(arguments))


def test_generate_writes_the_grid_that_the_client_makes(
    place: Any, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "grid.png"
    assert run("generate", "--label", "3", "-n", "16", "--seed", "42", "--quiet", "-o", str(path)) == 0
    with Image.open(path) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(client.generate(label=3, n=16, seed=42).grid()))
    told = capsys.readouterr()
    assert told.out.startswith(f"{path}: 16 images of mnist-projgan version ")
    assert told.out.endswith(", seed 42\n")
    assert told.err == ""


def test_generate_without_a_server_writes_the_same_file(place: Any, tmp_path: Path) -> None:
    asked = ["generate", "--label", "two", "0", "-n", "5", "--seed", "1", "--columns", "2", "--scale", "3", "-o"]
    asked[-1:-1] = ["--truncation", "0.7"]
    assert run(*asked, str(tmp_path / "there.png"), "--model", "digits") == 0
    assert run(*asked, str(tmp_path / "here.png"), "--local", str(place.models / "digits")) == 0
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()


def test_models_lists_a_server_s_and_a_repository_s(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models") == 0
    heads, digits, flagship, plain = capsys.readouterr().out.splitlines()
    assert heads.split() == ["MODEL", "LIVE", "VERSIONS", "CLASSES", "NOTE"]
    assert digits.split() == ["digits", "1", "1", "3"]
    assert flagship.split()[-1] == "default"
    assert plain.split()[-1] == "0"
    assert run("models", str(place.models)) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["digits", "1", "1", "3"]


def test_jobs_are_submitted_listed_shown_waited_for_and_cancelled(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--recipe", "cgan", "--dataset", "digits", "--images", "500", "--set", "batch=32", "--set", "lr_g=0.0002"]
    assert run("jobs", "submit", "by-command", *asked) == 0
    job, _, state = capsys.readouterr().out.partition(":")
    assert state.startswith(" queued (no worker is running")
    for listing in (["jobs"], ["jobs", "list", "--state", "queued"]):
        assert run(*listing) == 0
        assert re.search(rf"^{job} +queued +by-command +cgan +digits", capsys.readouterr().out, re.M)
    assert run("jobs", "show", job) == 0
    assert '"overrides": {\n   "batch": 32,\n   "lr_g": 0.0002\n  }' in capsys.readouterr().out
    assert run("jobs", "wait", job, "--timeout", "0.1") == 2
    assert f"error: job {job} has not ended within 0.1 s" in capsys.readouterr().err
    assert run("jobs", "cancel", job, "--keep") == 2
    assert "does not train (queued)" in capsys.readouterr().err
    assert run("jobs", "cancel", job) == 0
    assert capsys.readouterr().out == f"{job}: cancelled\n"
    assert run("jobs", "wait", job) == 2
    assert capsys.readouterr().err.endswith(f"error: job {job} has been cancelled\n")


def test_upload_sends_a_folder(place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8), len(name)).save(tmp_path / name / "1.png")
    assert run("upload", "by-command", str(tmp_path)) == 0
    assert capsys.readouterr().out == "by-command: 2 images of 2 classes are kept\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["generate", "--label", "99"], "model mnist-projgan has no label 99"),
        (["generate", "-o", "x.gif"], ".gif is no kind of file"),
        (["generate", "-o", "no/such/folder/x.png"], "No such file or directory"),
        (["generate", "--local", "nowhere"], "no model 'nowhere'"),
        (["generate", "--url", "nowhere"], "'nowhere' is no address"),
        (["models", "no-folder"], "is no folder"),
        (["jobs", "show", "nothing"], "nothing"),
        (["jobs", "submit", "a", "--recipe=cgan", "--dataset=digits", "--images=9", "--set=x"], "NAME=VALUE"),
        (["upload", "name", "no-folder"], "is not there"),
    ],
)
def test_what_fails_is_one_sentence_and_status_two(
    place: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == calls.FAILED
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert told in error
    assert error.count("\n") == 1


def test_a_refused_token_is_told_with_where_it_comes_from(
    place: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GANSERVE_TOKEN")
    assert run("jobs") == calls.FAILED
    assert "GANSERVE_TOKEN" in capsys.readouterr().err


def test_a_wrong_option_is_status_two() -> None:
    with pytest.raises(SystemExit) as raised:
        run("generate", "-n", "many")
    assert raised.value.code == 2


def test_what_is_broken_off_at_the_keyboard_ends_quietly() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert calls.run(interrupted) == calls.INTERRUPTED


def test_nothing_in_a_table_breaks_a_line_or_reaches_the_terminal() -> None:
    told = calls.table(("A", "B"), [("x\x1b[31m\n", None), ("long name", 1)])
    assert told.splitlines() == ["A          B", "x?[31m?    -", "long name  1"]


def test_check_tells_what_a_set_is_without_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("2", 3), ("10", 1)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (20, 20), (200, 10 * index, 0)).save(tmp_path / "pets" / name / f"{index}.png")
    archive = shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "pets")
    for place in (str(tmp_path / "pets"), archive):
        assert run("check", place) == 0
        told = capsys.readouterr().out
        assert "4 pictures, colour, read at 20 x 20 pixels" in told
        assert "from 1 pictures (10) to 3 (2)" in told


def test_check_refuses_in_one_sentence_what_is_no_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.png").write_bytes(b"oops")
    (tmp_path / "empty").mkdir()
    for place, why in (("absent", "not there"), ("empty", "no picture"), (".", "broken.png"), ("broken.png", "ZIP")):
        assert run("check", str(tmp_path / place)) == 2
        told = capsys.readouterr().err
        assert why in told
        assert told.count("\n") == 1
