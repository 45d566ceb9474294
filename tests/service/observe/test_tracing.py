"""Request ids, W3C trace context, JSON logs, and OpenTelemetry to a collector on loopback."""

import io
import json
import logging
import logging.config
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ganserve.settings import SettingsError
from service.observe import logs, tracing
from tests.service.conftest import Dummies, Serve
from tests.service.test_app import environment, start, stop, wait_for

__all__ = ["environment"]

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


def begun(*headers: tuple[str, str]) -> tracing.Trace:
    return tracing.begin([(name.encode(), value.encode()) for name, value in headers], "GET")


@pytest.fixture(autouse=True)
def _outside_of_requests() -> Iterator[None]:
    yield
    tracing.carry(None)


def test_a_trace_is_taken_further_with_a_span_of_its_own() -> None:
    trace = begun(("traceparent", PARENT), ("tracestate", "vendor=1"), ("tracestate", "other=2"))
    assert (trace.trace_id, trace.request_id, trace.sampled) == (TRACE, TRACE, True)
    assert trace.span_id != SPAN
    assert tracing.outgoing() == {
        "traceparent": f"00-{TRACE}-{trace.span_id}-01",
        "tracestate": "vendor=1,other=2",
        "x-request-id": TRACE,
    }


def test_a_request_id_is_kept_beside_the_trace() -> None:
    trace = begun(("x-request-id", "mine.1"), ("traceparent", PARENT))
    assert (trace.request_id, trace.trace_id) == ("mine.1", TRACE)


@pytest.mark.parametrize(
    "told",
    [
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        "",
    ],
)
def test_an_invalid_traceparent_starts_a_new_trace_and_its_tracestate_is_dropped(told: str) -> None:
    trace = begun(("traceparent", told), ("tracestate", "vendor=1"))
    assert trace.trace_id not in (TRACE, "0" * 32)
    assert trace.state is None


def test_two_traceparents_are_none() -> None:
    assert begun(("traceparent", PARENT), ("traceparent", PARENT)).trace_id != TRACE


def test_a_later_version_may_have_more_fields() -> None:
    assert begun(("traceparent", f"01-{TRACE}-{SPAN}-00-more")).trace_id == TRACE
    assert begun(("traceparent", f"01-{TRACE}-{SPAN}-00more")).trace_id != TRACE


