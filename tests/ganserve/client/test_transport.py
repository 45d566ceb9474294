from __future__ import annotations

import asyncio
import gc
import http.server
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from ganserve import AsyncClient, Client, errors

MODEL = {"name": "m", "live": 1, "previous": None, "versions": [1], "default": True, "left_out": None, "card": None}


def problem(status: int, detail: str, **members: Any) -> bytes:
    told = {"type": "about:blank", "title": "A title", "status": status, "detail": detail, **members}
    return json.dumps(told).encode()


def scripted(*answers: httpx.Response) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A server that gives these answers one after another, and the requests that it got."""
    left, got = list(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        got.append(request)
        return left.pop(0)

    return httpx.MockTransport(answer), got


def refusal(status: int, wait: str | None = None) -> httpx.Response:
    return httpx.Response(status, content=problem(status, "not now"), headers={"Retry-After": wait} if wait else {})


class Both:
    """The same call by either client."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, call: Callable[[Any], Any], *args: Any, **options: Any) -> Any:
        if self.kind == "sync":
            with Client(*args, **options) as client:
                return call(client)

        async def run() -> Any:
            async with AsyncClient(*args, **options) as client:
                return await call(client)

        return asyncio.run(run())


@pytest.fixture(params=["sync", "async"])
def by(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)


@pytest.mark.parametrize("status", [429, 503])
def test_a_passing_refusal_is_waited_out_as_long_as_the_server_says(by: Both, status: int) -> None:
    transport, got = scripted(refusal(status, "1"), refusal(status, "0"), httpx.Response(200, json=[MODEL]))
    began = time.monotonic()
    [model] = by(lambda client: client.models(), "http://here", transport=transport)
    assert model.name == "m"
    assert 1 <= time.monotonic() - began < 15
    assert len(got) == 3


def test_a_wait_that_a_proxy_tells_as_a_date_is_kept_whatever_its_clock_says(by: Both) -> None:
    then, soon = "Thu, 01 Jan 2015 00:00:00 GMT", "Thu, 01 Jan 2015 00:00:01 GMT"
    waiting = httpx.Response(503, text="<html>busy</html>", headers={"Retry-After": soon, "Date": then})
    transport, got = scripted(waiting, httpx.Response(200, json=[MODEL]))
    began = time.monotonic()
    by(lambda client: client.models(), "http://here", transport=transport)
    assert 1 <= time.monotonic() - began < 15
    assert len(got) == 2


def test_who_is_told_to_come_again_at_once_does_not_ask_without_a_pause(by: Both) -> None:
    transport, got = scripted(*[refusal(503, "0") for _ in range(50)])
    with pytest.raises(errors.Unavailable):
        by(lambda client: client.models(), "http://here", transport=transport, deadline=0.5)
    assert 2 <= len(got) <= 6


def test_a_wait_past_the_deadline_is_not_begun_and_the_refusal_is_raised_with_it(by: Both) -> None:
    transport, got = scripted(refusal(429, "60"))
    began = time.monotonic()
    with pytest.raises(errors.Overloaded) as raised:
        by(lambda client: client.models(), "http://here", transport=transport, deadline=0.5)
    assert time.monotonic() - began < 15
    assert raised.value.retry_after == 60
    assert len(got) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (412, errors.Conflict),
        (413, errors.TooLarge),
        (422, errors.Invalid),
        (500, errors.Problem),
        (504, errors.DeadlineExceeded),
    ],
)
def test_a_refusal_carries_the_fields_of_its_problem(by: Both, status: int, kind: type[errors.Problem]) -> None:
    listed = [{"field": "n", "message": "is wrong"}]
    transport, _ = scripted(httpx.Response(status, content=problem(status, "do it otherwise", errors=listed)))
    with pytest.raises(errors.Problem) as raised:
        by(lambda client: client.models(), "http://here", transport=transport)
    found = raised.value
    assert type(found) is kind
    assert (found.status, found.title, found.detail, found.errors) == (status, "A title", "do it otherwise", listed)
    assert str(found) == "do it otherwise"


@pytest.mark.parametrize("content", [b"<html>Bad gateway</html>", b"[1]", b'{"detail": 3}', b"\xff\xfe", b""])
def test_a_refusal_of_anything_else_is_told_as_it_is(content: bytes) -> None:
    transport, _ = scripted(httpx.Response(502, content=content))
    client = Client("http://here", transport=transport)
    with client, pytest.raises(errors.Problem, match="502 Bad Gateway") as raised:
        client.models()
    assert raised.value.status == 502


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(200, json={"hello": 1}),
        httpx.Response(200, json=[{"name": "m"}]),
        httpx.Response(302, headers={"Location": "https://elsewhere/"}),
    ],
)
def test_what_is_no_answer_of_the_service_is_a_bad_answer(answer: httpx.Response) -> None:
    transport, _ = scripted(answer, answer)
    with Client("http://here", transport=transport) as client:
        with pytest.raises(errors.BadAnswer):
            client.models()
        with pytest.raises(errors.BadAnswer):
            client.generate()


