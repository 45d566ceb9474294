"""What strangers may hold: connections without getting on end, and those who use theirs are served throughout."""

import asyncio
import http.client
import resource
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import cast

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from ganserve.settings import Settings
from service.processes.connections import Connection, Connections
from tests.service.test_app import environment, start, stop, wait_for

__all__ = ["environment"]

BEGUN = b"GET /health/live HTTP/1.1\r\nHost: a\r\nX: "
POST = b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
SHORT = ("--header-timeout", "1", "--body-timeout", "1", "--idle-timeout", "1", "--admin-token", "secret")


@contextmanager
def serving(environment: dict[str, str], *flags: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    process, address = start(environment, *SHORT, *flags)
    try:
        yield process, int(address.rpartition(":")[2])
    finally:
        if process.poll() is None:
            stop(process)


def hold(port: int, data: bytes) -> socket.socket:
    held = socket.create_connection(("127.0.0.1", port), timeout=10)
    held.sendall(data)
    return held


def rest(held: socket.socket) -> bytes:
    """What comes until the other side ends the connection."""
    found = b""
    with held, suppress(ConnectionResetError):
        while part := held.recv(65536):
            found += part
    return found


def settings(**changes: int) -> Settings:
    return Settings.model_validate(changes)


def counted(port: int, status: int) -> float:
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if "requests_total" in line and f'status="{status}"' in line)


def waiting(port: int) -> float:
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("ganserve_queued_images "))


