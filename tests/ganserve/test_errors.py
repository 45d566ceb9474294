from __future__ import annotations

import re
import time
from email.utils import formatdate

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


NOW, LATER = "Fri, 27 Nov 2026 18:00:00 GMT", "Fri, 27 Nov 2026 18:01:30 GMT"


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({"Retry-After": "5"}, 5.0),
        ({"Retry-After": " 12 "}, 12.0),
        ({"Retry-After": LATER, "Date": NOW}, 90.0),
        ({"Retry-After": NOW, "Date": LATER}, 0.0),
        ({"Retry-After": LATER, "Date": "lately"}, None),
        *(({"Retry-After": odd}, None) for odd in ("", "soon", "-3", "1.5", "٣", "Fri, 99 Nov 2026 18:00:00 GMT")),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_answers_own_clock(
    told: dict[str, str], seconds: float | None
) -> None:
    assert errors.seconds(told) == seconds


def test_a_date_without_a_clock_beside_it_counts_from_now() -> None:
    found = errors.seconds({"Retry-After": formatdate(time.time() + 60, usegmt=True)})
    assert found is not None
    assert 40 < found <= 60


def test_a_refusal_without_a_server_has_the_number_and_words_of_its_class() -> None:
    refused = errors.Invalid("n is 0: expected at least 1")
    assert (refused.status, refused.detail, refused.errors, refused.retry_after) == (422, str(refused), [], None)
    assert refused.title.startswith("Unprocessable")


def test_a_number_that_http_does_not_know_is_told_too() -> None:
    found = errors.problem(499, b"")
    assert (type(found), found.status, found.title) == (errors.Problem, 499, "Error")
