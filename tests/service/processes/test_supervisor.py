"""Several serving processes behind one port: even shares, replacement, and one end for all."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.service.test_app import environment, start, stop, wait_for

__all__ = ["environment"]


def children(parent: int) -> list[psutil.Process]:
    """The serving processes, without Python's own resource tracker."""
    return [child for child in psutil.Process(parent).children() if "spawn_main" in " ".join(child.cmdline())]


def connections(child: psutil.Process, port: int) -> int:
    """Open TCP connections of clients that a process holds."""
    return sum(1 for c in child.net_connections("tcp") if c.laddr and c.laddr.port == port and c.raddr)


@contextmanager
def serving(
    environment: dict[str, str], *flags: str, count: int = 2
) -> Iterator[tuple["subprocess.Popen[str]", str, int]]:
    process, address = start(environment, "--workers", "2", "--lanes", "1", "--admin-token", "secret", *flags)
    port = int(address.rpartition(":")[2])
    try:
        wait_for(lambda: count == 1 or len(children(process.pid)) == count, 30)
        yield process, address, port
    finally:
        if process.poll() is None:
            stop(process)


def supervise(environment: dict[str, str], options: str, flags: str) -> "subprocess.Popen[str]":
    program = (
        "from service.__main__ import _options; from service.processes.supervisor import Supervisor;"
        f" from ganserve.settings import load; s = load(); raise SystemExit(Supervisor({options}, {flags}).run())"
    )
    told = environment | {"GANSERVE_PORT": "0", "GANSERVE_ADMIN_TOKEN": "secret"}
    return subprocess.Popen([sys.executable, "-c", program], env=told, stderr=subprocess.PIPE, text=True)


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def ask(client: httpx.Client, seed: int) -> int:
    return client.get(f"/generate?label=1&seed={seed}").status_code


def test_kept_connections_are_shared_evenly_and_a_dead_process_is_replaced(
    environment: dict[str, str],
) -> None:
    with serving(environment) as (process, address, port), ExitStack() as stack:
        first, second = children(process.pid)

        def both_ready() -> bool:
            clients = [httpx.Client(base_url=address) for _ in range(4)]
            assert [client.get("/health/live").status_code for client in clients] == [200] * 4
            shares = sorted(connections(child, port) for child in (first, second))
            for client in clients:
                client.close()
            return shares == [2, 2]

        wait_for(both_ready, 30)
        wait_for(lambda: connections(first, port) + connections(second, port) == 0, 10)
        clients = [stack.enter_context(httpx.Client(base_url=address)) for _ in range(8)]
        assert [ask(client, seed) for seed, client in enumerate(clients)] == [200] * 8
        assert (connections(first, port), connections(second, port)) == (4, 4)

        # Those that leave make room for those that come, wherever they left.
        clients[0].close()
        clients[2].close()
        wait_for(lambda: connections(first, port) + connections(second, port) == 6, 10)
        clients[0] = stack.enter_context(httpx.Client(base_url=address))
        clients[2] = stack.enter_context(httpx.Client(base_url=address))
        assert (ask(clients[0], 9), ask(clients[2], 10)) == (200, 200)
        assert (connections(first, port), connections(second, port)) == (4, 4)

        second.kill()
        wait_for(lambda: not second.is_running(), 10)
        # Idle connections of the dead are closed, which a client notices and opens new ones.
        assert [ask(client, 20) for client in clients] == [200] * 8
        wait_for(lambda: len(children(process.pid)) == 2, 30)
        assert "died" in stop(process)


def test_a_process_that_hangs_is_replaced(environment: dict[str, str]) -> None:
    run = supervise(environment, "_options(s)", "processes=2, drain=5, silence=4")
    try:
        assert run.stderr is not None
        for _ in range(2):
            next(line for line in run.stderr if "startup complete" in line)
        hung = children(run.pid)[0]
        hung.send_signal(signal.SIGSTOP)
        wait_for(lambda: not hung.is_running(), 60)
        wait_for(lambda: len(children(run.pid)) == 2, 60)
    finally:
        assert "says nothing" in stop(run)
    assert run.returncode == 0


