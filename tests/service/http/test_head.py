"""HEAD, wherever there is GET: the same status and headers, and no body."""

import http.client
import json
import threading
import time

import uvicorn
from fastapi.testclient import TestClient

from tests.service.conftest import ADMIN, Dummies, Serve

PATHS = [
    "/generate?n=4&seed=1",
    "/generate?n=4&seed=1&format=npz",
    "/images/digits/1/2/42.png",
    "/morph?from=1&to=2&frames=3",
    "/models",
    "/models/digits",
    "/models/digits/1",
    "/models/digits/1/samples.png",
    "/jobs",
    "/datasets",
    "/v2",
    "/v2/models/digits",
    "/health/live",
    "/health/ready",
    "/",
    "/docs",
    "/openapi.json",
    # And what is refused.
    "/generate?label=99",
    "/models/nope",
    "/v2/models/nope",
    "/nothing",
]


def test_head_is_get_without_the_body(client: TestClient) -> None:
    for path in PATHS:
        whole, head = client.get(path, headers=ADMIN), client.head(path, headers=ADMIN)
        assert (head.status_code, head.content) == (whole.status_code, b""), path
        for answer in (whole, head):
            del answer.headers["x-request-id"]
        assert head.headers == whole.headers
        assert int(head.headers["content-length"]) == len(whole.content)


def test_an_entity_tag_that_is_known_is_304_for_head_too(client: TestClient) -> None:
    for path in (*PATHS[:4], PATHS[7], "/datasets/synthetic?n=9", "/"):
        told = client.head(path).headers["etag"]
        again = client.head(path, headers={"If-None-Match": told})
        assert (again.status_code, again.headers["etag"], again.content) == (304, told, b""), path


def test_head_of_what_can_only_be_posted_is_405_and_names_what_can(client: TestClient) -> None:
    refused = client.head("/v2/repository/index")
    assert (refused.status_code, refused.headers["allow"]) == (405, "OPTIONS, POST")
    assert "HEAD" in client.put("/generate").headers["allow"].split(", ")


def test_head_of_a_large_data_set_makes_its_first_rows_only(serve: Serve, dummies: Dummies) -> None:
    client = serve(open_engine=dummies)
    before = sum(dummies.made[0].batches)
    answer = client.head("/datasets/synthetic?n=60000")
    assert (answer.status_code, answer.headers["x-images"], answer.content) == (200, "60000", b"")
    assert sum(dummies.made[0].batches) - before < 1000


def test_the_metrics_count_head_under_the_route_it_asked_for(client: TestClient) -> None:
    client.head("/images/digits/1/2/42.png")
    counted = 'ganserve_requests_total{method="HEAD",route="/images/{model}/{version}/{label}/{seed}.png",status="200"}'
    assert counted in client.get("/metrics").text


def test_over_a_socket_the_connection_stays_good_after_head(client: TestClient) -> None:
    server = uvicorn.Server(uvicorn.Config(client.app, port=0, log_level="error", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        end = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < end
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for path in ("/generate?n=4&seed=1", "/datasets/synthetic?n=9&format=zip", "/models", "/nothing"):
            connection.request("HEAD", path)
            head = connection.getresponse()
            assert head.read() == b""
            connection.request("GET", path)
            whole = connection.getresponse()
            assert head.status == whole.status
            length = head.headers["Content-Length"]
            assert length is None or int(length) == len(whole.read())
            whole.read()
        connection.request("GET", "/health/live")
        assert json.loads(connection.getresponse().read()) == {"status": "live"}
        connection.close()
    finally:
        server.should_exit = True
        thread.join()
