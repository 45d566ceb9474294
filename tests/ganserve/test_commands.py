from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Sequence

import pytest

from ganserve import commands


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_opens_its_part_with_its_options(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "ganserve", name, "--help"], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("usage:")


def test_the_overview_tells_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {name}" in told and command.told in told for name, command in commands.COMMANDS.items())


def test_without_a_command_the_overview_is_shown_and_it_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ganserve"])
    assert commands.main() == 2


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ganserve {commands.installed_version()}\n"


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["trian"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: 'trian' is no command")
    assert "train" in told


def test_arguments_and_exit_status_go_through(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Sequence[str]] = []

    def run(arguments: Sequence[str]) -> int:
        heard.append(arguments)
        return 75

    part = types.ModuleType("part")
    part.main = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "training.train", part)
    assert commands.main(["train", "--recipe", "cgan"]) == 75
    assert heard == [["--recipe", "cgan"]]


def test_a_missing_extra_is_named_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "training.export", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert commands.main(["export"]) == 2
    told = capsys.readouterr().err
    assert "the extra `training`" in told
    assert "torch" in told
    assert "pip install" in told