def test_late_headers_bodies_and_idle_connections_end_each_at_its_deadline(environment: dict[str, str]) -> None:
    with serving(environment, "--workers", "1") as (_, port):
        began = time.monotonic()
        silent, headers, body = hold(port, b""), hold(port, BEGUN), hold(port, POST)
        idle = hold(port, b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert rest(silent) == b""
        assert rest(headers).startswith(b"HTTP/1.1 408 ")
        assert rest(body).startswith(b"HTTP/1.1 408 ")
        assert rest(idle).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began < 8
        # Who sends a little at a time gets on with a body, and not with headers.
        slow, dribble = hold(port, POST), hold(port, BEGUN)
        for _ in range(5):
            time.sleep(0.4)
            slow.sendall(b" ")
        assert rest(dribble).startswith(b"HTTP/1.1 408 ")
        slow.sendall(b"}" * 994)
        assert slow.recv(12) == b"HTTP/1.1 400"
        assert counted(port, 408) == 1
        slow.close()


def test_an_answer_that_nobody_reads_is_dropped(environment: dict[str, str]) -> None:
    with serving(environment, "--workers", "1") as (_, port):
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        held.settimeout(10)
        held.connect(("127.0.0.1", port))
        held.sendall(b"GET /datasets/synthetic?n=100000&format=tar&version=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert held.recv(12) == b"HTTP/1.1 200"
        time.sleep(3)
        assert b"\r\n0\r\n\r\n" not in rest(held)[-16:]


def test_a_client_that_reads_slowly_is_served_on(environment: dict[str, str]) -> None:
    with serving(environment, "--workers", "1") as (_, port):
        held = hold(port, b"GET /datasets/synthetic?n=100000&format=tar&version=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        # Far less than the system's buffers hold: what waits in the service stands for seconds meanwhile.
        until = time.monotonic() + 5
        while time.monotonic() < until:
            held.recv(40_000)
            time.sleep(0.1)
        # Cut off, it would end with what is in the buffers.
        more = 0
        while more < 20_000_000 and (part := held.recv(1 << 20)):
            more += len(part)
        held.close()
        assert more >= 20_000_000


@pytest.mark.parametrize("workers", [1, 2])
def test_with_more_half_open_connections_than_descriptors_all_who_use_theirs_are_served(
    environment: dict[str, str], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = 128
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({few}, {few}));"
        " from service.__main__ import main; raise SystemExit(main(sys.argv[1:]))"
    )
    real = subprocess.Popen

    def limited(command: list[str], **options: object) -> "subprocess.Popen[str]":
        return real([sys.executable, "-c", code, *command[3:]], **options)  # type: ignore[call-overload, no-any-return]

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", limited)
        # Who is kept from a core for a second between two requests has not been idle.
        idle = ("--idle-timeout", "30")
        running = serving(environment, *idle, "--workers", str(workers), "--lanes", "1")
        process, port = running.__enter__()
    try:
        standing = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

        def ask(client: http.client.HTTPConnection, seed: int) -> int:
            client.request("GET", f"/generate?label=1&seed={seed}")
            answer = client.getresponse()
            answer.read()
            return answer.status

        assert ask(standing, 0) == 200
        with ExitStack() as stack:
            for seed in range(150 * workers):
                with_room = socket.create_connection(("127.0.0.1", port), timeout=10)
                stack.callback(with_room.close)
                with suppress(OSError):
                    with_room.sendall(BEGUN)
                if seed % 30 == 0:
                    assert ask(standing, seed) == 200
            for seed in range(8):
                time.sleep(0.25)
                assert ask(standing, seed) == 200
            assert httpx.get(f"http://127.0.0.1:{port}/generate?label=1&seed=1").status_code == 200
            standing.close()
        assert process.poll() is None
    finally:
        running.__exit__(None, None, None)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_who_hangs_up_is_499_and_no_traceback(environment: dict[str, str]) -> None:
    calls = [
        b"POST /generate",
        b"POST /v2/models/digits/infer",
        b"POST /v2/repository/index",
        b"PUT /models/digits/live",
        b"PUT /datasets/pets",
    ]
    with serving(environment, "--workers", "1") as (process, port):
        rest_of = b"\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        for call in calls:
            told = rest_of.replace(b"json", b"zip") if b"datasets" in call else rest_of
            hold(port, call + b" HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret" + told).close()
        streamed = hold(port, b"GET /datasets/synthetic?n=100000&format=tar&version=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert streamed.recv(12) == b"HTTP/1.1 200"
        streamed.close()
        wait_for(lambda: counted(port, 499) == len(calls) + 1)
        assert counted(port, 500) == 0
        assert "Traceback" not in stop(process)


def test_who_sends_no_more_once_all_is_asked_is_answered(environment: dict[str, str]) -> None:
    live = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    grid = b"GET /generate?label=1&n=300&seed=5&version=1 HTTP/1.1\r\nHost: a\r\n\r\n"
    body = b'{"label": 2, "n": 1, "version": 1}'
    post = POST.replace(b"1000\r\n\r\n{", b"%d\r\n\r\n%b" % (len(body), body))
    tar = grid.replace(b"/generate?label=1&n=300&seed=5", b"/datasets/synthetic?n=3000&format=tar")
    with serving(environment, "--workers", "1") as (process, port):
        for sent, answers in (
            (live, 1),
            (live.replace(b"1.1", b"1.0"), 1),
            (grid, 1),
            (post, 1),
            (live + grid + post + live, 4),
            # What is not whole is nothing that could be answered.
            (grid + BEGUN, 1),
        ):
            closed = hold(port, sent)
            closed.shutdown(socket.SHUT_WR)
            told = rest(closed)
            assert told.count(b"HTTP/1.1 200 OK") == answers, sent
            assert told.count(b"connection: close") <= 1
        for late in (0.0, 0.1):
            streamed = hold(port, tar)
            time.sleep(late)
            streamed.shutdown(socket.SHUT_WR)
            assert rest(streamed).endswith(b"\r\n0\r\n\r\n")
        assert counted(port, 499) == 0
        # Not the body that was promised.
        broken = hold(port, POST)
        broken.shutdown(socket.SHUT_WR)
        assert rest(broken) == b""
        wait_for(lambda: counted(port, 499) == 1)
        assert "Traceback" not in stop(process)


def test_who_has_hung_up_while_a_request_waits_frees_its_place_within_seconds(environment: dict[str, str]) -> None:
    n = 50_000
    bounds = ("--max-images", str(n), "--max-queued-images", str(3 * n), "--batch-rows", "1", "--lanes", "1")
    with serving(environment, "--workers", "1", "--request-timeout", "300", *bounds) as (process, port):
        asked = [hold(port, b"GET /generate?n=%d&seed=1 HTTP/1.1\r\nHost: a\r\n\r\n" % n) for _ in range(2)]
        wait_for(lambda: waiting(port) > n)
        for held in asked:
            held.close()
        wait_for(lambda: waiting(port) == 0)
        assert counted(port, 499) == 2
        assert "Traceback" not in stop(process)


def test_what_is_under_way_when_the_time_to_drain_is_over_is_cut_off_without_a_traceback(
    environment: dict[str, str],
) -> None:
    with serving(environment, "--workers", "1", "--drain-timeout", "1", "--body-timeout", "30") as (process, port):
        streamed = hold(port, b"GET /datasets/synthetic?n=100000&format=tar&version=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert streamed.recv(12) == b"HTTP/1.1 200"
        sent = hold(port, POST)
        time.sleep(0.5)
        log = stop(process)
        assert rest(sent).startswith(b"HTTP/1.1 503 ")
        streamed.close()
    assert "graceful shutdown exceeded" in log
    assert "Traceback" not in log


def answered(port: int, data: bytes) -> bytes:
    """The status line of what comes, whether or not the connection ends with it."""
    with hold(port, data) as held:
        return held.recv(65536).partition(b"\r\n")[0]


def test_what_is_no_request_or_more_than_one_is_refused_and_headers_are_bounded(environment: dict[str, str]) -> None:
    get = b"GET /health/live HTTP/1.1\r\n"
    # A body that is packed in a way that nobody here unpacks would be taken for what it is not.
    coded = b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    with serving(environment, "--workers", "1") as (process, port):
        assert answered(port, get + b"Host: a\r\n\r\n") == b"HTTP/1.1 200 OK"
        assert answered(port, b"GET /health/live HTTP/1.0\r\n\r\n") == b"HTTP/1.1 200 OK"
        assert answered(port, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 204")
        older = coded.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"gzip, ", b"")
        others = [get.replace(b" HTTP/1.1", told) + b"Host: a\r\n\r\n" for told in (b"", b" HTTP/0.9", b" HTTP/2.0")]
        hosts = [get + b"\r\n", get + b"Host: a\r\nHost: b\r\n\r\n"]
        for wrong in (*hosts, b"\x16\x03\x01\r\n\r\n", coded, older, *others):
            assert answered(port, wrong) == b"HTTP/1.1 400 Bad Request"
        large = hold(port, get + b"Host: a\r\nX: ")
        with suppress(OSError):
            for _ in range(100):
                large.sendall(b"a" * 10_000)
                time.sleep(0.005)
        assert rest(large).startswith(b"HTTP/1.1 431 ")
        # A body that nobody wants any more is no header.
        wanted = b"PUT /datasets/a HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"
        unwanted = hold(port, wanted)
        assert unwanted.recv(12) == b"HTTP/1.1 401"
        for _ in range(20):
            unwanted.sendall(b"a" * 10_000)
        unwanted.sendall(get + b"Host: a\r\n\r\n")
        assert b"HTTP/1.1 200 OK" in rest(unwanted)
        # Nor is its end, in one piece with the next request.
        unwanted = hold(port, wanted)
        assert unwanted.recv(12) == b"HTTP/1.1 401"
        unwanted.sendall(b"a" * 200_000 + get + b"Host: a\r\n\r\n")
        assert b"HTTP/1.1 200 OK" in rest(unwanted)
        assert "Traceback" not in stop(process)


def test_what_frames_a_body_is_bounded_and_trailers_are_no_headers(environment: dict[str, str]) -> None:
    post = b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
    with serving(environment, "--workers", "1") as (process, port):
        # Small chunks, with extensions, are a body as any.
        assert answered(port, post + b"1;a=b\r\n \r\n" * 20_000 + b"2\r\n{}\r\n0\r\n\r\n") == b"HTTP/1.1 200 OK"
        for begun, more in ((b"2;", b"a" * 10_000), (b"2\r\n{}\r\n0\r\n", b"x: " + b"a" * 10_000 + b"\r\n")):
            endless = hold(port, post + begun)
            with suppress(OSError):
                for _ in range(100):
                    endless.sendall(more)
                    time.sleep(0.005)
            assert rest(endless).startswith(b"HTTP/1.1 431 ")
        # By the time that they come, the request has been judged by its headers.
        trailers = b"If-None-Match: *\r\nHost: b\r\nAuthorization: Bearer secret\r\n\r\n"
        held = hold(port, post + b'b\r\n{"seed": 1}\r\n0\r\n' + trailers + b"GET /jobs HTTP/1.1\r\nHost: a\r\n\r\n")
        told = rest(held)
        assert (told.count(b"HTTP/1.1 200 OK"), told.count(b"HTTP/1.1 401 ")) == (1, 1)
        assert "Traceback" not in stop(process)


def test_a_request_that_would_rather_speak_another_protocol_keeps_its_body_and_its_followers(
    environment: dict[str, str],
) -> None:
    asked = (
        b"POST /generate HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Type: application/json\r\n"
    )
    body = b'{"label": 2, "n": 1, "version": 1}'
    whole = asked + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunked = asked + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    last = b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with serving(environment, "--workers", "1") as (process, port):
        for sent in (whole, chunked, whole * 3, whole + chunked):
            times = sent.count(b"POST")
            for cut in (len(sent), len(sent) - 3, sent.index(b"\r\n\r\n") + 4, sent.index(b"Upgrade: h") + 4, 1):
                held = hold(port, sent[:cut])
                time.sleep(0.02)
                held.sendall(sent[cut:] + last)
                told = rest(held)
                assert told.count(b"HTTP/1.1 200 OK") == times + 1
                assert told.count(b"x-label: two\r\n") == times
        for wrong in (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", whole.replace(b"Host: a\r\n", b"")):
            assert answered(port, wrong) == b"HTTP/1.1 400 Bad Request"
        log = stop(process)
    assert "Traceback" not in log
    assert "WebSocket" not in log


def test_an_idle_connection_keeps_nothing_of_what_came_last() -> None:
    many, large = 40, 60_000

    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        """Answers without reading the body, as to a wrong token."""
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def held() -> float:
        """What a connection keeps of a request of 180,000 bytes, in bytes."""
        config = uvicorn.Config(refuses, log_config=None, access_log=False)
        config.load()
        state = ServerState()
        made = partial(Connection, config, state, {}, connections=Connections(settings(), 1024))
        server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
        head = b"POST /%b HTTP/1.1\r\nHost: a\r\nX: %b\r\nContent-Length: %d\r\n\r\n"
        open, before = [], 0
        for number in range(many + 1):
            if number == 1:
                # The first brings what is made once.
                before = tracemalloc.get_traced_memory()[0]
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1000)
            size = large // 2 if number else 10
            writer.write(head % (b"p" * size, b"x" * size, large) + b"b" * large)
            await reader.readuntil(b"\r\n\r\n")
            open.append(writer)
        while not all(connection.cycle.response_complete for connection in cast("set[Connection]", state.connections)):
            await asyncio.sleep(0.01)
        kept = tracemalloc.get_traced_memory()[0] - before
        for writer in open:
            writer.close()
        server.close()
        return kept / many

    tracemalloc.start()
    try:
        assert asyncio.run(held()) < 20_000
    finally:
        tracemalloc.stop()


def test_connections_never_take_all_descriptors_and_are_divided_among_processes() -> None:
    assert Connections(settings(), 1024).most == 768
    assert Connections(settings(max_connections=100, workers=4), 1024).most == 25
    assert Connections(settings(max_connections=10**6, workers=1), 1024).most == 768
