from __future__ import annotations

import base64
import itertools
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganserve import charts, png
from training import report

HOSTILE = '<script>alert("1")</script>'
# What may name something outside the file.
REFERENCES = ("src", "href", "srcset", "data", "poster", "action", "xlink:href")
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """A parsed report: tags in order, all text, and whether every element was closed in its turn."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(self.source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def lines(values: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def log_line(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "images": step * 64,
        "images_per_second": 321.7,
        "loss_d": 0.51234 + step * 1e-6,
        "loss_g": 1.25,
        "d_real": 0.75,
        "d_fake_before": 0.25,
        "d_fake_after": 0.375,
        "logit_gap": 2.5,
    }


def snapshot_line(step: int, **more: Any) -> dict[str, Any]:
    score = 40 / step
    return {
        "step": step,
        "images": step * 64,
        "score": score,
        "frechet": score,
        "coverage": 0.5,
        "within_class_variance_ratio": 0.8,
        "precision": 0.7,
        "class_histogram": [10, 10],
        "class_shares": [1.0, 1.0],
        **more,
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What the trainer leaves behind, in small."""
    folder = tmp_path / "bars-cgan"
    (folder / "samples").mkdir(parents=True)
    config = {"recipe": "cgan", "dataset": "bars", "size": 28, "channels": 1, "seed": 17, "overrides": {"width": 0.5}}
    (folder / "config.json").write_text(json.dumps({**config, "classes": ["lying", "upright"], "init": None}))
    best = {"step": 2000, "score": 0.02}
    status = {"state": "running", "step": 2000, "steps": 4000, "images": 128_000, "best": best}
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "log.jsonl").write_text(lines([log_line(step) for step in range(100, 2001, 100)]))
    (folder / "snapshots.jsonl").write_text(lines([snapshot_line(step) for step in range(200, 2001, 200)]))
    for step in (200, 400):
        for kind in ("fresh", "same-noise"):
            sheet(folder, kind, step)
    return folder


def sheet(run: Path, kind: str, step: int, edge: int = 8) -> bytes:
    pixels = np.random.default_rng(step).integers(0, 256, (edge, edge, 1), dtype=np.uint8)
    content = png.encode(pixels)
    (run / "samples" / f"{kind}-{step:09d}.png").write_bytes(content)
    return content


def written(run: Path) -> Page:
    return Page(report.write(run))


def test_the_report_is_one_file_that_refers_to_nothing_outside_itself(run: Path) -> None:
    page = written(run)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in REFERENCES:
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert "http" not in page.source


def test_it_tells_the_state_the_configuration_and_the_numbers_of_the_log(run: Path) -> None:
    text = written(run).text
    for told in ("bars-cgan", "running", "2000 of 4000 (50%)", "128000", "cgan", "17", "width = 0.5", "lying, upright"):
        assert told in text
    for number in ("321.7", "0.51434", "0.375", "1.25"):
        assert number in text
    assert "Best snapshot: step" in text
    assert "0.02" in text


def test_it_tells_the_time_left_and_what_the_best_snapshot_is_worth(run: Path) -> None:
    status = json.loads((run / "status.json").read_text())
    best = {"step": 2000, "score": 0.02, "label_accuracy": 0.913, "frechet_ratio": 4.25, "recall": None}
    (run / "status.json").write_text(json.dumps({**status, "seconds_left": 4000, "best": best}))
    text = written(run).text
    assert "about 1 h 7 min left" in text
    assert "label accuracy 0.913" in text
    assert "4.25" in text
    (run / "status.json").write_text(json.dumps({**status, "state": "finished", "seconds_left": 4000}))
    assert "min left" not in written(run).text


def test_a_run_that_was_ended_early_says_so_and_what_is_exported(run: Path) -> None:
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "finished", "ended_early": True}))
    text = written(run).text
    assert "ended early" in text
    assert "2000 of 4000 (50%)" in text
    assert "It is the one that is exported" in text


def test_curves_and_metrics_are_pictures_that_say_in_words_what_they_show(run: Path) -> None:
    page = written(run)
    labels = [svg["aria-label"] or "" for svg in page.all("svg")]
    assert any(label.startswith("Losses: loss of D goes from 0.5124 to 0.5143; loss of G") for label in labels)
    assert any("D(x) goes from 0.75" in label and "D(G(z)) after" in label for label in labels)
    assert any(label.startswith("Frechet distance (lower is better)") and "0.2 to 0.02" in label for label in labels)
    # The score is the Frechet distance here, and one curve of it is enough.
    assert not any(label.startswith("score") for label in labels)
    assert all(svg["role"] == "img" for svg in page.all("svg"))
    assert all(img["alt"] for img in page.all("img"))


