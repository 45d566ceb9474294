"""Models are trained side by side, and why one could not be is said."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from ganserve import machine
from training import models


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
