"""The comparison of two versions tells what was lost and what moved, and lets a version gain where it may."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.unmoved.__main__ import read, write
from benchmarks.unmoved.administration import letters
from benchmarks.unmoved.compare import compare
from benchmarks.unmoved.recorder import hidden

RECORD = Path(__file__).parents[2] / "benchmarks" / "unmoved.json"


@pytest.fixture(scope="module")
def before() -> dict[str, Any]:
    return read(RECORD)


def differences(before: dict[str, Any], **changed: Any) -> list[str]:
    return compare(before, {**before, **changed})[0]


def test_a_record_is_read_as_it_was_written(before: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "again.json", before)
    assert (tmp_path / "again.json").read_bytes() == RECORD.read_bytes()
    assert compare(before, read(tmp_path / "again.json")) == ([], [])


def test_a_record_holds_every_route_that_the_document_names(before: dict[str, Any]) -> None:
    calls = [name.split(" ")[:2] for name in before["calls"] if not name.startswith("with")]
    asked = {(method, *path.partition("?")[0].split("/")) for method, path in calls}
    for template, methods in before["openapi"]["paths"].items():
        for method in methods:
            parts = (method.upper(), *template.split("/"))
            assert any(map(partial(fits, parts), asked)), f"{method} {template}"


def fits(template: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Whether a path is one of a template."""
    return len(template) == len(path) and all(
        "{" in part or part == told for part, told in zip(template, path, strict=True)
    )


def test_another_answer_is_told_with_its_call_and_its_part(before: dict[str, Any]) -> None:
    calls = copy.deepcopy(before["calls"])
    name = "GET /generate?label=3&n=16&seed=42&format=png"
    calls[name]["status"] = 404
    calls[name]["headers"]["etag"] = '"x"'
    del calls["GET /models"]
    told = differences(before, calls=calls)
    assert [line.partition(": ")[0] for line in told] == [
        f"calls > {name} > status",
        f"calls > {name} > headers > etag",
        "calls",
    ]
    assert told[2] == "calls: GET /models is gone"


def test_answers_may_not_gain_headers_and_cards_may_gain_fields(before: dict[str, Any]) -> None:
    calls, exports = copy.deepcopy(before["calls"]), copy.deepcopy(before["exports"])
    calls["GET /models"]["headers"]["x-new"] = "1"
    assert differences(before, calls=calls) == ["calls > GET /models > headers: new: x-new"]
    exports["cgan"]["card"]["exact"] = True
    assert differences(before, exports=exports) == []
    exports["cgan"]["card"]["z"] = 64
    assert differences(before, exports=exports) == ["exports > cgan > card > z: 100 became 64"]


def test_a_document_may_gain_calls_fields_and_words_but_lose_none(before: dict[str, Any]) -> None:
    openapi = copy.deepcopy(before["openapi"])
    openapi["paths"]["/verify"] = {"post": {}}
    openapi["paths"]["/generate"]["get"]["summary"] = "Pictures"
    parameters = openapi["paths"]["/generate"]["get"]["parameters"]
    parameters.insert(0, {"name": "truncation", "in": "query", "required": False})
    assert differences(before, openapi=openapi) == []
    lost = parameters.pop()
    del openapi["paths"]["/models"]
    assert differences(before, openapi=openapi) == [
        f"openapi > paths > /generate > get > parameters: {lost['name']} in query is gone",
        "openapi > paths: /models is gone",
    ]


def test_what_callers_must_send_may_not_grow_and_what_answers_hold_may(before: dict[str, Any]) -> None:
    openapi = copy.deepcopy(before["openapi"])
    schemas = openapi["components"]["schemas"]
    schemas["JobPage"]["required"].append("total")
    assert differences(before, openapi=openapi) == []
    schemas["JobRequest"]["required"].append("seed")
    assert differences(before, openapi=openapi) == [
        "openapi > components > schemas > JobRequest > required: new: ['seed']"
    ]
    parameters = openapi["paths"]["/morph"]["get"]["parameters"]
    parameters.append({"name": "easing", "in": "query", "required": True})
    assert len(differences(before, openapi=openapi)) == 2


def test_another_machine_is_a_note_and_no_difference(before: dict[str, Any]) -> None:
    told, notes = compare(before, {**before, "machine": {**before["machine"], "torch": "3.0"}})
    assert told == []
    assert len(notes) == 1
    assert "torch is 3.0" in notes[0]


def test_the_archive_that_is_uploaded_is_the_same_each_time() -> None:
    assert letters() == letters()


def test_hidden_values_leave_their_keys_and_what_is_null() -> None:
    value = {"jobs": [{"created_at": "2026", "started_at": None, "seed": 3}]}
    assert hidden(value, {"created_at", "started_at"}) == {
        "jobs": [{"created_at": "<new>", "started_at": None, "seed": 3}]
    }
