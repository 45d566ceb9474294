"""What people look at while a run trains: sample sheets and curves as PNGs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ganserve import encode, files, png

if TYPE_CHECKING:
    from training.trainer import Renderer

COLUMNS = 16


def sample_sheets(run: Path, step: int, render: Renderer, classes: Sequence[str]) -> Path:
    """Write the sheet of fresh noise (one row a class) and, if conditional, that of the same noise across classes."""
    folder = run / "samples"
    rows = min(len(classes), 64) or COLUMNS
    labels = torch.arange(rows).repeat_interleave(COLUMNS) if classes else None
    fresh = folder / f"fresh-{step:09d}.png"
    files.replace(fresh, sheet(render(render.noise(rows * COLUMNS), labels)))
    if classes:
        same = render.noise(COLUMNS).repeat(rows, 1)
        files.replace(folder / f"same-noise-{step:09d}.png", sheet(render(same, labels)))
    return fresh


def sheet(images: torch.Tensor) -> bytes:
    """A PNG grid, 16 columns wide, of uint8 [n, c, h, w]."""
    return png.encode(encode.grid(images.permute(0, 2, 3, 1).contiguous().numpy(), COLUMNS))


def curves(run: Path) -> None:
    """Draw ``curves.png`` from the run's logs: losses, D's answers, an epoch's means, and the held-out score."""
    log, epochs, snapshots = (_lines(run / f"{name}.jsonl") for name in ("log", "epochs", "snapshots"))
    if not log:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Margins of one's own: a layout that measures the texts first draws everything twice.
    figure, axes = pyplot.subplots(1, 4, figsize=(20, 4))
    figure.subplots_adjust(left=0.03, right=0.99, bottom=0.13, top=0.92, wspace=0.16)
    _plot(axes[0], log, ("loss_d", "loss_g", "wasserstein"), "losses")
    _plot(axes[1], log, ("d_real", "d_fake_before", "d_fake_after"), "D(x), D(G(z)) before and after G's step")
    _plot(axes[2], epochs, ("loss_d", "loss_g"), "mean losses of each epoch")
    _plot(axes[3], snapshots, ("score",), "held-out Frechet distance")
    figure.savefig(run / "curves.png", dpi=80)
    pyplot.close(figure)


def _plot(axis: Any, lines: Sequence[dict[str, Any]], names: Sequence[str], title: str) -> None:
    for name in names:
        points = [(line["images"], line[name]) for line in lines if name in line]
        if points:
            axis.plot(*zip(*points, strict=True), label=name)
    axis.set(title=title, xlabel="images seen")
    if axis.lines:
        axis.legend()


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