def test_ids_differ_between_processes_though_one_was_forked_from_the_other() -> None:
    script = """
import os
from service.observe.tracing import new_id
new_id()
child = os.fork()
os.write(1, f"{new_id()} {new_id(64)}\\n".encode())
if child:
    os.waitpid(child, 0)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert [len(one) for one in told] == [32, 16, 32, 16]
    assert len(set(told)) == 4


def test_outside_of_requests_nothing_is_passed_on() -> None:
    assert tracing.outgoing() == {}


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a handler with the JSON formatter writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    loggers = [logging.getLogger("service"), logging.getLogger("ganserve.access")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield stream
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_every_log_line_of_a_request_is_json_with_its_ids_even_from_a_lane(
    serve: Serve, dummies: Dummies, written: io.StringIO
) -> None:
    client = serve(open_engine=dummies, access_log=True)
    dummies.made[0].failure = RuntimeError("broken")
    answer = client.get("/generate?seed=1", headers={"traceparent": PARENT, "X-Request-Id": "mine.1"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine.1")
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    ours = [line for line in lines if line.get("request_id") == "mine.1"]
    loggers = {line["logger"] for line in ours}
    assert loggers >= {"service.inference.runs", "service.http.middleware", "ganserve.access"}
    assert {line["trace_id"] for line in ours} == {TRACE}
    assert len({line["span_id"] for line in ours}) == 1
    failed = next(line for line in ours if line["logger"] == "service.inference.runs")
    assert "RuntimeError: broken" in failed["exception"]
    access = next(line for line in ours if line["logger"] == "ganserve.access")
    assert (access["method"], access["path"], access["status"]) == ("GET", "/generate", 500)


class Collector:
    """An OTLP collector on loopback that keeps what it is sent."""

    def __init__(self) -> None:
        received: list[ExportTraceServiceRequest] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/v1/traces":
                    received.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.received = received
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self) -> dict[str, object]:
        return {
            span.name: span
            for request in self.received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_a_process_exports_the_spans_of_a_request_as_children_of_the_caller(
    collector: Collector,
    environment: dict[str, str],
) -> None:
    process, address = start(
        environment, "--otlp-endpoint", collector.address, "--log-format", "json", "--access-log", "true"
    )
    headers = {"traceparent": PARENT, "tracestate": "vendor=1"}
    assert httpx.get(f"{address}/generate?n=3&seed=1", headers=headers).status_code == 200
    unsampled = {"traceparent": f"00-{TRACE[::-1]}-{SPAN}-00"}
    assert httpx.get(f"{address}/images/digits/1/0/1.png", headers=unsampled).status_code == 200
    errors = stop(process)  # The spans are sent before the process ends.
    spans: dict[str, object] = collector.spans()
    server = spans["GET /generate"]
    assert server.trace_id.hex() == TRACE  # type: ignore[attr-defined]
    assert server.parent_span_id.hex() == SPAN  # type: ignore[attr-defined]
    assert server.trace_state == "vendor=1"  # type: ignore[attr-defined]
    attributes = {pair.key: pair.value for pair in server.attributes}  # type: ignore[attr-defined]
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["http.route"].string_value == "/generate"
    for name in ("queue", "generate"):
        child = spans[name]
        assert child.parent_span_id == server.span_id  # type: ignore[attr-defined]
        told = {pair.key: pair.value for pair in child.attributes}  # type: ignore[attr-defined]
        assert told["ganserve.images"].int_value == 3
        assert server.start_time_unix_nano <= child.start_time_unix_nano + 1_000_000  # type: ignore[attr-defined]
    assert not any("/images" in name for name in spans)
    lines = [json.loads(line) for line in errors.splitlines() if not line.startswith("admin token")]
    access = next(line for line in lines if line.get("path") == "/generate")
    assert (access["trace_id"], access["span_id"]) == (TRACE, server.span_id.hex())  # type: ignore[attr-defined]


def test_a_collector_that_is_not_there_costs_no_request(serve: Serve) -> None:
    client = serve(otlp_endpoint="http://127.0.0.1:9")
    before = time.monotonic()
    assert client.get("/generate?seed=1").status_code == 200
    assert time.monotonic() - before < 5


def test_without_the_extra_it_does_not_start_and_says_what_to_install(environment: dict[str, str]) -> None:
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; "
        "sys.modules['opentelemetry.exporter'] = None; "
        "from service.__main__ import main; sys.exit(main(['--otlp-endpoint', 'http://127.0.0.1:4318']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2
    assert "ganserve[otel]" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_endpoint_that_is_no_address_is_refused() -> None:
    with pytest.raises(SettingsError, match="GANSERVE_OTLP_ENDPOINT"):
        tracing.check("collector:4318")


def test_opentelemetry_is_not_loaded_unless_it_is_asked_for() -> None:
    code = "import sys, service.app, service.__main__; sys.exit('opentelemetry.sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_several_processes_log_json_too(environment: dict[str, str]) -> None:
    process, address = start(
        environment, "--workers", "2", "--log-format", "json", "--access-log", "true", "--lanes", "1"
    )
    assert httpx.get(f"{address}/generate?seed=1", headers={"X-Request-Id": "mine.2"}).status_code == 200
    lines = [json.loads(line) for line in stop(process).splitlines() if not line.startswith("admin token")]
    assert any(line.get("request_id") == "mine.2" and line.get("status") == 200 for line in lines)


def test_a_process_told_to_stop_finishes_what_it_began_takes_nothing_new_and_ends_in_time(
    environment: dict[str, str],
) -> None:
    flags = ("--lanes", "1", "--batch-rows", "1", "--max-images", "4096", "--request-timeout", "300")
    process, address = start(environment, "--drain-timeout", "60", *flags)
    with httpx.Client(base_url=address, timeout=60) as kept, ThreadPoolExecutor(1) as threads:
        long = threads.submit(kept.get, "/generate?n=4096&seed=1&format=npz")
        # Told by the rows that wait, so that the signal comes in the middle of the work.
        wait_for(lambda: "ganserve_queued_images 0.0" not in httpx.get(f"{address}/metrics").text, 30)
        os.kill(process.pid, signal.SIGTERM)
        began = time.monotonic()
        wait_for(lambda: not takes_new(address), 10)
        assert not long.done()
        assert long.result().status_code == 200
        process.communicate(timeout=60)
    assert time.monotonic() - began < 60
    assert process.returncode in (0, -signal.SIGTERM)


def test_what_does_not_end_within_the_deadline_does_not_keep_the_process(environment: dict[str, str]) -> None:
    flags = ("--lanes", "1", "--batch-rows", "1", "--max-images", "32768", "--max-queued-images", "32768")
    process, address = start(environment, "--drain-timeout", "0.5", "--request-timeout", "600", *flags)
    with ThreadPoolExecutor(1) as threads:
        long = threads.submit(httpx.get, f"{address}/generate?n=32768&seed=1&format=npz", timeout=60)
        wait_for(lambda: "ganserve_queued_images 0.0" not in httpx.get(f"{address}/metrics").text, 30)
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode is not None
        assert long.exception() is not None or long.result().status_code >= 499


def takes_new(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health/ready").status_code == 200
    except httpx.TransportError:
        return False
