"""The report of a version: one page, of whatever is known, in which nothing of a stranger's is more than text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from ganserve import charts
from ganserve.repository import Repository
from service import report
from tests.service.conftest import USER, Serve
from tests.tiny import card, network

SHIPPED = Path(__file__).parents[2] / "models"
HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
LOG = [{"step": step, "loss_d": 1 / step, "loss_g": step / 9, "time": 0.1} for step in range(1, 9)]
SNAPSHOTS = [{"step": 4, "score": 3.0, "frechet": 3.0}, {"step": 8, "score": 2.0, "frechet": 2.0}]


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said += f"{data} "

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture
def told(repository: Repository) -> Repository:
    """A version with curves, and one whose every word is hostile."""
    curves = json.dumps({"log": LOG, "snapshots": SNAPSHOTS}).encode()
    repository.publish(card("told"), network(), (SHIPPED / "mnist-gan/1/samples.png").read_bytes(), logged=curves)
    words: dict[str, Any] = {
        "classes": [HOSTILE, "b", "c"], "recipe": HOSTILE, "dataset": HOSTILE, "source": HOSTILE, "notes": [HOSTILE],
        "training": {HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}}, "metrics": {HOSTILE: 1.5, "split": HOSTILE},
    }  # fmt: skip
    bad = json.dumps({"log": [{"step": 1, HOSTILE: 2, "loss_d": 1}, {"step": 2, "loss_d": 2}], HOSTILE: []}).encode()
    repository.publish(card("hostile", **words), network(), b"\x89PNG" + HOSTILE.encode(), logged=bad)
    repository.record("hostile", 1, {HOSTILE: 2.5, "dataset": HOSTILE, "images": 10})
    return repository


def page_of(client: TestClient, place: str) -> Page:
    answer = client.get(f"/models/{place}/report")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.content)


def test_every_shipped_version_has_a_report_with_or_without_curves() -> None:
    repository = Repository(SHIPPED)
    for name in repository.names():
        for version in repository.versions(name):
            made = repository.card(name, version)
            sheet = repository.samples(name, version)
            curves = charts.read(repository.logged(name, version) or b"")
            page = Page(report.page(made, repository.measures(name, version), curves, sheet))
            assert f"{name} version {version}" in page.said
            assert made.sha256 in page.said
            (image,) = page.all("img")
            assert base64.b64decode(str(image["src"]).partition(",")[2]) == sheet
            if not curves:
                assert "None are kept with this version." in page.said


def test_the_figures_of_the_card_and_every_measurement_are_told(told: Repository, serve: Serve) -> None:
    common = {"dataset": "mnist", "split": "test", "images": 10_000}
    told.record("told", 1, {**common, "frechet": 1.25, "frechet_real": 0.5})
    told.record("told", 1, {**common, "frechet": 1.125, "class_histogram": [1, 2]})
    page = page_of(serve(), "told/1")
    said = " ".join(page.said.split())
    assert "8 of philox-normal/v1" in said
    assert "zero, one, two" in said
    assert said.index("1.125") < said.index("1.25 0.5")
    assert "Measured since: mnist, test, 10,000 images" in said


def test_curves_are_drawn_where_they_are_kept(told: Repository, serve: Serve) -> None:
    page = page_of(serve(), "told/1")
    labels = [drawing["aria-label"] for drawing in page.all("svg")]
    assert any(str(label).startswith("Losses: loss of D goes from 1 to 0.125") for label in labels)
    assert any("Frechet distance" in str(label) for label in labels)
    assert len(page.all("polyline")) >= 3
    assert "None are kept" in " ".join(page_of(serve(), "digits/1").said.split())


def test_nothing_that_is_hostile_is_more_than_text(told: Repository, serve: Serve) -> None:
    client = serve()
    answer = client.get("/models/hostile/1/report")
    page = Page(answer.content)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "object", "link", "a", "form"})
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    (image,) = page.all("img")
    assert str(image["src"]).startswith("data:image/png;base64,")
    assert page.said.count("alert(1)") >= 8, "it is told, as it is"
    assert b"<script" not in answer.content


def test_the_page_may_run_and_load_nothing_whether_it_is_served_or_kept(told: Repository, serve: Serve) -> None:
    answer = serve().get("/models/hostile/1/report")
    policy = answer.headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "script-src" not in rules
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert (rules["img-src"], rules["frame-ancestors"]) == ("data:", "'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    kept = [meta for meta in Page(answer.content).all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert [meta["content"] for meta in kept] == [policy.removesuffix("; frame-ancestors 'none'")]


def test_a_report_is_kept_by_its_tag_until_something_is_measured(told: Repository, serve: Serve) -> None:
    client = serve()
    first = client.get("/models/told/1/report")
    known = {"If-None-Match": first.headers["etag"]}
    assert client.get("/models/told/1/report", headers=known).status_code == 304
    told.record("told", 1, {"frechet": 1.0})
    assert client.get("/models/told/1/report", headers=known).status_code == 200


@pytest.mark.parametrize(
    ("place", "status"), [("nothing/1", 404), ("digits/9", 404), ("digits/0", 422), ("digits/x", 422)]
)
def test_what_is_not_there_has_no_report(client: TestClient, place: str, status: int) -> None:
    answer = client.get(f"/models/{place}/report")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_it_is_for_those_who_may_see_the_card(serve: Serve) -> None:
    client = serve(token=SecretStr("user-secret"))
    assert client.get("/models/digits/1/report").status_code == 401
    assert client.get("/models/digits/1/report", headers=USER).status_code == 200


@pytest.mark.parametrize(
    "content",
    [b"", b"no json", b"[]", b'{"log": 3}', b'{"log": [1, null, {"loss_d": 1}]}', b"[" * 100_000, bytes(5 << 20)],
    ids=["empty", "text", "list", "number", "lines", "deep", "large"],
)
def test_a_report_that_is_none_is_passed_over(told: Repository, serve: Serve, content: bytes) -> None:
    place = told.root / "told" / "1" / "report.json"
    place.write_bytes(content)
    assert "None are kept" in " ".join(page_of(serve(), "told/1").said.split())


def test_numbers_that_cannot_be_drawn_are_left_out(told: Repository, serve: Serve) -> None:
    lines = [{"step": step, "loss_d": value} for step, value in enumerate([1, 1e300, -1e31, True, None, "1", 2])]
    text = json.dumps({"log": [*lines, {"step": 10**400, "loss_d": 1}]}).replace("null", "NaN")
    (told.root / "told" / "1" / "report.json").write_text(text)
    (label,) = [drawing["aria-label"] for drawing in page_of(serve(), "told/1").all("svg")]
    assert label == "Losses: loss of D goes from 1 to 2."


def test_a_sheet_that_is_gone_is_told(told: Repository, serve: Serve) -> None:
    client = serve()
    (told.root / "told" / "1" / "samples.png").unlink()
    assert "no sheet of samples" in page_of(client, "told/1").said
    shutil.rmtree(told.root / "told" / "1")
    assert client.get("/models/told/1/report").status_code in (404, 503)
