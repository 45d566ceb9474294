"""From what people bring to the pictures that they get back, by the very processes and pages that they use.

Each journey ends by asking for a class by its name, and what is served is nearer to that class's pictures than to any
other's. The pictures that it is held against are those that were drawn, never those that were read.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from ganserve import Generator
from tests.faults.conftest import Site
from tests.journeys.brought import Grey, photo, pictures, right, scans, swapped, turned, zipped_on_windows
from training import export, train

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# On so few pictures the articles' dense networks collapse, and this one follows the labels within seconds.
RECIPE = ["--recipe", "cdcgan", "--set", "batch=16", "--set", "width=0.5", "--seed", "1"]
TWELVE = dict(zip(map(str, range(1, 13)), (6, 40, 12, 30, 8, 25, 50, 10, 20, 15, 9, 35), strict=True))
SHOWN, ENOUGH = 8, 0.75
SECONDS = 1800  # of a machine that does much else; a minute on an idle one

Served = Mapping[str, Sequence[NDArray[np.uint8]]]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, f"sqlite:///{tmp_path}/jobs.sqlite")
    yield made
    made.close()


def environment(site: Site) -> dict[str, str]:
    places = {"GANSERVE_DATA": site.data, "GANSERVE_MODELS": site.data / "models", "GANSERVE_JOBS_DB": site.database}
    caches = {"HF_DATASETS_CACHE": site.data / "hub", "HF_HUB_OFFLINE": 1, "OMP_NUM_THREADS": 1, "PYTHONPATH": ROOT}
    return {**os.environ, **{name: str(value) for name, value in {**places, **caches}.items()}}


def command(site: Site, module: str, *arguments: str) -> str:
    """Run one of the project's commands to its end; what it said."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=site.data, env=environment(site), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{module}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def trained(site: Site, dataset: Path, size: int, images: int) -> None:
    """A model ``brought``, by the commands."""
    asked = ["--dataset", str(dataset), "--size", str(size), "--images", str(images), "--threads", "1"]
    command(site, "training.train", *RECIPE, *asked, "--run", "runs/brought", "--snapshots", "1")
    command(site, "training.export", "runs/brought")


def image(content: bytes) -> NDArray[np.uint8]:
    shown = np.asarray(Image.open(io.BytesIO(content)))
    return shown if shown.ndim == 3 else shown[..., None]


def served(client: httpx.Client, names: Sequence[str]) -> Served:
    """Images of each class, each from its address."""
    found = {}
    for name in names:
        answers = [client.get(f"/images/brought/1/{name}/{seed}.png") for seed in range(SHOWN)]
        assert {answer.status_code for answer in answers} == {200}, answers[0].text
        found[name] = [image(answer.content) for answer in answers]
    return found


def check_right(served: Served, brought: Mapping[str, Sequence[Grey]]) -> None:
    """Each class's images are nearest to its own pictures; and what finds that would find wrong labels and pixels."""
    assert right(served, brought) >= ENOUGH
    assert right(swapped(served), brought) < 1 - ENOUGH
    assert right(turned(served), brought) < 1 - ENOUGH


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of this process, which keeps its own handlers of signals."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANSERVE_DATA", str(tmp_path / "var"))
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    return tmp_path


def learned(images: int, names: Sequence[str]) -> Served:
    """What a model makes for each name that trained on so many images of the folder ``set``, within this process."""
    asked = [*RECIPE, "--dataset", "set", "--images", str(images), "--run", "runs/brought", "--threads", "1"]
    assert train.main([*asked, "--precision", "no", "--snapshots", "1"]) == 0
    assert export.main(["runs/brought"]) == 0
    generator = Generator(Path("models") / "brought")
    return {name: list(np.asarray(generator.generate(name, SHOWN, 0).images)) for name in names}


def test_small_scans_of_16_bits_in_classes_called_by_numbers_are_learned_under_their_names(here: Path) -> None:
    """The shortest of the journeys; those below take the way through all processes."""
    brought = pictures({"2": 14, "10": 24, "1": 9, "12": 18}, 8)
    scans(here / "set", brought)
    check_right(learned(8000, list(brought)), brought)


@pytest.mark.slow
def test_an_unbalanced_set_of_twelve_classes_called_1_to_12_is_learned_under_its_names(here: Path) -> None:
    brought = pictures(TWELVE, 16)
    for name, greys in brought.items():
        (here / "set" / name).mkdir(parents=True)
        for index, grey in enumerate(greys):
            Image.fromarray(grey.astype(np.uint8)).save(here / "set" / name / f"{index}.png")
    check_right(learned(16_000, list(TWELVE)), brought)


@pytest.mark.slow
def test_the_same_set_by_the_commands_and_over_http(site: Site) -> None:
    brought = pictures(TWELVE, 16)
    for name, greys in brought.items():
        (site.data / "set" / name).mkdir(parents=True)
        for index, grey in enumerate(greys):
            Image.fromarray(grey.astype(np.uint8)).save(site.data / "set" / name / f"{index}.png")
    trained(site, site.data / "set", 16, 16_000)
    client = site.service(1).client
    check_right(served(client, list(brought)), brought)
    answer = client.post("/generate", json={"model": "brought", "label": 12, "n": 1, "seed": 0, "padding": 0})
    assert right({"12": [image(answer.content)]}, brought) == 1


