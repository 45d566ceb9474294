import errno
import time

import pytest
from fastapi.testclient import TestClient

from ganserve.repository import Repository
from tests.service.conftest import ADMIN, Serve, state_of
from tests.tiny import CLASSES, publish


def test_all_models_are_listed_with_the_live_card(client: TestClient) -> None:
    listed = client.get("/models").json()
    assert [entry["name"] for entry in listed] == ["digits", "plain"]
    assert [entry["default"] for entry in listed] == [True, False]
    assert listed[0]["card"]["classes"] == CLASSES


def test_a_model_tells_versions_and_pointer(serve: Serve, repository: Repository) -> None:
    publish(repository, "digits", seed=5)
    told = serve().get("/models/digits").json()
    assert (told["live"], told["previous"], told["versions"]) == (2, 1, [1, 2])


def test_a_card_and_samples_can_be_read(client: TestClient) -> None:
    assert client.get("/models/digits/1").json()["name"] == "digits"
    samples = client.get("/models/digits/1/samples.png")
    assert samples.headers["content-type"] == "image/png"
    assert samples.content.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "path", ["/models/nope", "/models/nope/1", "/models/digits/9", "/models/digits/9/samples.png"]
)
def test_what_is_not_there_is_404_and_says_what_is(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "there are" in answer.json()["detail"]


def test_promoting_and_rolling_back_take_effect_at_once(serve: Serve, repository: Repository) -> None:
    publish(repository, "digits", seed=5, live=False)
    client = serve()
    for version, previous in ((2, 1), (1, 2)):
        answer = client.put("/models/digits/live", json={"version": version}, headers=ADMIN)
        assert answer.status_code == 200
        assert (answer.json()["version"], answer.json()["previous"]) == (version, previous)
        assert client.get("/generate?seed=1").headers["x-model-version"] == str(version)


def test_if_match_guards_against_a_change_in_between(serve: Serve, repository: Repository) -> None:
    publish(repository, "digits", seed=5, live=False)
    client = serve()
    tag = client.get("/models/digits").headers["etag"]
    first = client.put("/models/digits/live", json={"version": 2}, headers={**ADMIN, "If-Match": tag})
    assert first.status_code == 200
    late = client.put("/models/digits/live", json={"version": 1}, headers={**ADMIN, "If-Match": tag})
    assert late.status_code == 412
    assert client.get("/models/digits").json()["live"] == 2
    fresh = {**ADMIN, "If-Match": first.headers["etag"]}
    assert client.put("/models/digits/live", json={"version": 1}, headers=fresh).status_code == 200


def test_a_removed_version_is_410_everywhere_at_once(serve: Serve, repository: Repository) -> None:
    publish(repository, "digits", seed=5, live=False)
    client = serve()
    asks = ("/models/digits/2", "/models/digits/2/samples.png", "/generate?model=digits&version=2&seed=1")
    assert [client.get(ask).status_code for ask in asks] == [200, 200, 200]
    assert client.delete("/models/digits/2").status_code == 401
    assert client.delete("/models/digits/1", headers=ADMIN).status_code == 409
    assert client.delete("/models/digits/2", headers=ADMIN).status_code == 204
    assert [client.get(ask).status_code for ask in asks] == [410, 410, 410]
    assert client.delete("/models/digits/2", headers=ADMIN).status_code == 410
    assert client.put("/models/digits/live", json={"version": 2}, headers=ADMIN).status_code == 410
    assert publish(repository, "digits", seed=6, live=False) == 3


def test_a_version_that_another_process_removed_is_no_longer_answered_from_memory(
    serve: Serve, repository: Repository
) -> None:
    publish(repository, "digits", seed=5, live=False)
    client = serve()
    ask = "/generate?model=digits&version=2&seed=1"
    assert client.get(ask).status_code == 200
    repository.remove("digits", 2)
    until = time.monotonic() + 20
    while client.get(ask).status_code == 200 and time.monotonic() < until:
        time.sleep(0.05)
    assert client.get(ask).status_code == 410


def test_a_corrupt_version_cannot_go_live(serve: Serve, repository: Repository) -> None:
    version = publish(repository, "digits", seed=5, live=False)
    repository.model_path("digits", version).write_bytes(b"broken")
    client = serve()
    answer = client.put("/models/digits/live", json={"version": version}, headers=ADMIN)
    assert answer.status_code == 409
    assert "nothing was changed" in answer.json()["detail"]
    assert repository.live("digits") == 1
    assert client.get("/generate?seed=1").headers["x-model-version"] == "1"


def test_a_folder_in_a_files_place_is_named_and_no_failure_of_the_server(
    client: TestClient, repository: Repository
) -> None:
    place = repository.root / "digits" / "config.pbtxt"
    place.unlink()
    place.mkdir()
    answer = client.put("/models/digits/live", json={"version": 1}, headers=ADMIN)
    assert answer.status_code == 409
    assert "nothing was changed: digits/config.pbtxt cannot be written anew: it is no" in answer.json()["detail"]
    assert str(repository.root) not in answer.text
    assert client.get("/generate?seed=1").status_code == 200


@pytest.mark.parametrize(
    ("body", "status"), [({"version": 9}, 404), ({"version": "1"}, 422), ({}, 422), ({"v": 1}, 422)]
)
def test_a_wrong_promotion_is_refused(client: TestClient, body: dict[str, object], status: int) -> None:
    assert client.put("/models/digits/live", json=body, headers=ADMIN).status_code == status


def test_a_model_that_is_published_while_serving_is_found(client: TestClient, repository: Repository) -> None:
    assert client.get("/generate?model=new").status_code == 404
    publish(repository, "new", live=False)
    unpromoted = client.get("/generate?model=new")
    assert unpromoted.status_code == 404
    assert "PUT /models/new/live" in unpromoted.json()["detail"]
    assert client.get("/generate?model=new&version=1").status_code == 200
    repository.promote("new", 1)
    assert client.get("/generate?model=new").status_code == 200


def test_listing_goes_on_when_one_card_is_broken(client: TestClient, repository: Repository) -> None:
    (repository.root / "plain" / "1" / "card.json").write_text("{")
    end = time.monotonic() + 5
    entry = client.get("/models").json()[1]
    while entry["left_out"] is None and time.monotonic() < end:
        entry = client.get("/models").json()[1]
    assert "card.json" in entry["left_out"]
    assert entry["card"] is None


def test_listing_goes_on_when_one_folder_cannot_be_read(
    client: TestClient, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = repository.store.created

    def refused(name: str) -> list[str]:
        if name == "plain":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(name)

    monkeypatch.setattr(state_of(client).catalogue.repository.store, "created", refused)
    listed = {entry["name"]: entry for entry in client.get("/models").json()}
    assert (listed["digits"]["versions"], listed["digits"]["left_out"]) == ([1], None)
    assert listed["plain"]["versions"] == []
    assert listed["plain"]["left_out"] == "plain: its folder cannot be read (Permission denied)"
    assert client.get("/models/plain").status_code == 503


def test_later_measurements_stand_beside_the_card_which_stays(client: TestClient, repository: Repository) -> None:
    before = client.get("/models/digits/1").json()
    assert "measures" not in before
    for images in (10, 20):
        repository.record("digits", 1, {"images": images})
    after = client.get("/models/digits/1").json()
    assert [measure["images"] for measure in after.pop("measures")] == [10, 20]
    assert after == before


@pytest.mark.parametrize(
    "line", [b'{"a":' * 100_000, b'{"fid": "\\ud800"}', b'{"fid": ' + b"9" * 5000 + b"}", b"\xff\xfe", b"[]"]
)
def test_a_measurement_that_nobody_can_read_is_passed_over(
    client: TestClient, repository: Repository, line: bytes
) -> None:
    (repository.root / "digits" / "1" / "measures.jsonl").write_bytes(line + b'\n{"frechet": 2.5}\n')
    assert client.get("/models/digits/1").json()["measures"] == [{"frechet": 2.5}]
    assert client.get("/models/digits/1/report").status_code == 200


def test_a_measurement_that_is_no_number_can_be_answered(client: TestClient, repository: Repository) -> None:
    (repository.root / "digits" / "1" / "measures.jsonl").write_bytes(b'{"frechet": NaN, "recall": 1e999}\n')
    for path in ("/models/digits/1", "/models/digits/1/report"):
        assert client.get(path).status_code == 200
