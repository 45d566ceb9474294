"""ganserve check says what a set is, without training on it."""

import subprocess
import sys
from pathlib import Path

import pytest

from ganserve.commands import main
from tests.ganserve.zips import archive, picture

MEMBERS = {f"{name}/{i}.png": picture(i) for name in ("cat", "dog") for i in range(2)}


def test_an_archive_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pets.zip"
    path.write_bytes(archive({**MEMBERS, "cat/9.png": picture(9), "README": b"x"}))
    assert main(["check", str(path)]) == 0
    told = capsys.readouterr().out
    assert "5 pictures, colour, read at 8 x 8 pixels" in told
    assert "cat: 3 (60.0%)" in told
    assert "left out: 1 no picture" in told


def test_what_would_be_refused_is_one_sentence_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pets.zip"
    path.write_bytes(archive({**MEMBERS, "cat/cut\n.png": b"x"}))
    (tmp_path / "empty").mkdir()
    for source in (path, tmp_path / "empty", tmp_path / "nothing"):
        assert main(["check", str(source)]) == 2
        out, told = capsys.readouterr()
        assert out == ""
        assert told.startswith("error: ")
        assert told.count("\n") == 1


def test_neither_the_service_nor_torch_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "pets.zip"
    path.write_bytes(archive(MEMBERS))
    code = (
        "import sys; from ganserve.commands import main; assert main(['check', sys.argv[1]]) == 0; "
        "assert not {'service', 'torch', 'fastapi'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
