"""What is installed from the wheel is the whole product: it is built, checked, and used far from the sources."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import HeaderParser
from pathlib import Path

import httpx
import numpy as np
import pytest

from ganserve import Generator
from ganserve.settings import PREFERRED
from tests.docs.test_documents import curl_lines
from tests.service.http.test_openapi import Curl

ROOT = Path(__file__).parents[2]
PACKAGES = ("ganserve", "service", "training")
CODE = {".py", ".pyc"}
FLAGSHIP = f"ganserve/models/{PREFERRED}"


def told(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command says, whose end is a good one; no setting of the test's own reaches it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GANSERVE_", "PYTHON"))}
    done = subprocess.run(
        command, cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tracked(*under: str) -> list[str]:
    """The project's own files: those that git knows or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *under],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("no git checkout: the tree may hold files that are none of the project's")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def carried() -> set[str]:
    """Files other than code that stand in the packages of the tree."""
    return {name for name in tracked(*PACKAGES) if Path(name).suffix not in CODE}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it, without the network; once for all processes."""
    base = tmp_path_factory.getbasetemp()
    # Above the folders of several processes is one of this run; above that of one, those of earlier runs.
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built"
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "done").exists():
            shutil.rmtree(place, ignore_errors=True)
            for name in tracked():
                if name.startswith((*(f"{package}/" for package in PACKAGES), "models/")) or "/" not in name:
                    (place / "source" / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ROOT / name, place / "source" / name)
            build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", place)
            told(*build, place / "source", cwd=place)
            (place / "done").touch()
    return place


@pytest.fixture
def wheel(built: Path) -> Path:
    [found] = built.glob("*.whl")
    return found


def installed(wheel: Path, place: Path, python: str = sys.executable, *needs: str) -> Path:
    """The programs of a new virtual environment in which the wheel is."""
    told(python, "-m", "venv", "--without-pip", place, cwd=place.parent)
    pip = (sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install", "-q")
    told(*pip, *(needs or ("--no-deps",)), wheel, cwd=place.parent)
    return place / "bin"


@pytest.fixture
def programs(wheel: Path, tmp_path: Path) -> Path:
    """Programs of an environment with the wheel, and with the test's own packages but for this checkout."""
    programs = installed(wheel, tmp_path / "environment")
    [site] = (tmp_path / "environment").glob("lib/python*/site-packages")
    # A folder that a .pth file names is searched, and its own .pth files, as that of an editable install, are not read.
    others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "others.pth").write_text("\n".join(others))
    where = told(programs / "python", "-c", "import training; print(training.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(site)
    return programs


@contextmanager
def served(programs: Path, folder: Path, *flags: str, **environment: str) -> Iterator[tuple[httpx.Client, list[str]]]:
    """``ganserve serve`` in a folder, ready, and what it has said until then."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GANSERVE_", "PYTHON"))}
    command: list[str | Path] = [programs / "ganserve", "serve", "--port", "0", "--workers", "1", *flags]
    process = subprocess.Popen(command, cwd=folder, env=kept | environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said: list[str] = []
        found = None
        while found is None:
            line = process.stderr.readline()
            assert line, said
            said.append(line)
            found = re.search(r"running on (http://127\.0\.0\.1:\d+)", line)
        with httpx.Client(base_url=found[1], timeout=60) as client:
            yield client, said
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_package_data_covers_every_file_that_is_no_code() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    covered: set[str] = set()
    for package, patterns in told.items():
        for top in PACKAGES if package == "*" else (package,):
            for pattern in patterns:
                covered |= {path.relative_to(ROOT).as_posix() for path in (ROOT / top).glob(pattern)}
    assert carried() - covered == set()


def test_the_wheel_by_way_of_the_sdist_holds_what_the_packages_read_at_run_time(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {entry.filename: entry.file_size for entry in archive.infolist()}
        live = archive.read(f"{FLAGSHIP}/live.json")
    assert carried() | {name for name in tracked(*PACKAGES) if name.endswith(".py")} <= set(inside)
    assert {"training/judges/mnist.safetensors", "training/judges/cifar10.json", "ganserve/py.typed"} <= set(inside)
    assert live == (ROOT / "models" / PREFERRED / "live.json").read_bytes()
    shipped = {name: size for name, size in inside.items() if name.startswith("ganserve/models/")}
    [version] = {name.split("/")[3] for name in shipped if name.count("/") == 4}
    assert f'"version": {version},'.encode() in live
    assert {f"{FLAGSHIP}/{version}/{part}" for part in ("card.json", "model.onnx", "samples.png")} <= set(shipped)
    assert sum(shipped.values()) < 2_000_000
    assert {name.partition("/")[0] for name in inside if ".dist-info/" not in name} == set(PACKAGES)


def test_sdist_and_wheel_are_what_an_index_takes(built: Path, wheel: Path) -> None:
    told(sys.executable, "-m", "twine", "check", "--strict", *built.glob("*.tar.gz"), wheel, cwd=built)
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        fields = HeaderParser().parsestr(archive.read(metadata).decode())
    assert fields["Requires-Python"] == ">=3.11"
    assert {"Typing :: Typed", "Framework :: FastAPI", "Programming Language :: Python :: 3.11"} <= set(
        fields.get_all("Classifier") or ()
    )
    assert {"training", "cuda", "postgres"} <= set(fields.get_all("Provides-Extra") or ())


def test_in_an_empty_folder_it_serves_the_shipped_model_by_the_readmes_line(programs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    [line] = [line for line, _ in curl_lines(ROOT / "README.md") if "threes.png" in line]
    with served(programs, folder) as (client, said):
        assert sum(f"{folder}/models was not there" in line for line in said) == 1
        answer = Curl.read(line, {}).send(client, {})  # type: ignore[arg-type]
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
        page = client.get("/", headers={"Accept": "text/html"})
        assert "<!doctype html>" in page.text.lower()
        assert client.get("/openapi.json").json()["paths"]
        answer = client.post("/generate", json={"label": 3, "n": 4, "seed": 42, "format": "npz"})
        (folder / "threes.npz").write_bytes(answer.content)
    with np.load(folder / "threes.npz") as found:
        here = Generator(ROOT / "models" / PREFERRED, version=int(answer.headers["X-Model-Version"]))
        assert np.array_equal(found["images"], here.generate(label=3, n=4, seed=42).images)
    # What is there the second time is left alone, and so is a folder that somebody has named.
    shutil.rmtree(folder / "models" / PREFERRED)
    with served(programs, folder) as (client, said):
        assert client.get("/models").json() == []
        assert not any("was not there" in line for line in said)
    with served(programs, folder, GANSERVE_MODELS="elsewhere") as (client, said):
        assert client.get("/models").json() == []
    assert not (folder / "elsewhere").exists()


def test_it_trains_and_exports_in_an_empty_folder_also_beside_a_training_of_the_users_own(
    programs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "empty"
    for name in ("training", "service"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('the user keeps a folder of this name')\n")
    train = ("train", "--dataset", "digits", "--recipe", "cgan", "--images", "2000", "--threads", "1")
    told(programs / "ganserve", *train, cwd=folder)
    assert "published version 1 of digits-cgan" in told(programs / "ganserve", "export", cwd=folder)
    told(programs / "ganserve", "generate", "--local", "models/digits-cgan", "--label", "3", "-n", "4", cwd=folder)
    assert (folder / "images.png").stat().st_size > 0
    assert "digits-cgan" in told(programs / "python", "-m", "ganserve", "models", "models", cwd=folder)
    assert "usage" in told(programs / "python", "-m", "ganserve", "evaluate", "--help", cwd=folder)


def newest_python() -> str:
    """The newest interpreter that is found, this one at least."""
    places = [Path(place) for place in os.environ.get("PATH", "").split(os.pathsep)]
    places += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    found = {(sys.version_info.major, sys.version_info.minor): sys.executable}
    for place in places:
        for path in place.glob("python3.[0-9]*"):
            match = re.fullmatch(r"python3\.(\d+)", path.name)
            version = (3, int(match[1])) if match else (0, 0)
            if version > max(found):
                ask = "import sys, venv; print(sys.version_info >= (3, 11))"
                tried = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=False)
                if tried.stdout == "True\n":
                    found[version] = str(path)
    return found[max(found)]


def test_the_wheel_alone_can_be_imported_by_the_newest_python_and_names_what_is_missing(
    wheel: Path, tmp_path: Path
) -> None:
    programs = installed(wheel, tmp_path / "environment", newest_python())
    [site] = (tmp_path / "environment").glob("lib/python*/site-packages")
    told(programs / "python", "-W", "error", "-m", "compileall", "-q", site, cwd=tmp_path)
    assert told(programs / "ganserve", "--version", cwd=tmp_path).startswith("ganserve ")
    assert "AsyncClient" in told(programs / "python", "-c", "import ganserve; print(dir(ganserve))", cwd=tmp_path)
    refused = subprocess.run(
        [programs / "ganserve", "train", "--dataset", "digits", "--recipe", "cgan"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "needs the extra `training`" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("python", [sys.executable, newest_python()], ids=["this", "newest"])
def test_with_what_it_needs_from_an_index_it_serves(wheel: Path, tmp_path: Path, python: str) -> None:
    constraints = ("-c", str(ROOT / "constraints.txt"))
    programs = installed(wheel, tmp_path / "environment", python, *constraints)
    folder = tmp_path / "empty"
    folder.mkdir()
    with served(programs, folder, GANSERVE_ADMIN_TOKEN="admin") as (client, _):
        answer = client.post("/generate", json={"label": 3, "n": 16, "seed": 42, "format": "npz"})
        (folder / "threes.npz").write_bytes(answer.content)
        job = {"model": "mine", "recipe": "cgan", "dataset": "digits", "images": 20000}
        told_of = client.post("/jobs", json=job, headers={"Authorization": "Bearer admin"})
        assert (told_of.status_code, told_of.json()["state"]) == (202, "queued"), told_of.text
    with np.load(folder / "threes.npz") as found:
        here = Generator(ROOT / "models" / PREFERRED, version=int(answer.headers["X-Model-Version"]))
        assert np.array_equal(found["images"], here.generate(label=3, n=16, seed=42).images)
    needed = told(programs / "python", "-c", IMPORTING, cwd=folder)
    assert needed.strip() == "none"


# A package that is loaded at once although only an extra brings it would end this.
IMPORTING = """
import ganserve, ganserve.client, ganserve.generator, service.app, service.__main__, sys
print(", ".join({"torch", "training"} & set(sys.modules)) or "none")
"""
