"""Curves of a run as SVG, each with a sentence that says what it shows; ``curves.svg`` has the main ones in a row.

Colours follow the reader's light or dark mode. Long logs are thinned.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from ganserve import files

# Points of a curve.
POINTS = 300
# The files of a run that are kept with a version, and bounds of what is read of them.
KEPT = ("log", "epochs", "snapshots")
MAX_BYTES, NAMES, _LARGEST = 4 << 20, 40, 1e30
WIDTH, HEIGHT = 420, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 26, 24

Line = Mapping[str, Any]
T = TypeVar("T")

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --paper: #fff; --panel: #f6f8fa; --rule: #d0d7de;
  --s0: #0060a8; --s1: #b84a00; --s2: #00704f; --s3: #8e3a76; --warn: #8a3c00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9aa4af; --paper: #0d1117; --panel: #161b22;
  --rule: #30363d; --s0: #6cb6ff; --s1: #ff9e57; --s2: #4fd1a5; --s3: #e69ad0; --warn: #ffb77a; } }
svg text { fill: var(--dim); font: 11px system-ui, sans-serif; }
svg .rule { stroke: var(--rule); stroke-width: 1; }
svg polyline, svg .key { fill: none; stroke-width: 1.75; stroke-linejoin: round; }
.s0 { stroke: var(--s0); } .s1 { stroke: var(--s1); stroke-dasharray: 6 3; }
.s2 { stroke: var(--s2); stroke-dasharray: 2 3; } .s3 { stroke: var(--s3); stroke-dasharray: 8 3 2 3; }
svg circle { fill: var(--paper); stroke-dasharray: none; stroke-width: 1.75; }
"""

# What a run's measurements are called where people read them.
TITLES = {
    "loss_d": "loss of D",
    "loss_g": "loss of G",
    "wasserstein": "Wasserstein estimate",
    "d_real": "D(x)",
    "d_fake_before": "D(G(z)) before G",
    "d_fake_after": "D(G(z)) after G",
    "logit_gap": "logit gap between real and generated",
    "images_per_second": "images a second",
    "score": "score that chooses the best (lower is better)",
    "frechet": "Frechet distance (lower is better)",
    "frechet_ratio": "Frechet distance over that of real images (lower is better)",
    "held_out_gap": "what the discriminator knows by heart, 0 to 1",
    "near_copies": "share of near copies of training images",
    "pixel_frechet": "Frechet distance of pixels (lower is better)",
    "class_kl": "KL of the class histogram from uniform (lower is better)",
}


def lines(file: Path) -> list[Line]:
    """At most ``POINTS`` JSON lines, evenly spread; a line that a kill left half written is passed over."""
    try:
        raw = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    whole: list[Line] = []
    for text in spread(raw, POINTS):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and finite(value.get("step")):
            whole.append(value)
    return whole


def kept(run: Path) -> dict[str, list[Line]]:
    """What a run has logged, thinned: what stands beside a version as ``report.json``."""
    return {name: found for name in KEPT if (found := lines(run / f"{name}.jsonl"))}


def read(content: bytes) -> dict[str, list[Line]]:
    """What :func:`kept` has put beside a version; whatever else stands there is passed over, number by number."""
    try:
        told: Any = json.loads(content) if len(content) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        told = {}
    found: dict[str, list[Line]] = {}
    for name in KEPT:
        listed = told[name] if isinstance(told.get(name), list) else []
        whole = [
            {key: value for key, value in list(line.items())[:NAMES] if finite(value) and abs(value) < _LARGEST}
            for line in spread(listed, POINTS)
            if isinstance(line, dict)
        ]
        found[name] = [line for line in whole if "step" in line]
    return {name: measured for name, measured in found.items() if measured}


def spread(items: Sequence[T], limit: int) -> list[T]:
    """At most ``limit`` of the items, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    if limit < 2:
        return list(items[len(items) - limit :])
    return [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


def finite(value: object) -> bool:
    """Whether it is a number that can be drawn."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # Whole numbers of any length are compared, floating ones hold for themselves.
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= sys.float_info.max


