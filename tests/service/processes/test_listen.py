"""What is listened on: every address of a host, IPv4 as well behind ``::``, and in one sentence why not."""

import socket
import subprocess
import sys

import httpx
import pytest

from ganserve.settings import SettingsError
from service.processes import listen
from tests.service.test_app import environment, start, stop

__all__ = ["environment"]


def test_two_colons_are_both_families() -> None:
    [made] = listen.bind("::", 0)
    with made:
        assert made.family == socket.AF_INET6
        assert made.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0


def test_another_ipv6_address_is_that_alone() -> None:
    [made] = listen.bind("::1", 0)
    with made:
        assert made.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


@pytest.mark.parametrize("processes", ["1", "2"])
def test_two_colons_answer_ipv4_in_every_mode(environment: dict[str, str], processes: str) -> None:
    process, address = start(environment, "--host", "::", "--workers", processes, "--lanes", "1")
    port = int(address.rpartition(":")[2].rstrip("/"))
    try:
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{port}/health/live", timeout=30).status_code == 200
    finally:
        stop(process)


def test_all_addresses_of_a_host_have_one_port() -> None:
    made = listen.bind("localhost", 0)
    try:
        assert len({one.getsockname()[1] for one in made}) == 1
        assert made[0].family == socket.AF_INET
    finally:
        for one in made:
            one.close()


@pytest.mark.parametrize(("host", "name"), [
    ("no-such-host.invalid", "GANSERVE_HOST"), ("192.0.2.1", "GANSERVE_HOST"), ("a" * 70, "GANSERVE_HOST"),
])  # fmt: skip
def test_a_host_that_cannot_be_bound_is_named(host: str, name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        listen.bind(host, 0)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_port_in_use_is_one_sentence_and_status_2(environment: dict[str, str], processes: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "service", "--port", port, "--workers", processes]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"error: GANSERVE_PORT or --port is {port}: another program listens there; take another, or 0 for a free one\n"
    )
