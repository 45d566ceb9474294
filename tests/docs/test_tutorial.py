"""Every line of docs/tutorial.md, in its order, as a newcomer types it."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.service.http.test_openapi import Curl

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
# The environment of the test has what these bring.
INSTALLING = ("python3 -m venv .venv", ". .venv/bin/activate", "pip install 'ganserve[training]'")
# What is typed in a terminal of its own goes on until the end.
LASTING = ("serve", "worker")


def typed() -> list[tuple[str, str]]:
    """Each line of a shell, and each block of Python, with what it is."""
    found = re.finditer(r"^```python\n(?P<python>.*?)^```$|^    (?P<shell>\S[^\n]*)$", PAGE, re.M | re.S)
    return [(kind, text) for match in found for kind, text in match.groupdict().items() if text is not None]


class Terminal:
    """A newcomer's: a folder, an environment, and what was begun."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GANSERVE_")}
        # The port that the page takes may be another's here.
        own = {"GANSERVE_PORT": str(port), "GANSERVE_URL": f"http://127.0.0.1:{port}"}
        self.environment = {**kept, **own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.begun: list[subprocess.Popen[bytes]] = []
        self.said: list[str] = []

    def shell(self, line: str) -> None:
        words = shlex.split(line)
        given = dict(word.split("=", 1) for word in itertools.takewhile(lambda word: re.match("[A-Z_]+=", word), words))
        words = words[len(given) :]
        if words[0] == "export":
            self.environment |= dict(word.split("=", 1) for word in words[1:])
        elif words[0] == "mkdir":
            (self.folder / words[1]).mkdir()
        elif words[0] == "cd":
            self.folder /= words[1]
        elif words[0] == "curl":
            files: dict[str, bytes] = {}
            with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60) as client:
                answer = Curl.read(line, files).send(client, files)  # type: ignore[arg-type]
            assert answer.status_code == 200, answer.text
            for name, content in files.items():
                (self.folder / name).write_bytes(content)
        else:
            assert words[0] == "ganserve", line
            command = [sys.executable, "-m", *words]
            if words[1] in LASTING:
                self.begin(command, given)
            else:
                self.run(command)

    def run(self, command: list[str]) -> None:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        self.said.append(done.stdout)

    def begin(self, command: list[str], given: dict[str, str]) -> None:
        environment = self.environment | given
        with (self.folder / f"{command[3]}.log").open("wb") as log:
            self.begun.append(subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log))
        if command[3] != "serve":
            return
        until = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                assert self.begun[-1].poll() is None, (self.folder / "serve.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Terminal(tmp_path, port)
    yield made
    for process in reversed(made.begun):
        process.terminate()
    for process in made.begun:
        process.wait(120)


def test_every_line_of_the_tutorial_does_what_it_says(terminal: Terminal) -> None:
    lines = typed()
    assert [kind for kind, _ in lines].count("python") == PAGE.count("```python") == 4
    assert set(INSTALLING) <= {text for _, text in lines}
    for kind, text in lines:
        if text in INSTALLING:
            continue
        if kind == "python":
            terminal.run([sys.executable, "-W", "error", "-c", text])
        else:
            terminal.shell(text)
    folder = terminal.folder
    assert [path.name for path in sorted(folder.glob("*.png"))] == ["circles.png", "squares.png", "threes.png"]
    for name in ("circles", "squares"):
        with Image.open(folder / f"{name}.png") as sheet:
            assert sheet.size == (4 * 18 + 2, 4 * 18 + 2)
    said = "".join(terminal.said)
    assert "was not there" in (folder / "serve.log").read_text()
    assert "<16 images 28 x 28 x 1 of mnist-projgan version" in said
    assert "shapes: 400 images of 2 classes are kept" in said
    assert re.search(r"^\w+: succeeded, version 1$", said, re.M)
    assert "live=1" in said
    assert "the last batch has a loss of" in said