def title(name: str) -> str:
    """What people read for a measurement's name, escaped."""
    return escape(TITLES.get(name, name.replace("_", " ")))


def drawing(told: str, measured: Sequence[Line], names: Sequence[str], *, dots: bool = False) -> tuple[str, str]:
    """Some measurements over steps: a sentence about ``told``, and what an SVG of WIDTH x HEIGHT holds; both are empty
    where none of them was taken."""
    series = [(n, [(line["step"], line[n]) for line in measured if finite(line.get(n))]) for n in names]
    series = [(name, points) for name, points in series if points]
    if not series:
        return "", ""
    xs = [x for _, points in series for x, _ in points]
    ys = [y for _, points in series for _, y in points]
    low, high, ticks = _axis(min(ys), max(ys))
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    place_x, place_y = _scale(min(xs), max(xs), _LEFT, right), _scale(low, high, bottom, _TOP)
    drawn = []
    for tick in ticks:
        y = place_y(tick)
        drawn.append(
            f'<line class="rule" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>'
        )
    for x, anchor in ((min(xs), "start"), (max(xs), "end")):
        drawn.append(f'<text x="{place_x(x):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">step {x:.10g}</text>')
    across = _LEFT
    for number, (name, points) in enumerate(series):
        places = [(place_x(x), place_y(y)) for x, y in points]
        drawn.append(_curve(number, places, dots))
        if len(series) > 1:
            drawn.append(
                f'<line class="key s{number}" x1="{across}" x2="{across + 18}" y1="10" y2="10"/>'
                f'<text x="{across + 22}" y="14">{title(name)}</text>'
            )
            across += 34 + 6 * len(TITLES.get(name, name))
    said = [f"{title(name)} goes from {points[0][1]:.4g} to {points[-1][1]:.4g}" for name, points in series]
    return f"{told}: {'; '.join(said)}.", "".join(drawn)


def _curve(number: int, places: Sequence[tuple[float, float]], dots: bool) -> str:
    """A line, with dots where they are asked for or where one point makes no line."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marked = spread(places, 60) if dots or len(places) == 1 else []
    circles = (f'<circle class="s{number}" r="2" cx="{x:.1f}" cy="{y:.1f}"/>' for x, y in marked)
    return f'<polyline class="s{number}" points="{points}"/>{"".join(circles)}'


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _axis(low: float, high: float) -> tuple[float, float, list[float]]:
    """Round ends and steps, about four of them, that hold low..high."""
    span = (high - low) or abs(high) or 1.0
    raw = span / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return first * step, last * step, [i * step for i in range(first, last + 1)]


def write(run: Path) -> None:
    """Write ``curves.svg`` from what a run has logged so far: losses, D's answers, an epoch's means, and the held-out
    score. Nothing is written before the first line of ``log.jsonl``."""
    log, epochs, snapshots = (lines(run / f"{name}.jsonl") for name in ("log", "epochs", "snapshots"))
    if not log:
        return
    drawn = [
        ("Losses", *drawing("Losses", log, ("loss_d", "loss_g", "wasserstein"))),
        ("Answers of the discriminator", *drawing("Answers", log, ("d_real", "d_fake_before", "d_fake_after"))),
        ("Mean losses of each epoch", *drawing("Mean losses", epochs, ("loss_d", "loss_g"))),
        ("Score on held-out images", *drawing("Score", snapshots, ("score",), dots=True)),
    ]
    shown = [chart for chart in drawn if chart[2]]
    size = f'y="24" width="{WIDTH}" height="{HEIGHT}"'
    parts = [
        f'<text x="{WIDTH * index + _LEFT}" y="18">{name}</text>'
        f'<svg role="img" aria-label="{label}" x="{WIDTH * index}" {size}>{inner}</svg>'
        for index, (name, label, inner) in enumerate(shown)
    ]
    width, height = WIDTH * len(shown), HEIGHT + 24
    files.replace(
        run / "curves.svg",
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><style>{STYLE}</style>'
        f'<rect width="{width}" height="{height}" fill="var(--paper)"/>{"".join(parts)}</svg>\n'.encode(),
    )