def test_points_of_a_curve_lie_inside_its_picture(run: Path) -> None:
    wild = [log_line(1) | {"loss_d": 1e9}, log_line(2) | {"loss_d": -1e-9}, log_line(3) | {"loss_d": 0}]
    (run / "log.jsonl").write_text(lines(wild))
    for line in written(run).all("polyline"):
        for point in (line["points"] or "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 420
            assert 0 <= y <= 220


def test_the_sheets_are_inside_it_byte_for_byte_and_the_latest_come_first(run: Path) -> None:
    last = sheet(run, "fresh", 600)
    images = written(run).all("img")
    assert len(images) == 5
    assert "step 600" in (images[0]["alt"] or "")
    assert base64.b64decode((images[0]["src"] or "").partition("base64,")[2]) == last


def test_many_sheets_are_thinned_evenly_and_the_first_and_last_stay(run: Path) -> None:
    for step in range(200, 20_001, 200):
        sheet(run, "fresh", step)
        sheet(run, "same-noise", step)
    told = [image["alt"] or "" for image in written(run).all("img")]
    fresh = sorted(int(t.partition("step ")[2].partition(",")[0]) for t in told if "Fresh" in t)
    assert len(told) == report.SHEETS
    assert len(fresh) == 8
    assert (fresh[0], fresh[-1]) == (200, 20_000)
    gaps = [b - a for a, b in itertools.pairwise(fresh)]
    assert max(gaps) - min(gaps) <= 200


def test_large_sheets_do_not_swell_the_page_past_its_bound(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "SHEET_BYTES", 10_000)
    for step in (600, 800, 1000):
        sheet(run, "fresh", step, edge=64)
    page = written(run)
    assert "step 1000" in (page.all("img")[0]["alt"] or "")
    assert "too large for this page" in page.text
    assert len(page.source) < 100_000


def test_a_long_log_is_thinned_to_its_ends(run: Path) -> None:
    (run / "log.jsonl").write_text(lines([log_line(step) for step in range(1, 20_001)]))
    page = written(run)
    assert len(page.source) < 200_000
    assert "step 20000" in page.text
    assert max(len((line["points"] or "").split()) for line in page.all("polyline")) == charts.POINTS


@pytest.mark.parametrize("key", ["classes", "dataset", "recipe", "overrides"])
def test_hostile_names_are_shown_and_never_run(run: Path, key: str) -> None:
    file = run / "config.json"
    values = {"classes": [HOSTILE, "b"], "overrides": {HOSTILE: HOSTILE}}
    file.write_text(json.dumps({**json.loads(file.read_text()), key: values.get(key, HOSTILE)}))
    page = written(run)
    assert HOSTILE in page.text
    assert HOSTILE not in page.source
    assert not page.all("script")


def test_hostile_folders_measurements_and_reasons_are_escaped_too(run: Path) -> None:
    odd = '<img src=x onerror="1">'
    moved = run.rename(run.parent / odd)
    (moved / "snapshots.jsonl").write_text(lines([snapshot_line(1000, **{odd: 1.5}), snapshot_line(2000, **{odd: 2})]))
    (moved / "status.json").write_text(json.dumps({"state": odd, "step": 1, "steps": odd, "reason": odd}))
    page = written(moved)
    assert odd not in page.source
    assert odd in page.text
    assert not [image for image in page.all("img") if "onerror" in image]


def test_half_written_and_odd_lines_are_passed_over(run: Path) -> None:
    with (run / "log.jsonl").open("a") as file:
        file.write('[1]\n"text"\n{"loss_d": 3}\n{"step": 2100, "loss_d": NaN}\n{"step": 2200, "loss_d": 0.5')
    (run / "snapshots.jsonl").write_bytes(b'{"step": 1000, "score": 1.0}\n\xff\xfe\n{"step": 12')
    (run / "status.json").write_text('{"state": "run')
    page = written(run)
    assert "not started" in page.text
    assert "nan" not in " ".join(line["points"] or "" for line in page.all("polyline"))
    assert "2200" not in page.text


def test_a_run_that_has_only_begun_has_a_report_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"recipe": "gan", "dataset": "digits", "classes": []}))
    text = written(tmp_path).text
    for told in ("Nothing is logged yet.", "No snapshot is taken yet.", "No sheet is drawn yet.", "None."):
        assert told in text


def test_the_guards_warnings_of_grown_snapshots_and_the_reason_of_a_failure_are_listed(run: Path) -> None:
    snapshots = [snapshot_line(400, class_shares=[0.0, 2.0]), snapshot_line(1000, class_shares=[0.01, 1.99])]
    (run / "snapshots.jsonl").write_text(lines(snapshots))
    (run / "status.json").write_text(json.dumps({"state": "failed", "steps": 4000, "reason": "it has collapsed"}))
    page = written(run)
    assert "it has collapsed" in page.text
    warnings = [word for word in page.words if "hardly ever made" in word]
    assert len(warnings) == 1
    assert warnings[0].startswith("step 1000: 1 of 2 classes")


def test_the_best_snapshot_stands_out_in_the_table(run: Path) -> None:
    page = written(run)
    assert [row for row in page.all("tr") if row.get("class") == "best"] == [{"class": "best"}]


def test_the_command_says_where_the_report_is_or_why_there_is_none(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").stat().st_size < 200_000
    assert report.main([str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err
