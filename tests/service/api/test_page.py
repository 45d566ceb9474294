"""The page at ``/``, in a real browser that may talk to nobody else."""

from __future__ import annotations

import io
import re
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from pydantic import SecretStr

from ganserve import png
from ganserve.repository import Repository
from ganserve.settings import Settings
from service.app import create_app
from service.job import Job
from service.jobs import UnknownJob, recipes
from tests.tiny import CLASSES, card, network

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ADMIN, USER = "admin-secret", "user-secret"
PHONE = {"viewport": {"width": 360, "height": 740}}
SECONDS = 20
# One, because each client reads all certificates anew.
CLIENT = httpx.Client()
USABLE = "button|link|textbox|combobox|radio|spinbutton|img"
GRID = "#/grid?model=digits&version=2&label=1&seed=7&n=6"

expect.set_options(timeout=SECONDS * 1000)


class Site:
    """A running service and its address."""

    def __init__(self, root: Path, token: str | None = None) -> None:
        self.repository = Repository(root / "models")
        samples = png.encode(np.zeros((16, 16, 1), np.uint8))
        for name, conditional, versions in (("digits", True, 2), ("plain", False, 1)):
            for number in range(1, versions + 1):
                metrics = {"images": 1000, "frechet": 0.5 / number, "frechet_real": 0.01, "label_accuracy": 0.9}
                made = card(name, conditional=conditional, metrics=metrics if conditional else {})
                content = network(conditional=conditional, seed=number)
                self.repository.promote(name, self.repository.publish(made, content, samples))
        self.app = create_app(
            Settings(
                models=self.repository.root,
                data=root / "var",
                device="cpu",
                token=SecretStr(token) if token else None,
                admin_token=SecretStr(ADMIN),
                lanes=1,
                watch_interval=0.05,
            )
        )
        config = uvicorn.Config(self.app, port=0, log_level="error", ws="none", timeout_graceful_shutdown=2)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        end = time.monotonic() + SECONDS
        while not self.server.started:
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}/"

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()

    def live(self, name: str) -> Any:
        """The version that is served, None where there is none."""
        return CLIENT.get(f"{self.url}models/{name}").json().get("live")


