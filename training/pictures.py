"""Sample sheets of a generator, as PNGs, which people look at while a run trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ganserve import encode, files, marks
from training.sampling import Renderer

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
    """A PNG grid, 16 columns wide, of uint8 [n, c, h, w], marked as made by a machine."""
    return marks.picture(encode.grid(images.permute(0, 2, 3, 1).contiguous().numpy(), COLUMNS))
