"""Curves are drawn from whatever a run has logged so far."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from ganserve import charts

LINE = {"step": 1, "loss_d": 0.5, "loss_g": 1.0, "d_real": 0.6, "d_fake_before": 0.4, "d_fake_after": 0.5}
SVG = "{http://www.w3.org/2000/svg}"


def write(run: Path, name: str, *lines: dict[str, float]) -> None:
    run.mkdir(exist_ok=True)
    (run / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def drawn(run: Path) -> list[ElementTree.Element]:
    """The charts of ``curves.svg``, side by side and inside it."""
    charts.write(run)
    picture = ElementTree.parse(run / "curves.svg").getroot()
    found = picture.findall(f"{SVG}svg")
    _, _, width, height = map(float, (picture.get("viewBox") or "").split())
    assert [float(chart.get("x") or 0) for chart in found] == [charts.WIDTH * index for index in range(len(found))]
    assert (width, height) == (charts.WIDTH * len(found), charts.HEIGHT + 24)
    return found


def test_a_run_that_has_logged_nothing_has_no_curves(tmp_path: Path) -> None:
    charts.write(tmp_path)
    assert not (tmp_path / "curves.svg").exists()


def test_each_log_adds_its_curve_to_the_picture(tmp_path: Path) -> None:
    run = tmp_path / "run"
    later = {**LINE, "step": 2, "loss_d": 0.3}
    write(run, "log", LINE, later)
    assert [len(chart.findall(f"{SVG}polyline")) for chart in drawn(run)] == [2, 3]
    write(run, "log", {**LINE, "wasserstein": 2.0}, {**later, "wasserstein": 1.0})
    assert [len(chart.findall(f"{SVG}polyline")) for chart in drawn(run)] == [3, 3]
    write(run, "epochs", {"step": 1, "loss_d": 0.5, "loss_g": 1.0}, {"step": 2, "loss_d": 0.4, "loss_g": 1.1})
    assert len(drawn(run)) == 3
    write(run, "snapshots", {"step": 1, "score": 9.0}, {"step": 2, "score": 4.0})
    assert "from 9 to 4" in (drawn(run)[3].get("aria-label") or "")


def test_a_curves_ends_are_its_first_and_last_step(tmp_path: Path) -> None:
    write(tmp_path / "run", "log", LINE, {**LINE, "step": 1_234_567})
    words = [text.text for text in drawn(tmp_path / "run")[0].iter(f"{SVG}text")]
    assert {"step 1", "step 1234567"} <= set(words)
