"""What a training process tells is read as it was written; anything else on its standard output is passed over."""

import json
import math

import pytest

from ganserve import events


@pytest.mark.parametrize("line", [b"hello\n", b"[1]\n", b"\xff\xfe\n", b"3\n", b"\n", b"{}\n", b'{"event": "else"}\n'])
def test_what_a_library_prints_is_no_event(line: bytes) -> None:
    assert events.read(line) is None


def test_an_event_is_read_as_it_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    event = {"event": "samples", "path": "samples/a.png", "step": 3, "images": 96, "frechet": 1.5, "coverage": math.inf}
    events.write(event)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    read = events.read(line.encode())
    assert read is not None
    assert dict(read) == event
    assert events.content(read) == {key: value for key, value in event.items() if key != "event"}


def test_every_kind_of_event_is_known_by_its_name() -> None:
    assert {"progress", "samples", "warning", "checkpoint", "failed", "finished", "result"} == events.NAMES
    for name in events.NAMES:
        assert events.read(json.dumps({"event": name}).encode()) == {"event": name}


def test_the_exit_statuses_are_those_that_users_were_told() -> None:
    assert (events.FINISHED, events.BAD_INPUT, events.FAILED, events.STOPPED) == (0, 2, 3, 75)
