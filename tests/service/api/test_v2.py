"""``/v2`` with Triton's own client over a real socket, and with everything that such a client would never send."""

import gzip
import io
import itertools
import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import uvicorn
from fastapi.testclient import TestClient
from pydantic import SecretStr
from tritonclient.utils import InferenceServerException

from ganserve.latents import consecutive, latents
from ganserve.repository import Repository
from ganserve.settings import Settings
from service.app import create_app
from service.front import Front
from tests.service.conftest import ADMIN, USER, Answer, Dummies, Serve
from tests.tiny import SIDE, Z, publish

LENGTH = "Inference-Header-Content-Length"
INFER = "/v2/models/digits/infer"
LATENT = latents("philox-normal/v1", consecutive(5, 3), Z)
LABEL = np.array([[2], [0], [1]], np.int64)


@contextmanager
def listening(app: Front) -> Iterator[str]:
    """The application on a loopback port: host and port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, ws="none", log_level="warning", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < until
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def address(repository: Repository, tmp_path: Path) -> Iterator[str]:
    settings = Settings(
        models=repository.root,
        data=tmp_path / "var",
        device="cpu",
        lanes=2,
        admin_token=SecretStr("admin-secret"),
        watch_interval=0.05,
    )
    with listening(create_app(settings)) as found:
        yield found


@pytest.fixture
def client_of_triton(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client


def inputs(binary: bool = True) -> list[Any]:
    made = [triton.InferInput("latent", [3, Z], "FP32"), triton.InferInput("label", [3, 1], "INT64")]
    made[0].set_data_from_numpy(LATENT, binary_data=binary)
    made[1].set_data_from_numpy(LABEL, binary_data=binary)
    return made


def expected(post: Callable[..., Answer], root: str = "") -> np.ndarray[Any, Any]:
    """The same images as ``/generate`` gives them."""
    answer = post(f"{root}/generate", json={"seed": 5, "label": [2, 0, 1], "n": 3, "format": "npz"})
    images: np.ndarray[Any, Any] = np.load(io.BytesIO(answer.content))["images"]
    return images


def test_tritons_client_sees_the_server_and_its_models(client_of_triton: Any) -> None:
    client = client_of_triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("digits", "9")
    assert not client.is_model_ready("nothing")
    about = client.get_server_metadata()
    assert about["name"] == "ganserve"
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(about["extensions"])
    assert client.get_model_metadata("digits") == {
        "name": "digits",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "latent", "datatype": "FP32", "shape": [-1, Z]},
            {"name": "label", "datatype": "INT64", "shape": [-1, 1]},
        ],
        "outputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, SIDE, SIDE, 1]}],
    }
    plain = client.get_model_metadata("plain", "1")
    assert [tensor["name"] for tensor in plain["inputs"]] == ["latent"]
    config = client.get_model_config("digits")
    assert (config["backend"], config["max_batch_size"]) == ("onnxruntime", 1024)
    assert config["input"][1] == {"name": "label", "data_type": "TYPE_INT64", "dims": [1]}


def test_tritons_client_gets_the_pixels_that_generate_gives(address: str, client_of_triton: Any) -> None:
    images = expected(httpx.post, f"http://{address}")
    ways = itertools.product((True, False), (True, False), (("", "one"), ("1", "two")))
    for binary_in, binary_out, (version, request_id) in ways:
        outputs = [triton.InferRequestedOutput("image", binary_data=binary_out)]
        result = client_of_triton.infer(
            "digits", inputs(binary_in), model_version=version, outputs=outputs, request_id=request_id
        )
        told = result.get_response()
        assert (told["id"], told["model_name"], told["model_version"]) == (request_id, "digits", "1")
        assert ("data" in told["outputs"][0]) is not binary_out
        np.testing.assert_array_equal(result.as_numpy("image"), images)


def test_tritons_client_may_leave_outputs_out_and_compress(address: str, client_of_triton: Any) -> None:
    images = expected(httpx.post, f"http://{address}")
    for compression in (None, "gzip", "deflate"):
        result = client_of_triton.infer("digits", inputs(), request_compression_algorithm=compression)
        assert "id" not in result.get_response()
        np.testing.assert_array_equal(result.as_numpy("image"), images)


def test_tritons_client_loads_unloads_and_reads_index_and_statistics(client_of_triton: Any, address: str) -> None:
    client = client_of_triton
    client.infer("digits", inputs())
    with pytest.raises(InferenceServerException) as refused:
        client.unload_model("plain")
    assert refused.value.status() == "401"
    client.unload_model("digits", headers=ADMIN)
    assert not client.is_model_ready("digits")
    assert httpx.get(f"http://{address}/generate?model=digits").status_code == 404
    assert httpx.get(f"http://{address}/models/digits").json()["left_out"] == "unloaded"
    assert httpx.get(f"http://{address}/images/digits/1/0/1.png").status_code == 404
    with pytest.raises(InferenceServerException, match="unloaded") as refused:
        client.infer("digits", inputs(), model_version="1")
    assert refused.value.status() == "404"
    index = {entry["name"]: entry for entry in client.get_model_repository_index()}
    assert index["digits"] == {"name": "digits", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert index["plain"]["state"] == "READY"
    ready = httpx.post(f"http://{address}/v2/repository/index", json={"ready": True}).json()
    assert [entry["name"] for entry in ready] == ["plain"]
    client.load_model("digits", headers=ADMIN)
    assert client.is_model_ready("digits")
    client.infer("digits", inputs())
    (told,) = client.get_inference_statistics("digits", "1")["model_stats"]
    assert (told["inference_count"], told["inference_stats"]["success"]["count"]) == (6, 2)
    assert told["execution_count"] == sum(batch["compute_infer"]["count"] for batch in told["batch_stats"])
    assert sum(batch["batch_size"] * batch["compute_infer"]["count"] for batch in told["batch_stats"]) == 6
    assert told["inference_stats"]["success"]["ns"] > told["inference_stats"]["compute_infer"]["ns"] > 0
    assert abs(told["last_inference"] / 1000 - time.time()) < 60
    assert len(client.get_inference_statistics()["model_stats"]) == 2


def test_loading_what_is_not_there_or_cannot_be_served_says_why(
    client: TestClient, repository: Repository
) -> None:
    def load(name: str, body: Any = None) -> tuple[int, str]:
        answer = client.post(f"/v2/repository/models/{name}/load", json=body or {}, headers=ADMIN)
        return answer.status_code, answer.json()["error"]

    assert load("nothing")[0] == 404
    assert load("digits", {"parameters": {"config": "{}"}})[0] == 400
    publish(repository, "broken", seed=7)
    repository.model_path("broken", 1).write_bytes(b"no network")
    status, error = load("broken")
    assert (status, "sha256" in error) == (400, True)
    unknown = client.post("/v2/repository/models/nothing/unload", json={}, headers=ADMIN)
    assert unknown.status_code == 404
    assert client.get("/v2/models/broken/ready").status_code == 400
    index = client.post("/v2/repository/index").json()
    assert [entry["state"] for entry in index if entry["name"] == "broken"] == ["UNAVAILABLE"]


def test_an_old_version_is_asked_for_by_number(client: TestClient, repository: Repository) -> None:
    old = client.post(INFER, json=plain_json()).json()
    publish(repository, "digits", seed=9)
    client.post("/v2/repository/models/digits/load", json={}, headers=ADMIN)
    new = client.post(INFER, json=plain_json()).json()
    assert (old["model_version"], new["model_version"]) == ("1", "2")
    assert old["outputs"] != new["outputs"]
    assert client.post("/v2/models/digits/versions/1/infer", json=plain_json()).json() == old
    assert client.get("/v2/models/digits").json()["versions"] == ["1", "2"]


def plain_json(**changes: Any) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "latent", "shape": [3, Z], "datatype": "FP32", "data": LATENT.tolist()},
            {"name": "label", "shape": [3, 1], "datatype": "INT64", "data": LABEL.tolist()},
        ],
        **changes,
    }


def test_nested_and_flat_data_mean_the_same(client: TestClient) -> None:
    flat = plain_json(id="x")
    for tensor in flat["inputs"]:
        tensor["data"] = np.ravel(tensor["data"]).tolist()
    nested = client.post(INFER, json=plain_json(id="x"))
    assert nested.json() == client.post(INFER, json=flat).json()
    assert nested.headers["content-type"] == "application/json"
    assert nested.json()["id"] == "x"
    images = np.array(nested.json()["outputs"][0]["data"], np.uint8).reshape(nested.json()["outputs"][0]["shape"])
    np.testing.assert_array_equal(images, expected(client.post))


def split(answer: Answer) -> tuple[dict[str, Any], bytes]:
    length = int(answer.headers[LENGTH])
    return json.loads(answer.content[:length]), answer.content[length:]


def test_the_image_goes_out_as_was_asked_for(client: TestClient) -> None:
    ways: list[tuple[Any, Any, bool]] = [
        ({}, None, False),
        ({"binary_data_output": True}, None, True),
        ({"binary_data_output": True}, {}, True),
        ({"binary_data_output": True}, {"binary_data": False}, False),
        ({}, {"binary_data": True}, True),
    ]
    for parameters, output, binary in ways:
        outputs = {} if output is None else {"outputs": [{"name": "image", "parameters": output}]}
        answer = client.post(INFER, json=plain_json(parameters=parameters, **outputs))
        assert (LENGTH in answer.headers) is binary
        if binary:
            document, rest = split(answer)
            assert document["outputs"][0]["parameters"] == {"binary_data_size": len(rest)}
            assert rest == expected(client.post).tobytes()


def test_a_raw_body_is_one_image_of_a_model_of_one_input(client: TestClient) -> None:
    raw = {LENGTH: "0"}
    answer = client.post("/v2/models/plain/infer", content=LATENT[0].tobytes(), headers=raw)
    document, rest = split(answer)
    assert document["outputs"][0]["shape"] == [1, SIDE, SIDE, 3]
    whole = {
        "inputs": [{"name": "latent", "shape": [1, Z], "datatype": "FP32", "data": LATENT[0].tolist()}],
    }
    assert list(rest) == client.post("/v2/models/plain/infer", json=whole).json()["outputs"][0]["data"]
    two = client.post(INFER, content=LATENT[0].tobytes(), headers=raw)
    assert two.status_code == 400
    assert "only a model of one input" in two.json()["error"]
    short = client.post("/v2/models/plain/infer", content=LATENT[0].tobytes()[:-1], headers=raw)
    assert (short.status_code, "32 bytes" in short.json()["error"]) == (400, True)


def binary_body(*, sizes: tuple[Any, Any] = (3 * Z * 4, 24), tail: bytes | None = None) -> tuple[bytes, int]:
    document = plain_json()
    for tensor, size in zip(document["inputs"], sizes, strict=True):
        del tensor["data"]
        tensor["parameters"] = {"binary_data_size": size}
    head = json.dumps(document).encode()
    return head + (LATENT.tobytes() + LABEL.tobytes() if tail is None else tail), len(head)


def test_wrong_missing_and_lying_header_lengths_are_refused(client: TestClient) -> None:
    body, right = binary_body()
    assert client.post(INFER, content=body, headers={LENGTH: str(right)}).status_code == 200
    lies = [str(right - 1), str(right + 1), str(right + 8), str(len(body)), str(len(body) + 1), "0", "1", "-1", "x"]
    for lie in [*lies, "", " ", "1e3", "0x10", "9" * 30, str(10**17), None]:
        answer = client.post(INFER, content=body, headers={} if lie is None else {LENGTH: lie})
        assert answer.status_code == 400, lie
        assert list(answer.json()) == ["error"]


def test_lying_tensor_sizes_are_refused(client: TestClient) -> None:
    latent, label = LATENT.tobytes(), LABEL.tobytes()
    lies: list[tuple[tuple[Any, Any], bytes | None]] = [
        ((96, 24), b""),
        ((96, 24), latent + label[:-1]),
        ((96, 24), latent + label + b"x"),
        ((92, 28), None),
        ((-96, 24), None),
        (("96", 24), None),
        ((96.0, 24), None),
        ((True, 24), None),
        ((10**30, 24), None),
        ((None, 24), None),
    ]
    for sizes, tail in lies:
        body, length = binary_body(sizes=sizes, tail=tail)
        answer = client.post(INFER, content=body, headers={LENGTH: str(length)})
        assert answer.status_code == 400, sizes
        assert list(answer.json()) == ["error"]


def change(index: int, **fields: Any) -> dict[str, Any]:
    document = plain_json()
    document["inputs"][index] |= fields
    return document


def without(index: int, field: str) -> dict[str, Any]:
    document = plain_json()
    del document["inputs"][index][field]
    return document


WRONG: list[tuple[dict[str, Any], str]] = [
    (change(0, shape=[3, Z + 1]), "unexpected shape"),
    (change(0, shape=[3]), "unexpected shape"),
    (change(0, shape=[3, Z, 1]), "unexpected shape"),
    (change(0, shape=[3.0, Z]), "unexpected shape"),
    (change(0, shape=[True, Z]), "unexpected shape"),
    (change(0, shape="3x8"), "unexpected shape"),
    (change(0, shape=[-1, Z]), "batch-size"),
    (change(0, shape=[0, Z], data=[]), "batch-size"),
    (change(0, shape=[1025, Z]), "batch-size"),
    (change(0, shape=[10**30, Z]), "batch-size"),
    (change(0, shape=[2, Z], data=LATENT[:2].tolist()), "one batch size"),
    (change(0, data=LATENT.ravel()[:-1].tolist()), "23 values"),
    (change(0, data=LATENT.reshape(Z, 3).tolist()), "nested"),
    (change(0, data=[[[1.0]]]), "nested"),
    (change(0, data=["1.5"] * 3 * Z), "numbers"),
    (change(0, data=[None] * 3 * Z), "numbers"),
    (change(0, data=[True] * 3 * Z), "numbers"),
    (change(0, data={"a": 1}), "list"),
    (change(0, data=[1e39] * 3 * Z), "finite"),
    (change(0, data=[10**400] * 3 * Z), "does not fit"),
    (change(0, datatype="FP64"), "FP64"),
    (change(0, datatype=None), "data-type"),
    (change(1, datatype="INT32"), "INT32"),
    (change(1, data=[0, 1, 1.0]), "whole numbers"),
    (change(1, data=[0, 1, 2**63]), "does not fit"),
    (change(1, data=[0, 1, 3]), "labels from 0 to 2, not 3"),
    (change(1, data=[0, -1, 1]), "labels from 0 to 2, not -1"),
    (change(1, data=[0, 2**62, 1]), "labels from 0 to 2"),
    (change(1, name="latent"), "given twice"),
    (change(1, name="noise"), "unexpected inference input"),
    (change(1, name=7), "name"),
    (change(1, parameters=[]), "parameters"),
    (change(1, parameters={"binary_data_size": 24}), "data and binary_data_size"),
    (change(1, parameters={"shared_memory_region": "x"}), "shared memory"),
    (without(1, "data"), "neither data"),
    (without(0, "shape"), "unexpected shape"),
    (plain_json(inputs=[]), "latent, label is missing"),
    (plain_json(inputs=None), "list of tensors"),
    (plain_json(inputs=plain_json()["inputs"][:1]), "label is missing"),
    (plain_json(inputs=["latent"]), "object with a name"),
    (plain_json(id=5), "id must be a string"),
    (plain_json(parameters="x"), "parameters"),
    (plain_json(parameters={"binary_data_output": 1}), "true or false"),
    (plain_json(parameters={"timeout": -1}), "microseconds"),
    (plain_json(outputs={}), "outputs must be a list"),
    (plain_json(outputs=[{"name": "pixels"}]), "unexpected inference output"),
    (plain_json(outputs=[{}]), "object with a name"),
    (plain_json(outputs=[{"name": "image", "parameters": {"classification": 2}}]), "classification"),
]
NO_OBJECT = [b"", b"{", b"[]", b"null", b'{"inputs": NaN}', b"\xff", b"[" * 5000, b"1" * 5000, b'{"id": "\\ud800"}']


def test_what_does_not_fit_the_graph_never_reaches_it(serve: Serve, dummies: Dummies) -> None:
    client = serve(open_engine=dummies)
    for document, words in WRONG:
        answer = client.post(INFER, content=json.dumps(document))
        assert answer.status_code == 400, words
        assert words in answer.json()["error"]
    for content in NO_OBJECT:
        answer = client.post(INFER, content=content)
        assert answer.status_code == 400, content
        assert list(answer.json()) == ["error"]
    assert not any(engine.batches for engine in dummies.made)


def test_labels_and_latents_in_bytes_are_checked_as_well(serve: Serve, dummies: Dummies) -> None:
    client = serve(open_engine=dummies)
    for label in (3, -1, 2**62, -(2**63)):
        body, length = binary_body(tail=LATENT.tobytes() + np.array([0, label, 1], np.int64).tobytes())
        answer = client.post(INFER, content=body, headers={LENGTH: str(length)})
        assert (answer.status_code, f"not {label}" in answer.json()["error"]) == (400, True)
    for value in (np.nan, np.inf, -np.inf):
        latent = LATENT.copy()
        latent[1, 2] = value
        body, length = binary_body(tail=latent.tobytes() + LABEL.tobytes())
        answer = client.post(INFER, content=body, headers={LENGTH: str(length)})
        assert (answer.status_code, "finite" in answer.json()["error"]) == (400, True)
    assert not any(engine.batches for engine in dummies.made)


def test_errors_of_every_kind_have_tritons_form_and_status(serve: Serve) -> None:
    client = serve(token=SecretStr("user-secret"), max_images=2, max_body_bytes=4096)
    assert client.get("/v2/health/live").status_code == 200
    asked = [
        (401, client.post(INFER, json=plain_json())),
        (401, client.get("/v2/models/digits")),
        (403, client.post("/v2/repository/models/digits/load", headers=USER)),
        (400, client.post(INFER, json=plain_json(), headers=USER)),
        (404, client.get("/v2/models/nothing", headers=USER)),
        (404, client.post("/v2/models/digits/versions/7/infer", json=plain_json(), headers=USER)),
        (400, client.post("/v2/models/digits/versions/x/infer", json=plain_json(), headers=USER)),
        (404, client.get("/v2/nothing", headers=USER)),
        (405, client.get(INFER, headers=USER)),
        (413, client.post(INFER, content=b" " * 5000, headers=USER)),
        (415, client.post(INFER, content=b"x", headers={**USER, "Content-Encoding": "br"})),
    ]
    for status, answer in asked:
        assert answer.status_code == status
        assert list(answer.json()) == ["error"]
    assert "WWW-Authenticate" in asked[0][1].headers
    # Elsewhere they stay problem documents.
    assert client.get("/models/nothing", headers=USER).json()["status"] == 404


def test_compressed_bodies_are_bounded_and_must_be_whole(serve: Serve) -> None:
    client = serve(max_body_bytes=4096)
    packed = {"Content-Encoding": "gzip"}
    whole = gzip.compress(json.dumps(plain_json()).encode())
    assert client.post(INFER, content=whole, headers=packed).status_code == 200
    bomb = gzip.compress(b" " * 10_000_000)[:4096]
    assert client.post(INFER, content=gzip.compress(b" " * 100_000), headers=packed).status_code == 413
    assert client.post(INFER, content=bomb, headers=packed).status_code == 413
    for wrong in (whole[:-9], whole + b"x", b"no gzip", zlib.compress(b"{}")):
        assert client.post(INFER, content=wrong, headers=packed).status_code == 400


def test_rows_wait_in_the_same_queue_with_the_same_limits_and_count_in_the_same_metrics(
    serve: Serve, dummies: Dummies
) -> None:
    client = serve(open_engine=dummies, max_queued_images=4, request_timeout=0.5)
    (engine,) = dummies.made
    images = re.compile(r'ganserve_images_total\{model="digits",version="1"\} (\S+)')

    def counted() -> float:
        found = images.search(client.get("/metrics").text)
        return float(found[1]) if found else 0.0

    before = counted()
    assert client.post(INFER, json=plain_json()).status_code == 200
    assert counted() - before == 3
    engine.gate.clear()
    late = client.post(INFER, json=plain_json(parameters={"timeout": 20_000}))
    assert (late.status_code, "0.02 s" in late.json()["error"]) == (503, True)
    statuses = ask_together(client, 8)
    engine.gate.set()
    # Full, or past the deadline; Triton has one code for both, and says when to come again if full.
    assert {status for status, _ in statuses} == {503}
    assert any("wait for digits already" in error for _, error in statuses)


def ask_together(client: TestClient, n: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []

    def ask() -> None:
        answer = client.post(INFER, json=plain_json())
        found.append((answer.status_code, answer.json()["error"]))

    threads = [threading.Thread(target=ask) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_with_no_model_it_is_live_and_not_ready(serve: Serve) -> None:
    client = serve()
    for name in ("digits", "plain"):
        assert client.post(f"/v2/repository/models/{name}/unload", headers=ADMIN).status_code == 200
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 400
    assert client.get("/health/ready").status_code == 503
