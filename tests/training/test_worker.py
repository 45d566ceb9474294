"""The worker's own life: what it hears of others, and how it begins. tests/faults has the rest."""

from __future__ import annotations

import time

import pytest

from training.worker import Silence


def test_a_worker_is_silent_when_its_beat_has_not_changed_for_too_long_by_ones_own_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    silence = Silence(15.0)
    assert silence.listen({"a": 7, "b": 1}) == set(), "whoever is heard of for the first time lives"
    now += 10
    assert silence.listen({"a": 7, "b": 2}) == set()
    now += 6
    assert silence.listen({"a": 7, "b": 2}) == {"a"}
    assert silence.listen({"a": 8, "b": 2}) == set(), "it was only late"
    assert silence.listen({}) == set()