@pytest.fixture(scope="session", autouse=True)
def closed() -> Iterator[None]:
    yield
    CLIENT.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("open"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("guarded"), token=USER)
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens a page; at the end nothing has broken the policy, failed, left the origin or put a token into a URL."""
    opened, said, asked = [], [], []

    def go(site: Site, fragment: str = "", **options: Any) -> Page:
        context = browser.new_context(viewport=options.pop("viewport", {"width": 1200, "height": 800}), **options)
        context.set_default_timeout(SECONDS * 1000)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.url)
        opened.append(context)
        origin = urlsplit(site.url).netloc

        def request(made: Request) -> None:
            asked.append((origin, made.url))

        def console(message: ConsoleMessage) -> None:
            # The browser itself notes each 4xx; all else is ours.
            if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
                said.append(message.text)

        context.on("request", request)
        page = context.new_page()
        page.on("console", console)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(site.url + fragment)
        return page

    yield go
    for context in opened:
        context.close()
    assert said == []
    assert {url for origin, url in asked if urlsplit(url).netloc != origin and not url.startswith("blob:")} == set()
    assert not [url for _, url in asked if ADMIN in url or USER in url]


def tiles(page: Page) -> Any:
    return page.locator("#canvas img.tile")


def seed_of(page: Page) -> Any:
    return page.get_by_role("textbox", name="Seed")


def all_drawn(page: Page, count: int) -> None:
    expect(tiles(page)).to_have_count(count)
    expect(page.locator("#canvas")).not_to_have_attribute("aria-busy", "true")
    widths = tiles(page).evaluate_all("all => all.map(img => img.naturalWidth)")
    assert widths == [8] * count


def sign_in(page: Page, token: str = ADMIN) -> None:
    page.get_by_role("button", name="Enter token").first.click()
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Use it").click()


# ---- what is sent ----


def test_the_page_may_load_nothing_from_elsewhere_and_is_kept_by_its_tag(site: Site) -> None:
    first = CLIENT.get(site.url)
    policy = dict(part.strip().split(" ", 1) for part in first.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert first.headers["x-content-type-options"] == "nosniff"
    assert first.headers["referrer-policy"] == "no-referrer"
    for path in ("", *re.findall(r'(?:href|src)="(page/[^"]+)"', first.text)):
        answer = CLIENT.get(site.url + path)
        assert answer.status_code == 200
        for told in (answer.headers["etag"], "*"):
            assert CLIENT.get(site.url + path, headers={"If-None-Match": told}).status_code == 304
        assert CLIENT.head(site.url + path).headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("path", ["page/nothing.js", "page/..%2fsettings.py", "page/%2e%2e%2fsettings.py", "nothing"])
def test_what_is_not_the_page_is_not_there(site: Site, path: str) -> None:
    answer = CLIENT.get(site.url + path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


# ---- pictures ----


def test_a_grid_appears_and_a_click_on_a_tile_copies_the_address_of_its_very_bytes(site: Site, visit: Visit) -> None:
    page = visit(site, GRID)
    all_drawn(page, 6)
    tiles(page).nth(3).click()
    expect(page.get_by_role("status")).to_contain_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{site.url}images/digits/2/1/10.png"
    assert tiles(page).nth(3).evaluate("img => img.currentSrc") == copied
    png = CLIENT.get(copied)
    shown = (
        tiles(page)
        .nth(3)
        .evaluate("img => fetch(img.currentSrc).then(r => r.arrayBuffer()).then(b => [...new Uint8Array(b)])")
    )
    assert bytes(shown) == png.content
    expect(page.locator("#address")).to_have_text(copied)
    expect(page.get_by_role("link", name="Open")).to_have_attribute("href", copied)
    with page.expect_download() as download:
        page.get_by_role("link", name="Save digits-2-one-10.png").click()
    assert Path(download.value.path()).read_bytes() == png.content


def test_a_roll_draws_another_seed_and_back_brings_the_old_one(site: Site, visit: Visit) -> None:
    page = visit(site, GRID)
    all_drawn(page, 6)
    page.get_by_role("button", name="Roll").click()
    expect(page).not_to_have_url(site.url + GRID)
    all_drawn(page, 6)
    seed = seed_of(page).input_value()
    assert f"seed={seed}&" in page.url
    assert tiles(page).first.get_attribute("data-seed") == seed != "7"
    page.go_back()
    expect(seed_of(page)).to_have_value("7")
    all_drawn(page, 6)


def test_a_click_on_a_label_shows_that_label_and_all_shows_them_in_turn(site: Site, visit: Visit) -> None:
    page = visit(site, GRID)
    page.get_by_role("radio", name="two").check(force=True)
    expect(page).to_have_url(re.compile("label=2"))
    all_drawn(page, 6)
    assert tiles(page).evaluate_all("all => all.map(img => img.dataset.label)") == ["2"] * 6
    page.get_by_role("radio", name="All").check(force=True)
    expect(page).to_have_url(re.compile("label=all"))
    all_drawn(page, 6)
    assert tiles(page).evaluate_all("all => all.map(img => img.dataset.label)") == list("012012")
    with page.expect_download() as download:
        page.get_by_role("link", name="ZIP").click()
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert len([name for name in names if name.endswith(".png")]) == 6


def test_an_address_is_enough_to_see_the_same(site: Site, visit: Visit) -> None:
    first = visit(site)
    expect(tiles(first)).to_have_count(40)
    shared = urlsplit(first.url)
    second = visit(site, f"#{shared.fragment}")
    expect(tiles(second)).to_have_count(40)
    paths = "all => all.map(img => img.dataset.path)"
    assert tiles(second).evaluate_all(paths) == tiles(first).evaluate_all(paths)


def test_what_was_published_after_the_page_was_opened_is_shown_without_a_reload(tmp_path: Path, visit: Visit) -> None:
    site = Site(tmp_path)
    try:
        page = visit(site, GRID)
        all_drawn(page, 6)
        for number, fragment in ((1, "#/grid?model=late&n=2&seed=0"), (2, "#/grid?model=late&version=2&n=2&seed=0")):
            made = card("late", conditional=True)
            sheet = png.encode(np.zeros((16, 16, 1), np.uint8))
            site.repository.promote("late", site.repository.publish(made, network(seed=number), sheet))
            while site.live("late") != number:
                time.sleep(0.02)
            page.evaluate("to => { location.hash = to; }", fragment)  # as a link does
            expect(tiles(page)).to_have_count(2)
            expect(tiles(page).first).to_have_attribute("data-path", re.compile(f"late/{number}/"))
    finally:
        site.close()


def test_the_keyboard_alone_is_enough(site: Site, visit: Visit) -> None:
    page = visit(site, GRID)
    all_drawn(page, 6)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the pictures")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.get_by_role("radio", name="one")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile("label=2"))
    expect(page.get_by_role("radio", name="two")).to_be_focused()
    page.keyboard.press("Tab")
    expect(seed_of(page)).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.type("9007199254740990")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("seed=9007199254740990"))
    all_drawn(page, 6)
    # Seeds go around, as the service's do.
    seeds = tiles(page).evaluate_all("all => all.map(img => img.dataset.seed)")
    assert seeds == ["9007199254740990", "9007199254740991", "0", "1", "2", "3"]
    tiles(page).first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    expect(tiles(page).last).to_be_focused()
    outline = tiles(page).last.evaluate("img => getComputedStyle(img).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("images/digits/2/2/3.png")


def test_a_sheet_has_a_row_a_label_and_a_column_a_seed(site: Site, visit: Visit) -> None:
    page = visit(site, "#/sheet?model=digits&seed=4&n=5")
    all_drawn(page, 5 * len(CLASSES))
    assert page.get_by_role("columnheader").all_inner_texts()[-5:] == ["4", "5", "6", "7", "8"]
    assert page.get_by_role("rowheader").all_inner_texts() == CLASSES
    assert tiles(page).nth(6).get_attribute("data-path") == "images/digits/2/1/5.png"
    page.get_by_role("combobox", name="Model").select_option("plain")
    all_drawn(page, 5)
    assert tiles(page).first.get_attribute("data-path") == "images/plain/1/-/4.png"


def test_a_walk_moves_between_two_seeds_can_be_stopped_and_waits_for_who_wants_no_motion(
    site: Site, visit: Visit
) -> None:
    fragment = "#/walk?model=digits&label=1&seed=3&to=9&frames=5"
    page = visit(site, fragment)
    stage = page.locator(".stage img")
    expect(stage).to_have_attribute("src", re.compile("^blob:"))
    address = page.locator("#address").inner_text()
    query = "model=digits&version=2&label=1&from=3&to=9&frames=5&format=webp"
    assert address == f"{site.url}morph?{query}"
    assert Image.open(io.BytesIO(CLIENT.get(address).content)).n_frames > 1  # type: ignore[attr-defined]
    page.get_by_role("button", name="Stop").click()
    expect(stage).to_have_attribute("src", f"{site.url}images/digits/2/1/3.png")
    still = visit(site, fragment, reduced_motion="reduce")
    expect(still.get_by_role("button", name="Play")).to_be_enabled()
    expect(still.locator(".stage img")).to_have_attribute("src", f"{site.url}images/digits/2/1/3.png")


def test_what_the_service_refuses_is_said_in_its_words_and_never_read_as_html(site: Site, visit: Visit) -> None:
    page = visit(site, "#/grid?model=<img src=x onerror=alert(1)>")
    problem = page.get_by_role("alert").first
    expect(problem).to_contain_text("There is no model <img src=x onerror=alert(1)> here.")
    assert problem.locator("*").count() == 0
    page.goto(f"{site.url}#/grid?model=digits&seed=9007199254740992")
    expect(problem).to_contain_text("whole number from 0 to 2^53 - 1")
    body = '{"detail": "<b>nothing</b> is at /morph"}'
    page.route("**/morph?*", lambda route: route.fulfill(status=404, body=body))
    page.goto(f"{site.url}#/walk?model=digits&label=1&seed=3&to=9")
    expect(problem).to_contain_text("This server has no walks")


def test_a_truncation_goes_with_every_picture_of_grid_sheet_and_walk(site: Site, visit: Visit) -> None:
    page = visit(site, GRID)
    all_drawn(page, 6)
    page.get_by_label("Truncation").fill("0.5")
    page.get_by_role("button", name="Show").click()
    expect(tiles(page).first).to_have_attribute("data-path", re.compile(r"\?truncation=0\.5$"))
    all_drawn(page, 6)
    expect(page.locator("#address")).to_contain_text("truncation=0.5")
    expect(page.get_by_role("link", name="one PNG")).to_have_attribute("href", re.compile("truncation=0.5"))
    for view, at in (("sheet", "#canvas img"), ("walk", "#canvas .walk img")):
        page.locator(f'nav [data-view="{view}"]').click()
        expect(page.locator(at).first).to_have_attribute("src", re.compile(r"truncation=0\.5$"))
        expect(page.get_by_label("Truncation")).to_have_value("0.5")
    expect(page.locator("#address")).to_contain_text("truncation=0.5")
    page.goto(f"{site.url}{GRID}&truncation=2")
    expect(page.locator("#problem")).to_contain_text("Truncation is a number above 0")


# ---- a picture verified ----


DROP = """(zone, bytes) => {
  const given = new DataTransfer();
  given.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
  for (const kind of ["dragover", "drop"]) {
    zone.dispatchEvent(new DragEvent(kind, { dataTransfer: given, bubbles: true, cancelable: true }));
  }
}"""


def test_a_picture_that_is_dropped_is_shown_beside_what_stands_at_its_address(site: Site, visit: Visit) -> None:
    page = visit(site, "#/verify")
    png = CLIENT.get(f"{site.url}images/digits/2/1/10.png").content
    page.locator("#drop").evaluate(DROP, list(png))
    verdict = page.locator("#verdict")
    expect(verdict.locator(".badge")).to_have_text("Match")
    expect(verdict).to_contain_text(f"{site.url}images/digits/2/1/10.png")
    for alt in ("The picture that was sent", "What stands at the address"):
        expect(verdict.get_by_alt_text(alt)).to_have_js_property("naturalWidth", 8)
    # Stripped and changed, and found by its address all the same.
    pixels = np.asarray(Image.open(io.BytesIO(png))).copy()
    pixels[0, 0] ^= 255
    stripped = io.BytesIO()
    Image.fromarray(pixels).save(stripped, "PNG")
    form = page.locator("#verify-form")
    form.get_by_label("Drop a PNG").set_input_files(
        {"name": "stripped.png", "mimeType": "image/png", "buffer": stripped.getvalue()}
    )
    expect(verdict.locator(".badge")).to_have_text("No address")
    for address in (f"{site.url}images/digits/2/one/10.png", "model=digits&version=2&label=1&seed=10"):
        form.get_by_label("Address").fill(address)
        form.get_by_role("button", name="Verify").click()
        expect(verdict).to_contain_text("1 pixel is not those of the address.")
        expect(verdict.locator(".badge")).to_have_text("Differs")


def test_what_is_no_picture_is_said_in_the_service_s_words_and_never_read_as_html(site: Site, visit: Visit) -> None:
    page = visit(site, "#/verify")
    form = page.locator("#verify-form")
    form.get_by_label("Drop a PNG").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"<b>no</b>"})
    expect(form.get_by_role("alert")).to_contain_text("neither PNG nor WebP")
    expect(page.locator("#verdict")).to_be_hidden()
    hostile = png.encode(np.zeros((8, 8, 1), np.uint8), {"Address": "model=digits&version=1&<img src=x onerror=1>=1"})
    form.get_by_label("Drop a PNG").set_input_files({"name": "b.png", "mimeType": "image/png", "buffer": hostile})
    expect(form.get_by_role("alert")).to_contain_text("<img src")
    expect(page.locator("#verify-form img")).to_have_count(0)


# ---- looks ----


CONTRASTS = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const texts = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!texts || !element.checkVisibility() || element.closest(".unseen, .skip, :disabled")) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), element.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_in_dark_and_fits_a_phone(site: Site, visit: Visit, scheme: str) -> None:
    page = visit(site, GRID, color_scheme=scheme, **PHONE)
    all_drawn(page, 6)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", ground)[:3])) < 60) == (scheme == "dark")
    sign_in(page)
    expect(page.get_by_role("link", name="Jobs")).to_be_visible()
    views = {"grid": "#canvas .tile", "sheet": "#canvas .tile", "walk": ".stage img", "models": "#model-list article"}
    views["verify"] = "#drop"
    for view, sign in {**views, "jobs": "#job-list li", "data": "#dataset-list p"}.items():
        page.locator(f'nav [data-view="{view}"]').click()
        expect(page.locator(sign).first).to_be_visible()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, f"{view} is {wide} pixels wide"
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 10
        assert [entry for entry in contrasts if entry[0] < 4.5] == []


def test_everything_that_can_be_used_has_a_name_and_the_page_has_landmarks(site: Site, visit: Visit) -> None:
    page = visit(site, GRID)
    sign_in(page)
    expect(page.get_by_role("link", name="Jobs")).to_be_visible()
    for role in ("banner", "navigation", "main", "contentinfo"):
        expect(page.get_by_role(role)).to_have_count(1)
    for view in ("grid", "walk", "verify", "models", "jobs", "data"):
        page.locator(f'nav [data-view="{view}"]').click()
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        tree = page.locator("body").aria_snapshot()
        nameless = re.findall(rf"^\s*- (?:{USABLE})(?: \[[^\]]*\])*:?$", tree, re.M)
        assert nameless == [], view


# ---- admin ----


def test_a_wrong_token_is_refused_in_words_and_a_right_one_is_kept_for_the_tab_only(site: Site, visit: Visit) -> None:
    page = visit(site, "#/jobs")
    expect(page.get_by_role("heading", name="A token is needed")).to_be_visible()
    sign_in(page, "wrong")
    expect(page.locator("#token-form").get_by_role("alert")).to_have_text("this token is not known here")
    page.get_by_label("Token", exact=True).fill(ADMIN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Start a training")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Start a training")).to_be_visible()
    assert page.evaluate("Object.keys(localStorage).length") == 0
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Forget token").click()
    expect(page.get_by_role("heading", name="A token is needed")).to_be_visible()
    assert ADMIN not in page.evaluate("JSON.stringify(sessionStorage)")


def test_the_card_of_a_model_leads_to_the_report_of_its_version(site: Site, guarded: Site, visit: Visit) -> None:
    page = visit(site, "#/models?model=digits&version=1")
    shown = page.locator("article", has=page.get_by_role("heading", name="digits"))
    with page.expect_popup() as opened:
        shown.get_by_role("link", name="Report").click()
    expect(opened.value.get_by_role("heading", name="digits version 1")).to_be_visible()
    expect(opened.value.get_by_alt_text("Samples of digits version 1")).to_be_visible()
    # Where a token is needed, a tab of its own could not send it.
    page = visit(guarded, "#/models?model=digits&version=1")
    sign_in(page, USER)
    shown = page.locator("article", has=page.get_by_role("heading", name="digits"))
    with page.expect_download() as download:
        shown.get_by_role("link", name="Report").click()
    assert download.value.suggested_filename == "digits-1-report.html"
    assert b"digits version 1" in Path(download.value.path()).read_bytes()


def test_an_admin_rolls_back_and_promotes(site: Site, visit: Visit) -> None:
    page = visit(site, "#/models")
    shown = page.locator("article", has=page.get_by_role("heading", name="digits"))
    expect(shown.get_by_role("table")).to_contain_text("0.25")
    expect(page.get_by_role("button", name=re.compile("Roll back|live"))).to_have_count(0)
    sign_in(page)
    shown.get_by_role("button", name="Roll back to version 1").click()
    expect(page.get_by_role("status")).to_contain_text("Version 1 of digits is live.")
    expect(shown).to_contain_text("version 1 live")
    assert site.live("digits") == 1
    shown.get_by_role("combobox", name="Version").select_option("2")
    shown.get_by_role("button", name="Make version 2 live").click()
    expect(page.get_by_role("status")).to_contain_text("Version 2 of digits is live.")
    assert site.live("digits") == 2


def test_an_admin_starts_a_job_and_cancels_it(site: Site, visit: Visit) -> None:
    page = visit(site, "#/jobs")
    sign_in(page)
    form = page.locator("#job-form")
    form.get_by_label("Model").fill("fresh")
    form.get_by_label("Recipe").select_option("cdcgan")
    form.get_by_label("Data set").fill("nowhere")
    form.get_by_role("button", name="Start").click()
    expect(form.get_by_role("alert")).to_contain_text("'nowhere' is not uploaded")
    form.get_by_label("Data set").fill("digits")
    form.get_by_label("Images to see").fill("1000")
    form.get_by_role("button", name="Start").click()
    job = page.locator("#job")
    expect(job).to_contain_text("queued")
    expect(job).to_contain_text("No worker is running")
    job.get_by_role("button", name="Cancel the job").click()
    expect(job.locator(".badge")).to_have_text("cancelled")
    expect(page.locator("#job-list")).to_contain_text("cancelled")
    expect(job.get_by_role("button", name="Cancel the job")).to_have_count(0)


def test_a_job_may_differ_from_its_recipe_within_the_recipe_s_bounds(site: Site, visit: Visit) -> None:
    page = visit(site, "#/jobs")
    sign_in(page)
    form = page.locator("#job-form")
    form.get_by_label("Model").fill("other")
    form.get_by_label("Recipe").select_option("cdcgan")
    form.get_by_label("Data set").fill("digits")
    batch = form.get_by_role("spinbutton", name="Batch size")
    expect(batch).to_be_hidden()
    # The keyboard alone opens it, and goes from field to field.
    form.get_by_text("Change the recipe").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(batch).to_be_focused()
    bounds = recipes()["cdcgan"]["overrides"]
    assert form.locator("#overrides").get_by_role("spinbutton").count() == len(bounds)
    told = [batch.get_attribute(name) for name in ("min", "max", "placeholder")]
    assert told == [str(bounds["batch"][name]) for name in ("min", "max", "default")]
    page.keyboard.type("4096")
    # Closed again, what is wrong in it would not be seen: it opens by itself and nothing is sent.
    form.get_by_text("Change the recipe").click()
    form.get_by_role("button", name="Start").click()
    expect(batch).to_be_visible()
    assert not batch.evaluate("input => input.validity.valid")
    batch.fill("16")
    form.get_by_role("spinbutton", name="Learning rate, generator").fill("0.0004")
    form.get_by_role("button", name="Start").click()
    expect(page.locator("#job .facts")).to_contain_text("0.0004")
    job = site.app.state.jobs.page()[0]
    assert job.request["overrides"] == {"batch": 16, "lr_g": 0.0004}
    page.locator("#job").get_by_role("button", name="Cancel the job").click()
    expect(page.locator("#job .badge")).to_have_text("cancelled")


@contextmanager
def told_as_it_goes(site: Site, states: list[Job]) -> Iterator[Callable[[], object]]:
    """The queue reads as a job under way, which is one state on whenever the test says so."""
    store = site.app.state.jobs
    left = list(states)

    def get(job_id: str) -> Job:
        if job_id != states[0].id:
            raise UnknownJob(job_id)
        return left[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "get", get)
        yield lambda: left.pop(0)


def test_progress_and_curves_come_while_a_job_runs(site: Site, visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.jobs.POLL_SECONDS", 0.2)
    page = visit(site, "#/jobs")
    sign_in(page)
    expect(page.locator("#job-list li").first).to_be_visible()
    request = {"model": "fresh", "recipe": "cdcgan", "dataset": "digits", "images": 400}
    first = Job(id="live-one", state="running", step="train", request=request, created_at=datetime.now(UTC))
    progress = {"images_total": 400, "images_per_second": 50.0, "seconds_left": 2.0}
    running = [
        first.model_copy(update={"progress": {**progress, "images": at, "loss_d": 1 - at / 1000, "loss_g": at / 300}})
        for at in (100, 200, 300)
    ]
    result = {"version": 3, "promoted": True}
    ended = running[-1].model_copy(update={"state": "succeeded", "step": "promote", "result": result})
    with told_as_it_goes(site, [*running, ended]) as go_on:
        page.goto(f"{site.url}#/jobs?id=live-one")
        job = page.locator("#job")
        expect(job).to_contain_text("of 400 images")
        for at in (100, 200, 300):
            expect(job.locator("progress")).to_have_attribute("value", str(at))
            go_on()
        expect(job.locator(".badge").first).to_have_text("succeeded")
    expect(job).to_contain_text("version 3, live")
    curves = job.locator("polyline").evaluate_all("all => all.map(line => line.points.numberOfItems)")
    assert curves == [3, 3]
    expect(job.get_by_role("img", name=re.compile("Curves over 300 images"))).to_be_visible()
    page.set_viewport_size(PHONE["viewport"])  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_judges_curve_is_drawn_and_a_training_can_be_ended_with_its_best_snapshot(
    site: Site, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.jobs.POLL_SECONDS", 0.2)
    page = visit(site, "#/jobs")
    sign_in(page)
    expect(page.locator("#job-list li").first).to_be_visible()
    curve = [
        {"images": at, "label_accuracy": at / 400, "recall": 0.2, "coverage": 0.5, "frechet_ratio": 900 / at}
        for at in (100, 200, 300)
    ]
    progress = {"images": 300, "images_total": 400, "seconds_left": 90.0, "loss_d": 1.0, "loss_g": 2.0, "curve": curve}
    request = {"model": "fresh", "recipe": "cdcgan", "dataset": "digits", "images": 400}
    first = Job(id="live-one", state="running", step="train", request=request, created_at=datetime.now(UTC))
    running = first.model_copy(update={"progress": progress})
    exporting = running.model_copy(update={"step": "export"})
    ended: list[str] = []

    def finish(job_id: str) -> Job:
        ended.append(job_id)
        return running

    monkeypatch.setattr(site.app.state.jobs, "finish", finish)
    with told_as_it_goes(site, [running, exporting]) as go_on:
        page.goto(f"{site.url}#/jobs?id=live-one")
        job = page.locator("#job")
        shown = job.get_by_role("img", name=re.compile("Curves over 300 images"))
        expect(shown.first).to_be_visible()
        told = " ".join(shown.evaluate_all("all => all.map(one => one.ariaLabel)"))
        assert re.search(r"asked 0\.75\b.*Recall 0\.2\b.*Coverage 0\.5\b", told)
        assert "that of real pictures 3" in told
        finish_now = job.get_by_role("button", name="Finish now with the best snapshot")
        finish_now.click()
        expect(page.get_by_role("status")).to_contain_text("its best snapshot is exported")
        go_on()
        expect(finish_now).to_have_count(0)
    assert ended == ["live-one"]


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in ("cats", "dogs"):
            for index in range(3):
                picture = io.BytesIO()
                Image.new("L", (8, 8), index * 40).save(picture, "PNG")
                file.writestr(f"{name}/{index}.png", picture.getvalue())
    return buffer.getvalue()


def test_an_admin_uploads_a_data_set_and_deletes_it(site: Site, visit: Visit) -> None:
    page = visit(site, "#/data")
    sign_in(page)
    form = page.locator("#upload")
    file = form.get_by_label("ZIP file")
    file.set_input_files({"name": "My Pets.zip", "mimeType": "application/zip", "buffer": b"no archive"})
    expect(form.get_by_label("Name")).to_have_value("my-pets")
    form.get_by_role("button", name="Upload").click()
    expect(form.get_by_role("alert")).to_contain_text("refused")
    file.set_input_files({"name": "pets.zip", "mimeType": "application/zip", "buffer": archive()})
    form.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("status")).to_contain_text("my-pets is kept: 6 images in 2 classes.")
    expect(page.locator("#dataset-list")).to_contain_text("6 images in 2 classes")
    expect(page.locator("#dataset-list")).to_contain_text("grey, short edges from 8 to 8 pixels")
    expect(page.locator("#dataset-list")).to_contain_text("3 pictures are there more than once")
    expect(page.get_by_alt_text("One picture of each class of my-pets")).to_have_js_property("naturalWidth", 128)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete my-pets").click()
    expect(page.locator("#dataset-list")).to_contain_text("Nothing has been uploaded yet.")


# ---- behind a token ----


def test_behind_a_token_pictures_are_fetched_with_it_and_the_token_stays_out_of_every_address(
    guarded: Site, visit: Visit
) -> None:
    page = visit(guarded, GRID)
    expect(page.get_by_role("heading", name="A token is needed")).to_be_visible()
    sign_in(page, USER)
    all_drawn(page, 6)
    sources = tiles(page).evaluate_all("all => all.map(img => img.src)")
    assert all(source.startswith("blob:") for source in sources)
    expect(page.get_by_role("link", name="Jobs")).to_have_count(0)
    tiles(page).nth(1).click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{guarded.url}images/digits/2/1/8.png"
    with page.expect_download() as download:
        page.get_by_role("link", name="Save digits-2-one-8.png").click()
    png = CLIENT.get(copied, headers={"Authorization": f"Bearer {USER}"})
    assert png.status_code == 200
    assert Path(download.value.path()).read_bytes() == png.content
