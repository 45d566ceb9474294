"""Pictures of the page for the README, of the shipped models, taken by a headless Chromium.

python deploy/screenshots/take.py
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from ganserve.settings import Settings  # noqa: E402
from service.app import create_app  # noqa: E402

SHOTS: dict[str, tuple[str, dict[str, Any]]] = {
    "page-light.png": (
        "#/grid?label=all&seed=90&n=60",
        {"viewport": {"width": 1360, "height": 900}, "color_scheme": "light"},
    ),
    "page-dark-phone.png": (
        "#/grid?label=3&seed=20&n=24",
        {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "color_scheme": "dark"},
    ),
}


def main() -> None:
    """Serve the shipped models on loopback, and look at the page."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("no chromium is installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as data:
        app = create_app(Settings(models=ROOT / "models", data=Path(data), device="cpu"))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                for name, (fragment, options) in SHOTS.items():
                    page = browser.new_context(reduced_motion="reduce", **options).new_page()
                    page.goto(url + fragment)
                    page.wait_for_selector("#canvas:not([aria-busy]) img.tile")
                    page.wait_for_load_state("networkidle")
                    page.screenshot(path=HERE / name)
                browser.close()
        finally:
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    main()
