"""Which request is being worked on, and whose trace it belongs to (W3C Trace Context); OpenTelemetry if asked for.

Every request has a :class:`Trace`: the caller's, from its ``traceparent``, or a new one. Log lines name it, and calls
to other servers carry it on. With ``GANSERVE_OTLP_ENDPOINT`` its spans are also exported, by OTLP over HTTP.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from ganserve.settings import SettingsError

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE_BYTES = 512
_NO_EXTRA = (
    "GANSERVE_OTLP_ENDPOINT or --otlp-endpoint needs the extra otel: pip install 'ganserve[otel]', or unset it"
)


@dataclass(slots=True)
class Trace:
    """A request and its place in a trace.

    Attributes:
        request_id: the caller's ``X-Request-Id``, else the trace's id.
        trace_id: 32 hexadecimal digits.
        span_id: this server's part of the trace, 16 hexadecimal digits.
        sampled: whether the spans of this trace are kept.
        state: the caller's ``tracestate``, which is carried on as it is.
        span: OpenTelemetry's span, if it is asked for.
        tracer: its tracer.
    """

    request_id: str
    trace_id: str
    span_id: str
    sampled: bool
    state: str | None = None
    span: Any = None
    tracer: Any = None

    @property
    def parent(self) -> str:
        """``traceparent`` for what this server asks of others."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


# Ids are unique, not secret: each process has a source of its own, begun from the system's.
_ids = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)

_current: ContextVar[Trace | None] = ContextVar("trace", default=None)
current = _current.get


def carry(trace: Trace | None) -> None:
    """Work on a request from here on, in this thread or task."""
    _current.set(trace)


def outgoing() -> dict[str, str]:
    """Headers that pass the trace on to another server; none outside a request."""
    trace = _current.get()
    if trace is None:
        return {}
    told = {"traceparent": trace.parent, "x-request-id": trace.request_id}
    if trace.state:
        told["tracestate"] = trace.state
    return told


def new_id(bits: int = 128) -> str:
    """A new id in hexadecimal digits."""
    return f"{_ids.getrandbits(bits):0{bits // 4}x}"


def is_request_id(told: bytes) -> bool:
    """Whether a caller's request id is taken as it is."""
    return _REQUEST_ID.fullmatch(told) is not None


def begin(headers: Iterable[tuple[bytes, bytes]], method: str, telemetry: Telemetry | None = None) -> Trace:
    """Open the trace of a request, or take the caller's further, and work on it from here on."""
    request_id: str | None = None
    parents: list[bytes] = []
    states: list[bytes] = []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
        elif name == b"x-request-id" and request_id is None and _REQUEST_ID.fullmatch(value):
            request_id = value.decode()
    caller = _parent(parents)
    state = None
    if caller is not None:
        trace_id, span_id, sampled = caller
        if sum(map(len, states)) <= _TRACESTATE_BYTES:
            state = ",".join(value.decode("latin-1") for value in states) or None
    else:
        trace_id, span_id, sampled = "", "", False
    if telemetry is None:
        trace_id = trace_id or new_id()
        trace = Trace(request_id or trace_id, trace_id, new_id(64), sampled, state)
    else:
        span = telemetry.server_span(method, caller, state)
        context = span.get_span_context()
        trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        sampled = bool(context.trace_flags.sampled)
        trace = Trace(request_id or trace_id, trace_id, span_id, sampled, state, span, telemetry.tracer)
    _current.set(trace)
    return trace


def _parent(told: list[bytes]) -> tuple[str, str, bool] | None:
    """Trace id, span id and sampled of a valid ``traceparent`` (Trace Context, section 3.2.2)."""
    found = _TRACEPARENT.fullmatch(told[0]) if len(told) == 1 else None
    if found is None or found[1] == b"ff" or not (found[2].strip(b"0") and found[3].strip(b"0")):
        return None
    # Only versions after 00 may add fields.
    if found[1] == b"00" and found[5]:
        return None
    return found[2].decode(), found[3].decode(), bool(int(found[4], 16) & 1)


