"""What /generate takes, before any model is looked at."""

import pytest
from pydantic import BaseModel

from service.http.errors import BadRequest, Invalid, NotAcceptable, Problem
from service.schema import MEDIA, GenerateRequest, negotiate, parameters, parse_json, parse_query


def told(request: BaseModel) -> dict[str, object]:
    return request.model_dump(exclude_unset=True)


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        (b"", {}),
        (b"label=3&n=2", {"label": "3", "n": 2}),
        (b"label=one", {"label": "one"}),
        (b"label=one,2", {"label": ["one", "2"]}),
        # An empty name is a name, which no model has.
        (b"label=", {"label": ""}),
        (b"label=one&label=2", {"label": ["one", "2"]}),
        (b"seeds=1,2&seeds=3&format=npz", {"seeds": [1, 2, 3], "format": "npz"}),
    ],
)
def test_a_query_is_read_as_the_body_would_be(query: bytes, fields: dict[str, object]) -> None:
    assert told(parse_query(query)) == fields


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (b"n=1&n=2", "n is given twice"),
        (b"n=two", 'n: "two" is not a whole number'),
        (b"seeds=1,x", "seeds"),
        (b"size=3", "unknown field; there are"),
        (b"padding=65", "padding"),
    ],
)
def test_a_wrong_query_says_what_is_wrong(query: bytes, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_query(query)
    assert words in refused.value.detail


@pytest.mark.parametrize(("body", "kind"), [(b"{", BadRequest), (b"[]", Invalid), (b'{"n": "2"}', Invalid)])
def test_a_body_is_unreadable_or_wrong(body: bytes, kind: type[Problem]) -> None:
    with pytest.raises(kind):
        parse_json(body)


def test_no_body_asks_for_one_image() -> None:
    assert parse_json(b"") == GenerateRequest()


@pytest.mark.parametrize("name", MEDIA)
def test_every_format_can_be_asked_for_by_its_media_type(name: str) -> None:
    assert negotiate(None, f"text/html, {MEDIA[name]};q=0.5") == name  # type: ignore[index]


@pytest.mark.parametrize("accept", ["text/html", "image/png;q=0", "image/png;q=much"])
def test_where_accept_takes_nothing_the_media_types_are_told(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="image/webp"):
        negotiate(None, accept)


def test_every_field_is_a_documented_parameter() -> None:
    assert [found["name"] for found in parameters()] == list(GenerateRequest.model_fields)
    assert all(found["description"] and "type" in found["schema"] for found in parameters())
