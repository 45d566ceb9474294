"""The wheel holds what the packages read at run time, and is built without the network."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = {".py", ".pyc"}


def carried() -> set[str]:
    """Files other than code that stand in the packages of the tree."""
    listed = subprocess.run(
        ["git", "ls-files", "ganserve", "service", "training"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("no git checkout: the tree may hold files that are none of the project's")
    return {name for name in listed.stdout.splitlines() if Path(name).suffix not in CODE}


def test_package_data_covers_every_file_that_is_no_code() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    covered: set[str] = set()
    for package, patterns in told.items():
        for top in ("ganserve", "service", "training") if package == "*" else (package,):
            for pattern in patterns:
                covered |= {path.relative_to(ROOT).as_posix() for path in (ROOT / top).glob(pattern)}
    assert carried() - covered == set()


def test_the_wheel_carries_the_judges(tmp_path: Path) -> None:
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    for name in listed.stdout.splitlines():
        if name.startswith(("ganserve/", "service/", "training/", "pyproject.toml", "README.md", "LICENSE")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), "."]
    made = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    [wheel] = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert carried() <= inside
    assert {"training/judges/mnist.safetensors", "training/judges/cifar10.json"} <= inside
