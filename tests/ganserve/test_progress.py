from __future__ import annotations

import sys

import pytest

from ganserve import progress
from ganserve.progress import Bar


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0.0)


def test_a_bar_shows_how_far_it_has_come(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("generate", 10, "images") as bar:
        bar.to(4)
        bar.to(10, note="done")
    assert "10.0/10.0" in capsys.readouterr().err


def test_without_tqdm_a_plain_line_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with Bar("job a1", None, "images") as bar:
        bar.to(1500, total=20000, note="train")
        bar.to(20000, note="publish")
    assert capsys.readouterr().err.splitlines() == [
        "job a1: 1,500 of 20,000 images train",
        "job a1: 20,000 of 20,000 images publish",
    ]


def test_what_is_over_at_once_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "DELAY_SECONDS", 60.0)
    for module in ("tqdm", "json"):
        monkeypatch.setitem(sys.modules, module, None if module == "tqdm" else sys.modules[module])
        with Bar("generate", 10, "images") as bar:
            bar.to(10)
    assert capsys.readouterr().err == ""


def test_a_bar_that_is_not_shown_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("generate", 10, "images", shown=False) as bar:
        bar.to(10)
    assert capsys.readouterr().err == ""


def test_unless_it_is_said_a_bar_is_for_those_who_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress.wanted(True)
    assert not progress.wanted(False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert not progress.wanted(None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert progress.wanted(None)
