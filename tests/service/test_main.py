"""What the command does before it serves: models where there are none."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from ganserve import shipped
from ganserve.settings import PREFERRED, load
from service.__main__ import _settle


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GANSERVE_")]:
        monkeypatch.delenv(name)
    return tmp_path


def test_where_no_models_are_named_and_none_are_here_the_shipped_one_is_put_there_and_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _settle(load([]))
    assert (folder / "models" / PREFERRED / "live.json").is_file()
    [told] = caplog.messages
    assert told.startswith(f"{folder / 'models'} was not there: it now holds the model that is shipped, {PREFERRED}")
    _settle(load([]))
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("by", ["environment", "flag", "file"])
def test_a_folder_that_somebody_names_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    flags = []
    if by == "environment":
        monkeypatch.setenv("GANSERVE_MODELS", "models")
    elif by == "flag":
        flags = ["--models", "models"]
    else:
        (folder / ".env").write_text("GANSERVE_MODELS=models\n")
    _settle(load(flags))
    assert not (folder / "models").exists()


def test_a_folder_that_cannot_be_made_is_told_and_the_service_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(models: Path) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shipped, "settle", refused)
    _settle(load([]))
    [told] = caplog.messages
    assert "cannot be made (Permission denied): no model is served until one is there" in told