def test_when_the_parent_is_killed_its_processes_end(environment: dict[str, str]) -> None:
    with serving(environment) as (process, address, _):
        orphans = children(process.pid)
        assert httpx.get(f"{address}/health/ready").status_code == 200
        process.kill()
        process.communicate(timeout=30)
        # Whoever adopted them may leave them as zombies for a while.
        wait_for(lambda: all(gone(orphan) for orphan in orphans), 30)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_signals_that_mean_nothing_end_nothing_and_the_end_of_the_terminal_is_the_end(
    environment: dict[str, str], workers: str
) -> None:
    with serving(environment, "--workers", workers, count=int(workers)) as (process, address, _):
        told = [psutil.Process(process.pid), *children(process.pid)]
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPIPE):
            for one in told:
                one.send_signal(number)
            assert [httpx.get(f"{address}/generate?label=1&seed={k}").status_code for k in range(4)] == [200] * 4
        assert all(one.is_running() for one in told)
        # Some processes of a group may have gone before they are told.
        for one in told:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGHUP)
        _, log = process.communicate(timeout=30)
        assert "Traceback" not in log
        assert "Finished server process" in log
        wait_for(lambda: all(gone(one) for one in told))


def waiting_images(address: str) -> float:
    """Rows that wait for their turn, over all processes."""
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("ganserve_queued_images "))


def test_told_to_stop_all_processes_finish_what_they_began(environment: dict[str, str]) -> None:
    # Enough for a fast machine to be seen at it, and one at a time.
    n = 20_000
    bounds = ("--max-images", str(n), "--max-queued-images", str(4 * n))
    flags = ("--batch-rows", "1", *bounds, "--request-timeout", "300", "--drain-timeout", "60")
    with serving(environment, *flags) as (process, address, _), ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        # A client takes long to make, so both are made first and begin at about the same time.
        clients = [stack.enter_context(httpx.Client(base_url=address, timeout=120)) for _ in range(2)]
        asked = [threads.submit(client.get, f"/generate?n={n}&seed={k}") for k, client in enumerate(clients)]
        # More rows than one request has: both have begun.
        wait_for(lambda: waiting_images(address) > n, 30)
        os.kill(process.pid, signal.SIGTERM)
        assert [answer.result().status_code for answer in asked] == [200, 200]
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_start_that_cannot_be_ends_with_a_failure_and_no_processes(environment: dict[str, str]) -> None:
    run = supervise(environment, "_options(s) | {'http': 'no.such:Protocol'}", "processes=2, drain=5")
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 1, errors
    assert "could not start" in errors


ADMIN = {"Authorization": "Bearer secret"}


def spread(stack: ExitStack, address: str, n: int = 4) -> list[httpx.Client]:
    """Kept connections, in even shares."""
    clients = [stack.enter_context(httpx.Client(base_url=address, headers=ADMIN, timeout=30)) for _ in range(n)]
    assert [client.get("/health/ready").status_code for client in clients] == [200] * n
    return clients


def test_by_default_a_line_says_how_many_processes_serve_and_why(environment: dict[str, str]) -> None:
    process, _ = start(environment, "--admin-token", "secret")
    line = next(line for line in stop(process).splitlines() if "serving with" in line)
    assert line.startswith("INFO serving with ")
    assert "core" in line or "at most" in line or "memory" in line


def test_once_the_service_is_ready_all_its_processes_are(environment: dict[str, str]) -> None:
    process, address = start(environment, "--workers", "3", "--lanes", "1", "--admin-token", "secret")
    try:
        with ExitStack() as stack:
            clients = spread(stack, address, 6)
            port = int(address.rpartition(":")[2])
            assert [connections(child, port) for child in children(process.pid)] == [2, 2, 2]
            assert [ask(client, seed) for seed, client in enumerate(clients)] == [200] * 6
    finally:
        stop(process)


