"""Models are trained side by side, and why one could not be is said."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from ganserve import machine
from training import models, quality


def test_the_table_of_the_shipped_models_is_not_overwritten_by_those_of_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []
    monkeypatch.setattr(quality, "write", written.append)
    monkeypatch.setattr(models, "train", lambda *asked: 3)
    monkeypatch.setattr(models, "_why", lambda *asked: "not trained")
    ours = Path(models.__file__).parent.parent / "models"
    for folder, times in ((tmp_path, 0), (ours, 1)):
        assert models.main(["--runs", str(tmp_path), "--models", str(folder), "--recipes", "gan"]) == 1
        assert len(written) == times


def test_a_training_that_ends_badly_is_told_with_what_it_said_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(machine, "python", lambda module: [sys.executable, "-m", module])
    (tmp_path / "models").mkdir()
    folders = ["--runs", str(tmp_path / "runs"), "--models", str(tmp_path / "models")]
    assert models.main([*folders, "--recipes", "gan", "--dataset", str(tmp_path / "no such folder")]) == 1
    said = capsys.readouterr().out
    assert re.match(r"mnist-gan: exit status 2: error: data set '.*no such folder'.* cannot be read", said)
