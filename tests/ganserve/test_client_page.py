"""Every line of docs/client.md, in its order, does what the page says."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ganserve import commands
from tests.ganserve.conftest import FLAGSHIP

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")


@pytest.fixture
def workplace(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the page takes for granted: the shipped model, and images of pets."""
    shutil.copytree(FLAGSHIP, tmp_path / "models" / FLAGSHIP.name)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("L", (8, 8), 50 * index).save(tmp_path / "pets" / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pages_lines_run_and_say_what_they_say(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S):
        exec(compile(block, "docs/client.md", "exec"), names)
    assert capsys.readouterr().out.splitlines()[-1].startswith("422 model mnist-projgan has no label 99")
    live = names["client"].model("mnist-projgan").live
    images = names["images"]
    told = dict(re.findall(r"^(\S.*?) {2,}# (.*)$", PAGE, re.M))
    assert told["images = client.generate(label=3, n=16, seed=42)"] == repr(images).replace(f"{live}>", "5>")
    assert told["images.addresses[0]"] == f'"{images.addresses[0]}"'.replace(f"/{live}/", "/5/")
    assert told["images.class_names[images.labels[0]]"] == f'"{images.class_names[images.labels[0]]}"'
    lines = re.findall(r"^    ganserve (.*)$", PAGE, re.M)
    assert told["verdict.verdict, verdict.differing_pixels"] == (
        f'"{names["verdict"].verdict}", {names["verdict"].differing_pixels}'
    )
    assert len(lines) == 10
    # It needs a runtime that npm brings, and has tests of its own.
    lines.remove("web models/mnist-projgan public")
    for line in lines:
        assert commands.main(shlex.split(line)) == 0, line
    assert {"grid.png", "hundred.npz"} <= {path.name for path in workplace.iterdir()}
    names["client"].close()
