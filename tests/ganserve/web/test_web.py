"""``ganserve web`` writes a folder whose page makes the pictures that every other engine makes, with nobody's help."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from ganserve import Generator, errors, marks
from ganserve.calls import web
from ganserve.web import runtime, site

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "models" / "mnist-projgan"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS = 120


def there() -> runtime.Runtime:
    """onnxruntime-web as ``make web-runtime`` left it; no test fetches anything."""
    try:
        return runtime.find(ROOT / runtime.kept())
    except errors.Unavailable as error:
        pytest.skip(f"{error}; or run: make web-runtime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("web") / "public"
    site.write(MODEL, made, there(), version=5)
    return made


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    """The page in Chromium, before which a plain web server stands; nobody else is asked for anything."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever).start()
    origin, asked, said = f"127.0.0.1:{server.server_port}", list[str](), list[str]()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            context = browser.new_context()
            context.set_default_timeout(SECONDS * 1000)
            context.on("request", lambda request: asked.append(request.url))
            opened = context.new_page()
            opened.on("console", lambda message: said.append(message.text))
            opened.on("pageerror", lambda error: said.append(str(error)))
            opened.goto(f"http://{origin}/#label=3&seed=42&n=12")
            yield opened
            browser.close()
    finally:
        server.shutdown()
        server.server_close()
    assert {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {origin}
    assert said == []


def saved(page: Page, place: int) -> bytes:
    """The file that a picture on the page is."""
    script = """async (img) => {
      const bytes = new Uint8Array(await (await fetch(img.src)).arrayBuffer());
      return btoa(String.fromCharCode(...bytes));
    }"""
    return base64.b64decode(page.locator("figure img").nth(place).evaluate(script))


def test_the_page_draws_what_its_fragment_names_and_proves_itself(page: Page) -> None:
    expect(page.get_by_role("heading", name="mnist-projgan, version 5")).to_be_visible(timeout=SECONDS * 1000)
    expect(page.get_by_text("Proven: 256 addresses")).to_be_visible(timeout=SECONDS * 1000)
    expect(page.locator("figure img")).to_have_count(12)
    picture = saved(page, 5)
    expected = Generator(MODEL, version=5).generate(3, seed=47).images[0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture))), expected[..., 0])
    assert marks.XMP in picture, "what is saved says that a machine made it"
    verdict = Generator(MODEL).verify(picture)
    assert (verdict.verdict, verdict.exact) == ("match", True), verdict
    page.get_by_role("spinbutton", name="Seed").fill("9007199254740991")
    for place, seed in ((0, "9007199254740991"), (1, "0"), (11, "10")):
        expect(page.locator("figcaption").nth(place)).to_have_text(seed)
    page.get_by_role("spinbutton", name="Images").fill("0")
    page.evaluate("location.hash = '#label=3&seed=-1&n=5'")
    expect(page.get_by_role("alert")).to_contain_text("whole seed below 2**53")


def test_a_hundred_addresses_are_the_same_bytes_without_a_network(page: Page) -> None:
    random = np.random.default_rng(0)
    seeds = [0, 1, 2**32 - 1, 2**32, 2**53 - 1, *random.integers(0, 2**53, 95).tolist()]
    labels = [i % 10 for i in range(100)]
    expect(page.get_by_text("Proven: 256 addresses")).to_be_visible(timeout=SECONDS * 1000)
    page.context.set_offline(True)
    made = page.evaluate(
        """async ([labels, seeds]) => {
          const { open } = await import("./generator.js");
          const pixels = await (await open()).generate(labels, seeds);
          return btoa(Array.from(pixels, (value) => String.fromCharCode(value)).join(""));
        }""",
        [labels, seeds],
    )
    page.context.set_offline(False)
    expected = Generator(MODEL, version=5).generate(labels, seeds=seeds).images
    assert base64.b64decode(made) == expected.tobytes()


def test_the_folder_has_the_licence_of_what_it_brings_and_loads_nothing_from_elsewhere(folder: Path) -> None:
    assert "MIT License" in (folder / "runtime" / "LICENSE").read_text(encoding="utf-8")
    for name in ("index.html", "page.js", "generator.js", "latents.js", "picture.js", "page.css"):
        assert "//" not in (folder / name).read_text(encoding="utf-8").replace("// ", ""), name
    told = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert (told["name"], told["version"], len(told["grid"]["thresholds"])) == ("mnist-projgan", 5, 254)


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files that pass for the pinned ones."""
    dist = tmp_path / "dist"
    dist.mkdir()
    for name in runtime.PINNED:
        (dist / name).write_bytes(name.encode())
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in runtime.PINNED}
    monkeypatch.setattr(runtime, "PINNED", digests)
    return dist


def test_the_command_writes_a_version_and_says_how_to_look_at_it(
    pretended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "public"
    assert web.main([str(MODEL), str(target), "--version", "5", "--runtime", str(pretended)]) == 0
    assert "python3 -m http.server --directory" in capsys.readouterr().out
    assert sorted(path.name for path in target.iterdir()) == sorted([*site.PAGE, "model.json", "model.onnx", "runtime"])
    assert {path.name for path in (target / "runtime").iterdir()} == {*runtime.PINNED, *runtime.LICENCES}


@pytest.mark.parametrize(
    ("model", "version", "words"),
    [
        ("mnist-projgan", "1", "is a float version.*ganserve export mnist-projgan:1"),
        ("mnist-projgan", "99", "99"),
        ("nothing", "1", "no model 'nothing'"),
    ],
)
def test_what_cannot_be_the_same_everywhere_is_refused_with_what_to_do(
    pretended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, version: str, words: str
) -> None:
    target = tmp_path / "public"
    asked = [str(ROOT / "models" / model), str(target), "--version", version, "--runtime", str(pretended)]
    assert web.main(asked) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert re.search(words, said)
    assert not target.exists()


def test_a_folder_that_holds_something_is_left_alone(pretended: Path, tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "mine.txt").write_text("mine")
    with pytest.raises(errors.Invalid, match="holds something already"):
        site.write(MODEL, tmp_path / "public", runtime.find(pretended), version=5)
    assert [path.name for path in (tmp_path / "public").iterdir()] == ["mine.txt"]


def test_a_runtime_of_another_version_is_refused_and_one_that_is_missing_is_named(pretended: Path) -> None:
    module, *others = (pretended / name for name in runtime.PINNED)
    module.write_bytes(b"another")
    with pytest.raises(errors.Unavailable, match=r"is not that of onnxruntime-web .*--runtime"):
        runtime.find(pretended)
    others[0].unlink()
    module.unlink()
    with pytest.raises(errors.Unavailable, match=r"has no ort\.wasm\.min\.mjs"):
        runtime.find(pretended)


def test_without_npm_the_runtime_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSERVE_DATA", str(tmp_path / "var"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(errors.Unavailable, match="there is no npm to fetch it with: give the folder"):
        runtime.find()
    assert not (tmp_path / "var" / f"onnxruntime-web-{runtime.VERSION}").exists()
