"""How the service logs: lines for people, or one JSON object a line for machines (``GANSERVE_LOG_FORMAT=json``)."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from service.observe import tracing


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON, with the ids of the request that it belongs to."""

    def format(self, record: logging.LogRecord) -> str:
        """``time``, ``level``, ``logger``, ``message``, the ids, ``extra={"fields": ...}``, the traceback."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        fields = getattr(record, "fields", None)
        if fields is None:
            line["message"] = record.getMessage()
        if trace := tracing.current():
            line |= {"request_id": trace.request_id, "trace_id": trace.trace_id, "span_id": trace.span_id}
        line |= fields or {}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def config(log_format: str) -> dict[str, Any]:
    """For ``logging.config.dictConfig``, and for the server, which applies it in each of its processes."""
    if log_format == "json":
        formatters: dict[str, Any] = {name: {"()": JsonFormatter} for name in ("line", "access")}
    else:
        # The message of an access record is its JSON already.
        formatters = {"line": {"format": "%(levelname)s %(message)s"}, "access": {"format": "%(message)s"}}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": formatters,
        "handlers": {
            name: {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": name}
            for name in formatters
        },
        "root": {"level": "INFO", "handlers": ["line"]},
        "loggers": {
            "ganserve.access": {"level": "INFO", "handlers": ["access"], "propagate": False},
            "uvicorn": {"level": "INFO", "handlers": [], "propagate": True},
        },
    }
