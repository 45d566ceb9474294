"""Bodies in any Unicode encoding, in a charset that is named, as a form, and compressed."""

import gzip
import json
import zlib

import pytest
from fastapi.testclient import TestClient

from service.http import body
from service.http.errors import BadRequest, UnsupportedMedia
from tests.service.conftest import ADMIN, Serve

ASKED = {"label": "two", "seed": 5, "format": "json"}
TEXT = json.dumps(ASKED)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_of_any_unicode_encoding_is_read(client: TestClient, encoding: str) -> None:
    expected = client.post("/generate", json=ASKED).content
    sent = TEXT.encode(encoding)
    answer = client.post("/generate", content=sent, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.content) == (200, expected)
    told = ADMIN | {"Content-Type": "application/json"}
    promoted = client.put("/models/digits/live", content='{"version": 1}'.encode(encoding), headers=told)
    assert promoted.status_code == 200


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_v2_reads_the_same_encodings(client: TestClient, encoding: str) -> None:
    answer = client.post("/v2/repository/index", content='{"ready": true}'.encode(encoding))
    assert (answer.status_code, len(answer.json())) == (200, 2)


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [("utf-8", "utf-8"), ('"UTF-8"', "utf-8"), ("utf-16", "utf-16-be"), ("utf-16", "utf-16"),
     ("iso-8859-1", "latin-1"), ("windows-1252", "cp1252")],
)  # fmt: skip
def test_the_charset_that_is_named_is_read(client: TestClient, charset: str, encoding: str) -> None:
    told = {"Content-Type": f"application/json; charset={charset}"}
    refused = client.post("/generate", content='{"label": "caf\u00e9"}'.encode(encoding), headers=told)
    assert refused.status_code == 422
    assert "caf\u00e9" in refused.json()["detail"]


@pytest.mark.parametrize(("content", "charset", "kind"), [
    (b"{}", "koi8-r", UnsupportedMedia), (b"{}", "no-such", UnsupportedMedia), (b"{}", "zlib_codec", UnsupportedMedia),
    (b"\xff\xfe", "utf-8", BadRequest), (b"\xff\xfe{", "utf-8", BadRequest), (b"\x00\xd8\x00", "utf-16-le", BadRequest),
])  # fmt: skip
def test_what_cannot_be_read_is_named(content: bytes, charset: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"send UTF-8|mark"):
        body.text(content, f"application/json; charset={charset}")


@pytest.mark.parametrize("packed", ["gzip", "deflate", "br", "zstd"])
def test_compressed_bodies_are_refused_with_what_is_taken(client: TestClient, packed: str) -> None:
    sent = gzip.compress(TEXT.encode())
    calls = (("POST", "/generate"), ("POST", "/jobs"), ("PUT", "/datasets/x"), ("PUT", "/models/digits/live"))
    for method, path in calls:
        answer = client.request(method, path, content=sent, headers=ADMIN | {"Content-Encoding": packed})
        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
        assert f"Content-Encoding {packed}" in answer.json()["detail"]


def test_identity_is_no_compression(client: TestClient) -> None:
    answer = client.post("/generate", json=ASKED, headers={"Content-Encoding": "identity"})
    assert answer.status_code == 200


def test_v2_unpacks_and_says_what_it_unpacks(client: TestClient) -> None:
    for name, sent in (("gzip", gzip.compress(b"{}")), ("deflate", zlib.compress(b"{}"))):
        assert client.post("/v2/repository/index", content=sent, headers={"Content-Encoding": name}).status_code == 200
    refused = client.post("/v2/repository/index", content=b"{}", headers={"Content-Encoding": "br"})
    assert (refused.status_code, refused.headers["accept-encoding"]) == (415, "gzip, deflate, identity")


def test_the_limit_counts_what_is_unpacked(serve: Serve) -> None:
    client = serve(max_body_bytes=2000)
    packed = gzip.compress(b" " * 5000 + b"{}")
    answer = client.post("/v2/repository/index", content=packed, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413


def test_a_form_asks_as_a_query_does(client: TestClient) -> None:
    form = client.post("/generate", data={"label": "two", "seed": "5", "format": "json"})
    assert (form.status_code, form.content) == (200, client.post("/generate", json=ASKED).content)


def test_json_that_is_called_something_else_is_told_what_to_be_called(client: TestClient) -> None:
    answer = client.put("/models/digits/live", data={"version": "1"}, headers=ADMIN)
    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["detail"]


def test_what_curl_calls_a_form_may_be_json(client: TestClient) -> None:
    told = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/generate", content=TEXT, headers=told).status_code == 200
