import asyncio
from typing import Any

import pytest
from fastapi import Request

from service.http.answers import describe, disconnected, etag, holds, matches
from tests.tiny import card

TAG = '"abc"'


@pytest.mark.parametrize("told", [TAG, f"W/{TAG}", f'"x", {TAG}', f'"x",W/{TAG} , "y"', "*", " * "])
def test_if_none_match_names_a_tag_weakly_among_others_or_any(told: str) -> None:
    assert matches(told, TAG)
    assert matches(told, f"W/{TAG}")


@pytest.mark.parametrize("told", [None, "", '"x"', "abc", '"ab"c"', '"*"', '"x, abc"'])
def test_another_tag_does_not_match(told: str | None) -> None:
    assert not matches(told, TAG)


@pytest.mark.parametrize(
    ("told", "right"),
    [(None, True), ("*", True), (TAG, True), (f'"x", {TAG}', True), (f"W/{TAG}", False), ('"x"', False), ("", False)],
)
def test_if_match_compares_strongly(told: str | None, right: bool) -> None:
    assert holds(told, TAG) is right


def test_equal_content_has_equal_tags_and_other_content_another() -> None:
    assert etag(b"one") == etag("one") != etag("two")
    assert len(etag("")) == 34


@pytest.mark.parametrize(
    ("tag", "versioned", "private", "told"),
    [
        (None, True, False, "no-store"),
        (TAG, False, False, "no-cache"),
        (TAG, True, False, "public, max-age=31536000, immutable"),
        (TAG, True, True, "private, max-age=31536000, immutable"),
    ],
)
def test_an_answer_is_kept_for_ever_only_where_tag_and_version_are_named(
    tag: str | None, versioned: bool, private: bool, told: str
) -> None:
    headers = describe(card("m"), tag, versioned=versioned, private=private)
    assert headers["Cache-Control"] == told
    assert headers.get("ETag") == tag
    assert (headers["X-Model"], headers["X-Model-Version"]) == ("m", "1")


def test_a_client_that_hangs_up_is_noticed_after_what_it_still_sends() -> None:
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": b""}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    asyncio.run(disconnected(Request({"type": "http"}, receive)))
    assert messages == []
