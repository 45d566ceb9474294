from __future__ import annotations

import re

import pytest

from ganserve import errors


def test_the_drawing_shows_every_error_where_it_stands() -> None:
    assert errors.__doc__ is not None
    drawn = {name: indent for indent, name in re.findall(r"^(.*?)(?:├──|└──) (\w+)", errors.__doc__, re.M)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    found = {kind.__name__: kind for kind in kinds}
    assert set(drawn) | {"GanserveError"} == set(found)
    for name, indent in drawn.items():
        assert found[name].__base__ is (errors.Problem if indent.strip() or indent else errors.GanserveError)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("5", 5.0), (" 12 ", 12.0), (None, None), ("soon", None), ("Fri, 27 Nov 2026 18:00:00 GMT", None)],
)
def test_retry_after_is_whole_seconds_or_nothing(told: str | None, seconds: float | None) -> None:
    assert errors.seconds(told) == seconds


def test_a_refusal_without_a_server_has_the_number_and_words_of_its_class() -> None:
    refused = errors.Invalid("n is 0: expected at least 1")
    assert (refused.status, refused.detail, refused.errors, refused.retry_after) == (422, str(refused), [], None)
    assert refused.title.startswith("Unprocessable")


def test_a_number_that_http_does_not_know_is_told_too() -> None:
    found = errors.problem(499, b"")
    assert (type(found), found.status, found.title) == (errors.Problem, 499, "Error")
