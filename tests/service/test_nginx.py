"""Two replicas over one repository behind a real nginx, with the configuration that the containers use."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ganserve.repository import Repository
from tests.service.conftest import ADMIN
from tests.service.test_app import wait_for
from tests.tiny import publish

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
CONFIGURATION = Path(__file__).parents[2] / "deploy/nginx.conf"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def on_loopback(folder: Path, port: int, replicas: list[int]) -> str:
    """The configuration of the containers, with other addresses and folders."""
    text = CONFIGURATION.read_text()
    server = re.search(r"server replica:8000 (.*);", text)
    assert server is not None
    servers = "\n".join(f"server 127.0.0.1:{replica} {server[1]};" for replica in replicas)
    text = text.replace(server[0], servers).replace("/tmp/nginx", f"{folder}/nginx")
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};").replace(
        "worker_processes auto", "worker_processes 2"
    )
    text = text.replace("/dev/stdout", f"{folder}/access.log").replace("/dev/stderr", f"{folder}/error.log")
    # Its processes could not write here as anyone else.
    return ("user root;\n" if os.geteuid() == 0 else "") + text


@dataclass
class Cluster:
    cache: httpx.Client
    replicas: list[str]
    processes: list["subprocess.Popen[bytes]"]
    repository: Repository
    folder: Path

    def generated(self) -> float:
        """Images that the living replicas have made, by their own count."""
        total = 0.0
        for replica in self.replicas:
            if ready(replica):
                text = httpx.get(f"{replica}/metrics").text
                total += sum(map(float, re.findall(r"^ganserve_images_total\{.*\} (\S+)$", text, re.M)))
        return total

    def hits(self, path: str) -> int:
        """Answers from the cache, by nginx's count."""
        lines = [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]
        return sum(line["path"] == path and line["cache"] == "HIT" for line in lines)


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Two replicas and their cache, all in ``folder``."""
    assert NGINX is not None
    repository = Repository(folder / "models")
    publish(repository, "digits", seed=1)
    publish(repository, "digits", seed=2, live=False)
    ports = [free_port() for _ in range(3)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GANSERVE_", "PROMETHEUS_"))}
    environment |= {
        "GANSERVE_MODELS": str(repository.root),
        "GANSERVE_DATA": str(folder / "var"),
        "GANSERVE_DEVICE": "cpu",
        "GANSERVE_ADMIN_TOKEN": "admin-secret",
        "GANSERVE_LANES": "1",
        "GANSERVE_WATCH_INTERVAL": "0.1",
    }
    configuration = folder / "nginx.conf"
    configuration.write_text(on_loopback(folder, ports[0], ports[1:]))
    checked = subprocess.run([NGINX, "-t", "-c", configuration], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with (folder / "output.log").open("wb") as output:
        commands = [[sys.executable, "-m", "service", "--port", str(port)] for port in ports[1:]]
        commands.append([NGINX, "-c", str(configuration), "-g", "daemon off;"])
        processes = [subprocess.Popen(command, env=environment, stdout=output, stderr=output) for command in commands]
    replicas = [f"http://127.0.0.1:{port}" for port in ports[1:]]
    try:
        for replica in replicas:
            wait_for(lambda: ready(replica), 60)  # noqa: B023
        with httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", timeout=30) as cache:
            wait_for(lambda: ready(str(cache.base_url).rstrip("/")), 30)
            yield Cluster(cache, replicas, processes, repository, folder)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("nginx")) as found:
        yield found


def test_a_seeded_versioned_answer_is_made_once_and_then_comes_from_the_cache(cluster: Cluster) -> None:
    address = "/generate?model=digits&version=1&label=1&n=4&seed=5"
    made = cluster.generated()
    first = cluster.cache.get(address)
    assert (first.status_code, first.headers["x-cache"]) == (200, "MISS")
    again = [cluster.cache.get(address) for _ in range(5)]
    assert {answer.headers["x-cache"] for answer in again} == {"HIT"}
    assert {answer.content for answer in again} == {first.content}
    assert {answer.headers["etag"] for answer in again} == {first.headers["etag"]}
    assert cluster.generated() == made + 4
    wait_for(lambda: cluster.hits("/generate") >= 5)


def test_an_image_at_its_address_is_cached_and_its_tag_is_answered_without_a_replica(cluster: Cluster) -> None:
    address = "/images/digits/1/2/77.png"
    first = cluster.cache.get(address)
    assert first.headers["x-cache"] == "MISS"
    made = cluster.generated()
    same = cluster.cache.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.headers["x-cache"], same.content) == (304, "HIT", b"")
    assert cluster.cache.head(address).headers["x-cache"] == "HIT"
    assert cluster.generated() == made
    wait_for(lambda: cluster.hits(address) == 2)


@pytest.mark.parametrize("query", ["label=1&seed=5", "model=digits&version=1&label=1"])
def test_what_may_change_never_comes_from_the_cache(cluster: Cluster, query: str) -> None:
    answers = [cluster.cache.get(f"/generate?{query}") for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert "HIT" not in {answer.headers["x-cache"] for answer in answers}


def test_each_accepted_format_has_an_answer_of_its_own(cluster: Cluster) -> None:
    address = "/generate?model=digits&version=1&label=0&seed=11"
    for _ in range(2):
        for kind in ("image/png", "application/json"):
            assert cluster.cache.get(address, headers={"Accept": kind}).headers["content-type"] == kind
    assert cluster.cache.get(address, headers={"Accept": "application/json"}).headers["x-cache"] == "HIT"


def test_a_crowd_that_misses_one_image_makes_it_once(cluster: Cluster) -> None:
    made = cluster.generated()
    address = "/images/digits/1/1/4242.png"
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: cluster.cache.get(address), range(24)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert cluster.generated() == made + 1


def test_an_answer_from_the_cache_has_the_id_of_its_own_request(cluster: Cluster) -> None:
    address = "/images/digits/1/0/900.png"
    for name in ("first.1", "second.2"):
        answer = cluster.cache.get(address, headers={"X-Request-Id": name})
        assert answer.headers.get_list("x-request-id") == [name]
    assert answer.headers["x-cache"] == "HIT"
    made = cluster.cache.get(address, headers={"X-Request-Id": "not good"}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", made)


def test_a_refusal_is_not_kept(cluster: Cluster) -> None:
    for _ in range(2):
        refused = cluster.cache.get("/generate?model=digits&version=1&label=9&seed=1")
        assert (refused.status_code, refused.headers["x-cache"]) == (422, "MISS")


def test_a_promotion_through_the_cache_reaches_both_replicas_and_old_addresses_stay(cluster: Cluster) -> None:
    address = "/generate?model=digits&version=1&label=1&n=2&seed=31"
    old = cluster.cache.get(address).content
    assert cluster.cache.get("/generate?label=1&n=2&seed=31").content == old
    promoted = cluster.cache.put("/models/digits/live", json={"version": 2}, headers=ADMIN)
    assert promoted.status_code == 200
    answers: list[httpx.Response] = []

    def all_have_followed() -> bool:
        # Each replica is of several processes, which follow by themselves.
        answers[:] = [cluster.cache.get("/generate?label=1&n=2&seed=31") for _ in range(8)]
        return {answer.headers["x-model-version"] for answer in answers} == {"2"}

    wait_for(all_have_followed)
    assert old not in {answer.content for answer in answers}
    kept = cluster.cache.get(address)
    assert (kept.headers["x-cache"], kept.content) == ("HIT", old)


def test_one_replica_dies_and_no_request_does_and_what_is_cached_outlives_both(tmp_path: Path) -> None:
    address = "/images/digits/1/0/5000.png"
    with running(tmp_path) as cluster:
        first, second = cluster.processes[:2]
        first.kill()
        first.wait(30)
        for seed in range(20):
            assert cluster.cache.get(f"/images/digits/1/0/{5000 + seed}.png").status_code == 200
        second.kill()
        second.wait(30)
        answer = cluster.cache.get(address)
        assert (answer.status_code, answer.headers["x-cache"]) == (200, "HIT")