def test_url_and_token_come_from_the_environment_and_a_prefix_stays(
    by: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANSERVE_URL", "https://here/some/prefix/")
    monkeypatch.setenv("GANSERVE_TOKEN", "secret")
    transport, got = scripted(httpx.Response(200, json=MODEL), httpx.Response(200, json=MODEL))
    by(lambda client: client.model("a/../b c"), transport=transport)
    by(lambda client: client.model("m"), "http://there/x", token="other", transport=transport)
    assert str(got[0].url) == "https://here/some/prefix/models/a%2F..%2Fb%20c"
    assert got[0].headers["Authorization"] == "Bearer secret"
    assert str(got[1].url) == "http://there/x/models/m"
    assert got[1].headers["Authorization"] == "Bearer other"


def test_tokens_and_passwords_are_never_shown() -> None:
    with Client("http://me:hidden@here/x", token="secret") as client:
        assert repr(client) == "Client('http://here/x')"
        assert "secret" not in repr(client._place)
        assert "hidden" not in repr(client._place)


@pytest.mark.parametrize("url", ["here:8000", "ftp://here", "http://", "http://here:port", "/models"])
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(errors.Invalid, match="is no address"):
        Client(url)


@contextmanager
def speaking(*parts: bytes, every: float = 0.05) -> Iterator[str]:
    """A server that says these parts slowly to whoever comes, and then nothing."""
    over = threading.Event()

    def speak(connection: socket.socket) -> None:
        with connection:
            for part in parts:
                if over.wait(every):
                    return
                try:
                    connection.sendall(part)
                except OSError:
                    return
            over.wait(30)

    def accept() -> None:
        while True:
            try:
                threading.Thread(target=speak, args=[listener.accept()[0]]).start()
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def test_a_hung_server_times_out(by: Both) -> None:
    began = time.monotonic()
    with speaking() as url, pytest.raises(errors.TimedOut, match="in time"):
        by(lambda client: client.models(), url, timeout=0.2)
    assert time.monotonic() - began < 15


def test_a_server_that_trickles_is_given_up_at_the_deadline(by: Both) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    began = time.monotonic()
    with speaking(head, *[b" "] * 400) as url, pytest.raises(errors.TimedOut, match="deadline"):
        by(lambda client: client.models(), url, timeout=5, deadline=0.3)
    assert time.monotonic() - began < 15
    # Each byte of a head begins the time to wait anew, too.
    began = time.monotonic()
    with speaking(*(bytes([byte]) for byte in head * 10)) as url, pytest.raises(errors.TimedOut, match="deadline"):
        by(lambda client: client.models(), url, timeout=5, deadline=0.3)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[", b"nonsense\r\n\r\n"])
def test_a_connection_that_breaks_off_leaves_the_service_unreachable(by: Both, said: bytes) -> None:
    def reset(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.recv(1 << 16)
        connection.sendall(said)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0 if not said else 5))
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=reset, args=[listener])
        thread.start()
        with pytest.raises(errors.Unreachable, match="cannot be reached"):
            by(lambda client: client.models(), f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join(5)


def test_where_nobody_listens_the_service_is_unreachable(by: Both) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(errors.Unreachable, match="is the service running"):
        by(lambda client: client.models(), url)


def test_connections_are_used_again(by: Both) -> None:
    connections = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            connections.append(self.client_address)
            super().setup()

        def do_GET(self) -> None:
            content = json.dumps([MODEL]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    def thrice(client: Any) -> Any:
        if by.kind == "sync":
            return [client.models() for _ in range(3)]

        async def run() -> Any:
            return [await client.models() for _ in range(3)]

        return run()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=[0.01])
        thread.start()
        try:
            assert len(by(thrice, f"http://127.0.0.1:{running.server_address[1]}")) == 3
        finally:
            running.shutdown()
            thread.join(5)
    assert len(connections) == 1


def test_the_asynchronous_client_gives_the_same_images_also_to_many_calls_at_once(server: Any, client: Client) -> None:
    async def many() -> Any:
        async with AsyncClient(server.url) as other:
            calls = [other.generate(n=4, seed=seed, model="digits") for seed in range(5)]
            streamed = [batch async for batch in other.stream(n=7, batch=3, model="digits")]
            return await asyncio.gather(*calls), streamed

    made, streamed = asyncio.run(many())
    for seed, images in enumerate(made):
        assert np.array_equal(images.images, client.generate(n=4, seed=seed, model="digits").images)
    expected = [batch.images for batch in client.stream(n=7, batch=3, model="digits")]
    assert all(np.array_equal(batch.images, images) for batch, images in zip(streamed, expected, strict=True))


def test_a_client_that_nobody_closes_lets_go_of_its_connections_itself(server: Any) -> None:
    client = Client(server.url)
    client.models()
    http = client._http
    del client
    gc.collect()
    assert http.is_closed