@pytest.mark.slow
def test_a_hubs_parquet_set_without_a_test_split_by_the_commands(site: Site) -> None:
    import datasets

    brought = pictures({"zebra": 24, "ape": 30, "lion, old": 18, "cat": 40}, 16)
    cells, labels = [], []
    for name, greys in brought.items():
        for grey in greys:
            buffer = io.BytesIO()
            Image.fromarray(grey.astype(np.uint8)).save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
            labels.append(list(brought).index(name))
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(brought))}
    table = datasets.Dataset.from_dict({"image": cells, "label": labels}, features=datasets.Features(kinds)).shuffle(3)
    (site.data / "hub-set" / "data").mkdir(parents=True)
    table.to_parquet(str(site.data / "hub-set" / "data" / "train-00000-of-00001.parquet"))
    trained(site, site.data / "hub-set", 16, 12_800)
    told = command(site, "training.evaluate", "brought", "--dataset", str(site.data / "hub-set"), "--images", "100")
    assert "class histogram" in told
    check_right(served(site.service(1).client, list(brought)), brought)


@pytest.mark.slow
def test_a_scanners_set_of_16_bits_by_the_commands(site: Site) -> None:
    brought = pictures({"blank": 20, "form": 30, "letter": 25, "stamp": 15}, 16)
    scans(site.data / "scans", brought)
    trained(site, site.data / "scans", 16, 12_800)
    check_right(served(site.service(1).client, list(brought)), brought)


# Reads what the browser shows: rows of red, green, blue.
PIXELS = """all => all.map(img => {
  const canvas = document.createElement("canvas");
  const [width, height] = [canvas.width, canvas.height] = [img.naturalWidth, img.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(img, 0, 0);
  return [height, width, Array.from(context.getImageData(0, 0, width, height).data)];
})"""


def shown_on_the_page(page: Page, names: Sequence[str]) -> Served:
    found = {}
    for name in names:
        page.get_by_role("radio", name=name, exact=True).check(force=True)
        tiles = page.locator(f"#canvas img.tile[data-label='{names.index(name)}']")
        expect(tiles).to_have_count(SHOWN, timeout=60_000)
        expect(page.locator("#canvas")).not_to_have_attribute("aria-busy", "true")
        told: list[Any] = tiles.evaluate_all(PIXELS)
        found[name] = [np.array(data, np.uint8).reshape(h, w, 4)[..., :3] for h, w, data in told]
    return found


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: apt-get install chromium")
def test_a_phones_folder_zipped_on_windows_uploaded_and_trained_on_the_page(site: Site) -> None:
    names = ["balcón", "fern", "rosé", "tulip"]
    brought: dict[str, list[Grey]] = {name: [] for name in names}
    files = {}
    for edge in (16, 20, 24):  # small, so that a short training learns them
        for name, greys in pictures(dict.fromkeys(names, 10), edge, edge).items():
            brought[name] += greys
            for index, grey in enumerate(greys):
                files[f"{name}/IMG_{edge}{index}.JPG"] = photo(grey, 1 + (index + edge) % 8, margin=edge // 4)
    service = site.service(1)
    with (site.data / "worker.log").open("ab") as log:
        worker = [sys.executable, "-m", "training.worker", "--threads", "1"]
        site.processes.append(subprocess.Popen(worker, stdout=log, stderr=log, env=environment(site), cwd=ROOT))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{service.client.base_url}#/data")
        page.get_by_role("button", name="Enter token").first.click()
        page.get_by_label("Token", exact=True).fill("admin")
        page.get_by_role("button", name="Use it").click()
        form = page.locator("#upload")
        archive = {"name": "Phone.zip", "mimeType": "application/zip", "buffer": zipped_on_windows(files)}
        form.get_by_label("ZIP file").set_input_files(archive)  # type: ignore[arg-type]
        form.get_by_role("button", name="Upload").click()
        expect(page.get_by_role("status")).to_contain_text("phone is kept: 120 images in 4 classes.")
        page.goto(f"{service.client.base_url}#/jobs")
        job = page.locator("#job-form")
        job.get_by_label("Recipe").select_option("cdcgan")
        for label, value in (("Model", "brought"), ("Data set", "phone"), ("Images to see", "12800"), ("Seed", "1")):
            job.get_by_label(label, exact=True).fill(value)
        job.get_by_text("Change the recipe").click()
        job.get_by_role("spinbutton", name="Batch size").fill("16")
        job.get_by_role("spinbutton", name="Width").fill("0.5")
        job.get_by_role("button", name="Start").click()
        expect(page.locator("#job .badge")).to_have_text("succeeded", timeout=SECONDS * 1000)
        page.get_by_role("link", name="Show its pictures").click()
        page.get_by_role("textbox", name="Seed").fill("0")
        page.get_by_role("spinbutton", name="Images").fill(str(SHOWN))
        page.get_by_role("button", name="Show", exact=True).click()
        check_right(shown_on_the_page(page, names), brought)
        browser.close()