def test_what_is_unloaded_is_unloaded_in_every_process_and_in_one_that_starts_later(
    environment: dict[str, str],
) -> None:
    with serving(environment) as (process, address, port), ExitStack() as stack:
        clients = spread(stack, address)
        assert clients[0].post("/v2/repository/models/digits/unload").status_code == 200
        assert [ask(client, 1) for client in clients] == [404] * 4
        # Memory is freed where nobody asks, too.
        wait_for(lambda: all(client.get("/health/ready").json()["loaded"] == [] for client in clients), 10)

        replace(process, address, port)
        assert [ask(client, 2) for client in clients] == [404] * 4
        assert clients[-1].post("/v2/repository/models/digits/load").status_code == 200
        assert [ask(client, 3) for client in clients] == [200] * 4


def test_statistics_are_those_of_all_processes(environment: dict[str, str]) -> None:
    with serving(environment) as (_, address, _), ExitStack() as stack:
        clients = spread(stack, address)
        before = clients[0].get("/v2/models/digits/stats").json()["model_stats"][0]["inference_count"]
        assert [client.get(f"/generate?n=3&seed={k}").status_code for k, client in enumerate(clients)] == [200] * 4
        for client in clients:
            [told] = client.get("/v2/models/digits/stats").json()["model_stats"]
            assert told["inference_count"] - before == 12
            assert told["inference_stats"]["success"]["count"] == 4


def test_a_process_that_cannot_serve_what_its_siblings_do_gets_no_connection_until_it_can(
    environment: dict[str, str],
) -> None:
    with serving(environment) as (process, address, port), ExitStack() as stack:
        spread(stack, address, 2)
        # Served from memory by whom has it; who starts now cannot read it.
        graph = Path(environment["GANSERVE_MODELS"]) / "digits" / "1" / "model.onnx"
        content = graph.read_bytes()
        graph.write_bytes(content[:-1])
        new = replace(process, address, port, taking=False)
        clients = [stack.enter_context(httpx.Client(base_url=address)) for _ in range(4)]
        assert [ask(client, seed) for seed, client in enumerate(clients)] == [200] * 4
        assert connections(new, port) == 0

        graph.write_bytes(content)
        wait_for(lambda: takes(new, address, port), 30)
        assert [httpx.get(f"{address}/generate?label=1&seed={k}").status_code for k in range(4)] == [200] * 4


def replace(process: "subprocess.Popen[str]", address: str, port: int, *, taking: bool = True) -> psutil.Process:
    """Kill a serving process; the one in its place, once that takes connections, or is done with its start."""
    before = children(process.pid)
    before[1].kill()
    wait_for(lambda: not before[1].is_running(), 10)
    wait_for(lambda: len(children(process.pid)) == 2, 30)
    [new] = set(children(process.pid)) - set(before)
    if taking:
        wait_for(lambda: takes(new, address, port), 30)
    else:
        assert process.stderr is not None
        next(line for line in process.stderr if "no connections are taken" in line)
    return new


def takes(child: psutil.Process, address: str, port: int) -> bool:
    """A process is given a connection, of as many as there are processes."""
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=address)) for _ in range(2)]
        return all(client.get("/health/live").is_success for client in clients) and connections(child, port) > 0


STUCK = """
import multiprocessing, os, signal, threading, time
from service.processes.server import end_after_parent

def stuck():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=end_after_parent, args=(0.2,), daemon=True).start()
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.get_context("fork").Process(target=stuck).start()
    time.sleep(600)
"""


def test_a_process_that_is_stuck_does_not_outlive_a_killed_parent_either(environment: dict[str, str]) -> None:
    parent = subprocess.Popen([sys.executable, "-c", STUCK], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate(timeout=30)
    wait_for(lambda: gone(child), 30)
