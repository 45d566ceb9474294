"""The documents: links lead somewhere, files that they name are there, curl lines do what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.service.http.test_openapi import Curl, service

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
# A document shows a whole training set, of which a part shows as much here.
SMALLER = {"n=60000": "n=200", "n=2000": "n=100", "n=1000&": "n=100&"}
NAMED = re.compile(r"`((?:ganserve|service|training|tests|benchmarks|deploy)/[\w./-]*)`")


def ids(document: Path) -> str:
    return str(document.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    """What a heading is called in a link."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_file_that_is_named_is_there(document: Path) -> None:
    named = NAMED.findall(document.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_is_short() -> None:
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    words = [line.split() for line in text.splitlines() if not line.startswith("    ")]
    assert sum(map(len, words)) <= 900


def curl_lines(document: Path) -> list[tuple[str, str]]:
    """Each command, with the answer that stands below it, if one does."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^    (curl .*)\n(?:    (\{.*\})$)?", text, re.M)
    for long, short in SMALLER.items():
        found = [(line.replace(long, short), shown) for line, shown in found]
    return found


WITH_CURL = [document for document in DOCUMENTS if curl_lines(document)]


@pytest.mark.parametrize("document", WITH_CURL, ids=ids)
def test_every_curl_line_does_what_the_document_says(document: Path, tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    found = curl_lines(document)
    assert len(found) == document.read_text(encoding="utf-8").count("\n    curl ")
    # A stream of events ends with its job, and the document cancels that below.
    found.sort(key=lambda entry: "/events" in entry[0])
    with service(tmp_path) as client:
        for line, shown in found:
            answer = Curl.read(line, files).send(client, files)
            if shown:
                # The title is HTTP's own, and differs between versions of Python.
                assert answer.json() == json.loads(shown) | {"title": answer.json()["title"]}
            else:
                assert 200 <= answer.status_code < 300, (line, answer.text[:300])


def test_the_readme_and_the_page_of_calls_show_how_to_call() -> None:
    assert {"README.md", "api.md", "retraining.md"} <= {document.name for document in WITH_CURL}
