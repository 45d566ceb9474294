"""Every curl line of the README, in its order, does what the README says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.service.http.test_openapi import Curl, service

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
# The README shows a whole training set, of which a part shows as much here.
SMALLER = {"n=60000": "n=200", "n=2000": "n=100", "n=1000&": "n=100&"}


def lines() -> list[tuple[str, str]]:
    """Each command, with the answer that stands below it, if one does."""
    text = README.replace("\\\n", " ")
    found = re.findall(r"^    (curl .*)\n(?:    (\{.*\})$)?", text, re.M)
    for long, short in SMALLER.items():
        found = [(line.replace(long, short), shown) for line, shown in found]
    return found


def test_every_curl_line_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    found = lines()
    assert len(found) == README.count("\n    curl ")
    # A stream of events ends with its job, and the README cancels that below.
    found.sort(key=lambda entry: "/events" in entry[0])
    with service(tmp_path) as client:
        for line, shown in found:
            answer = Curl.read(line, files).send(client, files)
            if shown:
                # The title is HTTP's own, and differs between versions of Python.
                assert answer.json() == json.loads(shown) | {"title": answer.json()["title"]}
            else:
                assert 200 <= answer.status_code < 300, (line, answer.text[:300])
