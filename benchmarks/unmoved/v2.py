"""Calls to ``/v2``, the Open Inference Protocol: JSON, its binary extension, and the repository."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

from benchmarks.unmoved.recorder import Recorder

LENGTH = "Inference-Header-Content-Length"
MODELS = {"mnist-projgan": (64, True), "cifar10-projgan": (64, True), "mnist-gan": (100, False)}


def values(rows: int, width: int) -> list[float]:
    """Latents that every float32 holds exactly: eighths from -2 to 2."""
    return [((i * 7) % 33 - 16) / 8 for i in range(rows * width)]


def inputs(name: str, rows: int) -> list[dict[str, Any]]:
    """The tensors of a request in JSON."""
    width, labelled = MODELS[name]
    found = [{"name": "latent", "datatype": "FP32", "shape": [rows, width], "data": values(rows, width)}]
    label = {"name": "label", "datatype": "INT64", "shape": [rows, 1], "data": [i % 10 for i in range(rows)]}
    return [*found, label] if labelled else found


def binary(name: str, rows: int, outputs: dict[str, Any]) -> tuple[bytes, int]:
    """The same with the tensors behind the JSON part; and the length of that part."""
    tensors = inputs(name, rows)
    body = b""
    for tensor in tensors:
        data = tensor.pop("data")
        content = struct.pack(f"<{len(data)}{'f' if tensor['datatype'] == 'FP32' else 'q'}", *data)
        tensor["parameters"] = {"binary_data_size": len(content)}
        body += content
    head = json.dumps({"inputs": tensors, **outputs}).encode()
    return head + body, len(head)


def inference(recorder: Recorder) -> None:
    """Everything below ``/v2``."""
    ask = recorder.ask
    for path in ("", "/health/live", "/health/ready", "/models/nothing", "/nothing"):
        ask("GET", f"/v2{path}")
        ask("HEAD", f"/v2{path}")
    for name in MODELS:
        for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/1", f"/v2/models/{name}/versions/99"):
            for what in ("", "/config", "/ready"):
                ask("GET", path + what)
        _infer(recorder, name)
    counted(recorder, "/v2/models/stats")
    counted(recorder, "/v2/models/mnist-gan/stats")
    counted(recorder, "/v2/models/mnist-gan/versions/1/stats")
    ask("GET", "/v2/models/nothing/stats")
    ask("GET", "/v2/models/mnist-gan/versions/0")
    ask("GET", "/v2/models/mnist-gan/infer")
    _mistakes(recorder)
    _repository(recorder)


def counted(recorder: Recorder, path: str) -> None:
    """Statistics: how many images and answers, but not how long they took and in which batches they ran."""
    recorder.ask("GET", path, hide=("ns", "last_inference", "execution_count", "compute_infer", "batch_stats"))


def _infer(recorder: Recorder, name: str) -> None:
    ask = recorder.ask
    path = f"/v2/models/{name}/infer"
    as_bytes = {"outputs": [{"name": "image", "parameters": {"binary_data": True}}]}
    for rows in (1, 3):
        body = {"id": "a", "inputs": inputs(name, rows)}
        told = f"{rows} rows"
        ask("POST", path, body, called=f"JSON, {told}")
        ask("POST", path, {**body, **as_bytes}, called=f"JSON, {told}, answered in bytes")
        content, length = binary(name, rows, {})
        ask("POST", path, content, called=f"bytes, {told}", sent={LENGTH: str(length)})
        content, length = binary(name, rows, {"parameters": {"binary_data_output": True}})
        ask("POST", path, content, called=f"bytes, {told}, answered in bytes", sent={LENGTH: str(length)})
    content = json.dumps({"inputs": inputs(name, 2)}).encode()
    one = f"/v2/models/{name}/versions/1/infer"
    ask("POST", one, gzip.compress(content, mtime=0), called="gzip", Content_Encoding="gzip")
    ask("POST", one, zlib.compress(content), called="deflate", Content_Encoding="deflate")
    raw = struct.pack("<100f", *values(1, 100))
    ask("POST", path, raw, called="raw", sent={LENGTH: "0"})


def _mistakes(recorder: Recorder) -> None:
    path = "/v2/models/mnist-projgan/infer"
    latent, label = inputs("mnist-projgan", 1)
    wrong: dict[str, Any] = {
        "no inputs": {},
        "one input": {"inputs": [latent]},
        "an input twice": {"inputs": [latent, latent]},
        "an unknown input": {"inputs": [latent, {**label, "name": "labels"}]},
        "another type": {"inputs": [{**latent, "datatype": "FP64"}, label]},
        "another shape": {"inputs": [{**latent, "shape": [1, 63]}, label]},
        "too few values": {"inputs": [{**latent, "data": [0.0]}, label]},
        "words": {"inputs": [{**latent, "data": ["a"] * 64}, label]},
        "an infinite value": {"inputs": [{**latent, "data": [1e39] * 64}, label]},
        "no such label": {"inputs": [latent, {**label, "data": [10]}]},
        "no such output": {"inputs": [latent, label], "outputs": [{"name": "picture"}]},
        "classification": {
            "inputs": [latent, label],
            "outputs": [{"name": "image", "parameters": {"classification": 3}}],
        },
        "too many rows": {"inputs": [{**latent, "shape": [1025, 64]}, label]},
        "a wrong id": {"id": 3, "inputs": [latent, label]},
        "a wrong timeout": {"inputs": [latent, label], "parameters": {"timeout": -1}},
        "shared memory": {"inputs": [{**latent, "parameters": {"shared_memory_region": "x"}}, label]},
        "nested data": {"inputs": [{**latent, "data": [latent["data"]]}, label]},
    }
    for told, body in wrong.items():
        recorder.ask("POST", path, body, called=told)
    content, length = binary("mnist-projgan", 1, {})
    for told, header in (("a long head", "99999"), ("a wrong head", "x"), ("a short head", str(length - 3))):
        recorder.ask("POST", path, content, called=told, sent={LENGTH: header})
    recorder.ask("POST", path, content[:-4], called="four bytes too few", sent={LENGTH: str(length)})
    recorder.ask("POST", path, content + b"abcd", called="four bytes too many", sent={LENGTH: str(length)})
    recorder.ask("POST", path, b"{", called="broken JSON")
    recorder.ask("POST", path, b"cats", called="no gzip", Content_Encoding="gzip")
    recorder.ask("POST", path, b"cats", called="brotli", Content_Encoding="br")
    recorder.ask("POST", "/v2/models/nothing/infer", {}, called="to an unknown model")
    recorder.ask("POST", path, b" " * ((1 << 20) + 1), called="a mebibyte of blanks and one")


def _repository(recorder: Recorder) -> None:
    ask = recorder.ask
    models = "/v2/repository/models"
    for body in ({}, {"ready": True}, {"ready": 1}):
        ask("POST", "/v2/repository/index", body)
    for name in ("mnist-gan", "nothing"):
        ask("POST", f"{models}/{name}/unload", {})
        ask("POST", f"{models}/{name}/unload", {}, admin=True)
    ask("GET", "/v2/models/mnist-gan/ready")
    ask("GET", "/generate?model=mnist-gan&n=1&seed=1")
    ask("POST", "/v2/repository/index", {}, called="while one is unloaded")
    for name in ("mnist-gan", "nothing"):
        ask("POST", f"{models}/{name}/load", {})
        ask("POST", f"{models}/{name}/load", {}, admin=True)
    ask("POST", f"{models}/mnist-gan/load", {"parameters": {"config": "{}"}}, admin=True)
    ask("POST", f"{models}/mnist-gan/unload", b"{", admin=True, called="broken JSON")
    ask("GET", "/v2/models/mnist-gan/ready")