def end(trace: Trace, route: str, method: str, path: str, status: int) -> None:
    """Close the span of a request, if it has one."""
    if trace.span is None:
        return
    from opentelemetry.trace import StatusCode

    trace.span.update_name(f"{method} {route}")
    trace.span.set_attributes(
        {
            "http.request.method": method,
            "http.route": route,
            "url.path": path,
            "http.response.status_code": status,
            "ganserve.request_id": trace.request_id,
        }
    )
    if status >= 500:
        trace.span.set_status(StatusCode.ERROR)
    trace.span.end()


def generated(trace: Trace | None, attributes: dict[str, str | int], asked: float, started: float) -> None:
    """Spans of a request's images: their wait in the queue, and their run with the encoding of the answer.

    Args:
        trace: the request's.
        attributes: what was generated.
        asked: ``time.perf_counter()`` at which the images came into the queue.
        started: the same, when the first of them ran; 0: never.
    """
    if trace is None or trace.span is None:
        return
    from opentelemetry.trace import set_span_in_context

    now, wall = time.perf_counter(), time.time_ns()
    first = started or now

    def moment(counter: float) -> int:
        return wall - round((now - counter) * 1e9)

    context = set_span_in_context(trace.span)
    tracer = trace.tracer
    tracer.start_span("queue", context, attributes=attributes, start_time=moment(asked)).end(moment(first))
    if started:
        tracer.start_span("generate", context, attributes=attributes, start_time=moment(first)).end(wall)


class Telemetry:
    """OpenTelemetry's exporter.

    Args:
        endpoint: of the collector: ``http://collector:4318``; a path is taken as it is, none is ``/v1/traces``.
        version: of the service.
        exporter: in place of the one to ``endpoint``.
    """

    def __init__(self, endpoint: str, version: str, *, exporter: Any = None) -> None:
        check(endpoint)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        if urlsplit(endpoint).path in ("", "/"):
            endpoint = endpoint.rstrip("/") + "/v1/traces"
        resource = Resource.create({"service.name": "ganserve", "service.version": version})
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        # A collector that does not answer costs spans, never requests: they wait in a bounded queue, on a thread.
        self.provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint)))
        self.tracer = self.provider.get_tracer("ganserve", version)

    def server_span(self, method: str, caller: tuple[str, str, bool] | None, state: str | None) -> Any:
        """A span of kind server, the child of the caller's if there is one."""
        from opentelemetry.context import Context
        from opentelemetry.trace import (
            NonRecordingSpan,
            SpanContext,
            SpanKind,
            TraceFlags,
            TraceState,
            set_span_in_context,
        )

        context = Context()
        if caller is not None:
            trace_id, span_id, sampled = caller
            parent = SpanContext(
                int(trace_id, 16),
                int(span_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(int(sampled)),
                trace_state=TraceState.from_header([state]) if state else TraceState(),
            )
            context = set_span_in_context(NonRecordingSpan(parent), context)
        return self.tracer.start_span(method, context, kind=SpanKind.SERVER)

    def close(self) -> None:
        """Send what waits, and end."""
        self.provider.shutdown()


def check(endpoint: str | None) -> None:
    """Raises SettingsError for an endpoint that cannot be used here."""
    if endpoint is None:
        return
    if urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).hostname:
        raise SettingsError(
            f"GANSERVE_OTLP_ENDPOINT or --otlp-endpoint is {endpoint!r}: expected http://host:4318"
        )
    try:
        there = find_spec("opentelemetry.exporter.otlp.proto.http") and find_spec("opentelemetry.sdk")
    except ModuleNotFoundError:
        there = None
    if there is None:
        raise SettingsError(_NO_EXTRA)


def telemetry(endpoint: str | None, version: str) -> Telemetry | None:
    """OpenTelemetry, if there is an endpoint. Raises SettingsError as :func:`check`."""
    return None if endpoint is None else Telemetry(endpoint, version)
