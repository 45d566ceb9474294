"""Curves are drawn from whatever a run has logged so far."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from training import pictures

LINE = {"images": 64, "loss_d": 0.5, "loss_g": 1.0, "d_real": 0.6, "d_fake_before": 0.4, "d_fake_after": 0.5}


def write(run: Path, name: str, *lines: dict[str, float]) -> None:
    run.mkdir(exist_ok=True)
    (run / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def drawn(run: Path) -> bytes:
    pictures.curves(run)
    with Image.open(run / "curves.png") as picture:
        assert picture.size == (1600, 320)
        return picture.convert("RGB").tobytes()


def test_a_run_that_has_logged_nothing_has_no_curves(tmp_path: Path) -> None:
    pictures.curves(tmp_path)
    assert not (tmp_path / "curves.png").exists()


def test_each_log_adds_its_curve_to_the_picture(tmp_path: Path) -> None:
    run = tmp_path / "run"
    later = {**LINE, "images": 128, "loss_d": 0.3}
    write(run, "log", LINE, later)
    seen = [drawn(run)]
    write(run, "log", {**LINE, "wasserstein": 2.0}, {**later, "wasserstein": 1.0})
    seen.append(drawn(run))
    write(run, "epochs", {"images": 64, "loss_d": 0.5, "loss_g": 1.0}, {"images": 128, "loss_d": 0.4, "loss_g": 1.1})
    seen.append(drawn(run))
    write(run, "snapshots", {"images": 64, "score": 9.0}, {"images": 128, "score": 4.0})
    seen.append(drawn(run))
    assert len(set(seen)) == 4
