import json
import shutil
import time

from fastapi.testclient import TestClient

from ganserve.repository import Repository
from tests.service.conftest import Serve
from tests.tiny import network, publish


def test_ready_names_provider_live_and_loaded(client: TestClient) -> None:
    body = client.get("/health/ready").json()
    assert body == {
        "status": "ready",
        "provider": "CPUExecutionProvider",
        "default_model": "digits",
        "live": {"digits": 1, "plain": 1},
        "loaded": ["digits:1"],
        "exact": {},
        "left_out": {},
    }
    client.get("/generate?model=plain")
    assert client.get("/health/ready").json()["loaded"] == ["digits:1", "plain:1"]


def test_what_is_damaged_is_left_out_by_name_and_the_rest_is_served(serve: Serve, repository: Repository) -> None:
    names = ("flipped", "truncated", "swapped", "card", "missing", "pointer", "lying")
    for seed, name in enumerate(names):
        publish(repository, name, seed=10 + seed)
    folder = repository.root
    content = bytearray((folder / "flipped/1/model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "flipped/1/model.onnx").write_bytes(content)
    (folder / "truncated/1/model.onnx").write_bytes(content[:100])
    (folder / "swapped/1/model.onnx").write_bytes(network(seed=99))
    (folder / "card/1/card.json").write_text("{")
    (folder / "missing/1/model.onnx").unlink()
    (folder / "pointer/live.json").write_text("???")
    lying = json.loads((folder / "lying/1/card.json").read_text())
    (folder / "lying/1/card.json").write_text(json.dumps(lying | {"name": "other"}))
    client = serve()
    body = client.get("/health/ready").json()
    assert body["status"] == "ready"
    assert set(body["left_out"]) == set(names)
    assert "sha256" in body["left_out"]["flipped"]
    for name in names:
        refused = client.get(f"/generate?model={name}")
        assert refused.status_code == 503
        assert name in refused.json()["detail"]
    assert client.get("/generate?model=digits").status_code == 200


def test_a_card_that_promises_what_the_network_does_not_give_is_found_on_loading(
    serve: Serve, repository: Repository
) -> None:
    publish(repository, "small", seed=4)
    path = repository.root / "small/1/card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"z": 99}))
    client = serve()
    assert client.get("/generate?model=small").status_code == 503
    assert "latent" in client.get("/health/ready").json()["left_out"]["small"]


def test_a_mended_model_comes_back(serve: Serve, repository: Repository) -> None:
    path = repository.model_path("plain", 1)
    content = path.read_bytes()
    path.write_bytes(b"broken")
    client = serve()
    assert client.get("/generate?model=plain").status_code == 503
    path.write_bytes(content)
    assert client.get("/generate?model=plain").status_code == 200
    assert client.get("/health/ready").json()["left_out"] == {}


def test_without_any_model_it_is_not_ready_until_one_comes(serve: Serve, repository: Repository) -> None:
    for name in repository.names():
        shutil.rmtree(repository.root / name)
    client = serve()
    assert client.get("/health/ready").status_code == 503
    assert client.get("/health/live").status_code == 200
    empty = client.get("/generate")
    assert empty.status_code == 404
    assert "training.export" in empty.json()["detail"]
    publish(repository, "digits")
    end = time.monotonic() + 10
    while client.get("/health/ready").status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_missing_models_folder_is_named(serve: Serve, repository: Repository) -> None:
    shutil.rmtree(repository.root)
    body = serve().get("/health/ready").json()
    assert "GANSERVE_MODELS" in body["left_out"]["(repository)"]


def test_metrics_count_requests_images_runs_and_the_provider(client: TestClient) -> None:
    client.get("/generate?n=5&seed=1")
    client.get("/nope")
    text = client.get("/metrics").text
    for line in (
        'ganserve_requests_total{method="GET",route="/generate",status="200"}',
        'ganserve_images_total{model="digits",version="1"}',
        'ganserve_provider_info{provider="CPUExecutionProvider"} 1.0',
        "ganserve_queued_images 0.0",
        'ganserve_run_rows_bucket{le="8.0",model="digits"}',
    ):
        assert line in text
    assert "/nope" not in text
