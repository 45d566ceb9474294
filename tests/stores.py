"""Object stores on loopback, for tests: real servers, and a proxy before them that fails as networks do."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hmac
import http.client
import io
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BUCKET = "ganserve"
# Azurite's one account, which its documentation names.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(port: int) -> dict[str, str]:
    """What a process needs to use the S3 server, or a proxy before it, at a port."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def _running(command: list[str], port: int, seconds: float = 60.0) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + seconds
        while not _answers(port):
            assert process.poll() is None, f"{command[0]} ended"
            assert time.monotonic() < until, f"{command[0]} does not answer"
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def s3() -> Iterator[int]:
    """moto's S3 server with one bucket; its port."""
    port = free_port()
    with _running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
        urllib.request.urlopen(asked).close()
        yield port


def azurite_command() -> list[str] | None:
    """How Azurite is started, where npm has installed it: on the PATH, or where GANSERVE_AZURITE says."""
    found = os.environ.get("GANSERVE_AZURITE") or shutil.which("azurite-blob")
    return [found] if found else None


@contextmanager
def azurite(folder: Path) -> Iterator[int]:
    """Azurite with one container; its port."""
    command, port = azurite_command(), free_port()
    assert command is not None
    options = ["--blobPort", str(port), "--location", str(folder), "--skipApiVersionCheck", "--silent"]
    with _running([*command, *options], port):
        date = email.utils.formatdate(usegmt=True)
        named = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
        signed = hmac.new(base64.b64decode(KEY), f"PUT{chr(10) * 12}{named}".encode(), "sha256").digest()
        headers = {
            "x-ms-date": date,
            "x-ms-version": "2021-08-06",
            "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signed).decode()}",
            "Content-Type": "",
        }
        url = f"http://127.0.0.1:{port}/{ACCOUNT}/{BUCKET}?restype=container"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT", data=b"", headers=headers)).close()
        yield port


def azure_environment(port: int) -> dict[str, str]:
    """What a process needs to use Azurite at a port."""
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{ACCOUNT}",
    }


class Proxy:
    """Passes requests on to a server, and does to them what it is told.

    Attributes:
        fault: given a method and a path, what becomes of the request: None, "503", "cut" (no answer at all), "lost" (it
            is done, and the answer is cut off), "hang" (it is taken, and nothing ever comes), "drip" (it is done, and
            the answer comes a byte a second), "trickle" (its body does), or seconds to wait first.
        unconditional: the conditions of requests are left out, as by a store that does not know them.
        asked: each request's method and path.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.fault: Callable[[str, str], str | float | None] = lambda method, path: None
        self.unconditional = False
        self.asked: list[tuple[str, str]] = []
        self.over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class _Dripping(io.BufferedIOBase):
    """Passes a byte a second on."""

    def __init__(self, file: Any, over: threading.Event) -> None:
        self._file, self._over = file, over

    def write(self, content: Any) -> int:
        for byte in bytes(content):
            if self._over.wait(1):
                break
            # Whoever asked may have gone.
            with contextlib.suppress(OSError):
                self._file.write(bytes([byte]))
        return len(content)

    def flush(self) -> None:
        """Nothing is held back."""


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            proxy.asked.append((self.command, self.path))
            fault = proxy.fault(self.command, self.path)
            if isinstance(fault, float):
                time.sleep(fault)
            if fault == "hang":
                proxy.over.wait()
            if fault == "503":
                self._answer(503, {}, b"")
                return
            if fault == "cut":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            left_out = ("if-match", "if-none-match") if proxy.unconditional else ()
            headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
            upstream = http.client.HTTPConnection("127.0.0.1", proxy.target, timeout=30)
            try:
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                content = answer.read()
            finally:
                upstream.close()
            if fault == "lost":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if fault == "drip":
                self.wfile = _Dripping(self.wfile, proxy.over)
            self._answer(answer.status, dict(answer.getheaders()), content, trickles=fault == "trickle")

        def _answer(self, status: int, headers: dict[str, str], content: bytes, *, trickles: bool = False) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length)
            self.end_headers()
            if trickles:
                self.wfile = _Dripping(self.wfile, proxy.over)
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass  # noqa: N815

    return Handler


class Link:
    """A TCP link to a port, which can be cut: whoever is connected is cut off, and nobody gets through meanwhile."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._whole = threading.Event()
        self._whole.set()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._whole.set()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            if not self._whole.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            for source, sink in ((near, far), (far, near)):
                self._open.add(source)
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                sink.sendall(content)
        self._open.discard(source)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()
