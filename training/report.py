"""The report of a run: one self-contained file, ``report.html``, in the run's folder.

    python -m training.report runs/mnist-cgan

Configuration, status, warnings, curves, metrics over time and samples over time. It needs nothing beside itself: the
style is inline, the curves are SVG, the sheets are data URIs. It is written anew at each snapshot, so it is quick and
of bounded size: long logs are thinned, and at most ``SHEETS`` sheets are shown, evenly spread over the run.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from ganserve import files

SHEETS = 12
SHEET_BYTES = 4_000_000
POINTS = 300
ROWS = 40

Line = Mapping[str, Any]
T = TypeVar("T")

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --paper: #fff; --panel: #f6f8fa; --rule: #d0d7de;
  --s0: #0060a8; --s1: #b84a00; --s2: #00704f; --s3: #8e3a76; --warn: #8a3c00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9aa4af; --paper: #0d1117; --panel: #161b22;
  --rule: #30363d; --s0: #6cb6ff; --s1: #ff9e57; --s2: #4fd1a5; --s3: #e69ad0; --warn: #ffb77a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.75rem; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--rule); font-size: 1.25rem; }
h3 { margin: 0; font-size: 1rem; }
p { margin: .25rem 0; }
.dim { color: var(--dim); }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
figure { margin: 0; padding: .75rem; border: 1px solid var(--rule); border-radius: .5rem; background: var(--panel);
  break-inside: avoid; }
figcaption { margin-bottom: .5rem; font-weight: 600; }
figure img { display: block; width: 100%; height: auto; image-rendering: pixelated; background: #000; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--dim); font: 11px system-ui, sans-serif; }
svg .rule { stroke: var(--rule); stroke-width: 1; }
svg polyline, svg .key { fill: none; stroke-width: 1.75; stroke-linejoin: round; }
.s0 { stroke: var(--s0); } .s1 { stroke: var(--s1); stroke-dasharray: 6 3; }
.s2 { stroke: var(--s2); stroke-dasharray: 2 3; } .s3 { stroke: var(--s3); stroke-dasharray: 8 3 2 3; }
svg circle { fill: var(--paper); stroke-dasharray: none; stroke-width: 1.75; }
.scroll { margin-top: 1rem; overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
.scroll td, .scroll th { text-align: right; white-space: nowrap; }
tr.best { font-weight: 700; }
.state { display: inline-block; padding: 0 .6rem; border: 1px solid currentColor; border-radius: 1rem;
  font-weight: 600; }
.warning { color: var(--warn); }
@media print { body { max-width: none; padding: 0; } h2 { break-after: avoid; } .scroll { overflow: visible; }
  .grid { grid-template-columns: repeat(2, 1fr); } }
"""

# What a run's measurements are called where people read them.
_TITLES = {
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
    "pixel_frechet": "Frechet distance of pixels (lower is better)",
    "class_kl": "KL of the class histogram from uniform (lower is better)",
}


def write(run: Path) -> Path:
    """Write ``report.html`` of a run, finished or not; returns its path.

    Raises:
        FileNotFoundError: the folder holds no ``config.json`` and so is no run.
    """
    config, status = _document(run / "config.json"), _document(run / "status.json")
    if not config:
        raise FileNotFoundError(f"{run} is no run: it holds no config.json")
    log, epochs = _lines(run / "log.jsonl", POINTS), _lines(run / "epochs.jsonl", POINTS)
    snapshots = _lines(run / "snapshots.jsonl", POINTS)
    title = escape(run.resolve().name)
    parts = [
        _head(title, config, status),
        _section("Warnings", _warnings(log, snapshots, status)),
        _section("Curves", _curves(log, epochs)),
        _section("Metrics over time", _metrics(snapshots)),
        _section("Samples over time", _samples(run, config)),
        _section("Last measurement", _pairs(log[-1]) if log else _dim("Nothing is logged yet.")),
        _section("Configuration", _pairs(config)),
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} - training report</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{''.join(parts)}</main></body></html>\n"
    )
    path = run / "report.html"
    files.replace(path, page.encode())
    return path


def _document(file: Path) -> dict[str, Any]:
    """A JSON object, or an empty one if it is not there or not whole."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _lines(file: Path, limit: int) -> list[Line]:
    """At most ``limit`` JSON lines, evenly spread; a line that a kill left half written is passed over."""
    try:
        raw = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    whole: list[Line] = []
    for text in _spread(raw, limit):
        try:
            value = json.loads(text)
        except ValueError:
            continue
        if isinstance(value, dict) and _finite(value.get("step")):
            whole.append(value)
    return whole


def _spread(items: Sequence[T], limit: int) -> list[T]:
    """At most ``limit`` of the items, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    if limit < 2:
        return list(items[len(items) - limit :])
    return [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: object) -> str:
    """A value as people read it, escaped."""
    if isinstance(value, float):
        return escape(f"{value:.5g}")
    if isinstance(value, Mapping):
        return escape(", ".join(f"{k} = {_plain(v)}" for k, v in value.items()) or "none")
    if isinstance(value, list):
        return escape(", ".join(_plain(v) for v in value[:100]) + (", ..." if len(value) > 100 else "")) or "none"
    return "none" if value is None else escape(str(value))


def _plain(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _title(name: str) -> str:
    return escape(_TITLES.get(name, name.replace("_", " ")))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}\n</section>\n"


def _dim(text: str) -> str:
    return f'<p class="dim">{text}</p>'


def _pairs(values: Mapping[str, Any]) -> str:
    rows = "".join(f'<tr><th scope="row">{_title(k)}</th><td>{_text(v)}</td></tr>' for k, v in values.items())
    return f"<table>{rows}</table>"


def _head(title: str, config: Line, status: Line) -> str:
    state = _text(status.get("state", "not started"))
    step, steps = status.get("step", 0), status.get("steps", 0)
    share = f" ({step / steps:.0%})" if _finite(step) and _finite(steps) and steps else ""
    lines = [
        f"<header><h1>{title}</h1>",
        f"<p>Recipe <b>{_text(config.get('recipe'))}</b> on <b>{_text(config.get('dataset'))}</b>: "
        f"{_text(config.get('size'))} pixels, {_text(config.get('channels'))} channel(s).</p>",
        f'<p><span class="state">{state}</span> at step {_text(step)} of {_text(steps)}{share}, '
        f"{_text(status.get('images', 0))} images seen.</p>",
    ]
    best = status.get("best")
    if isinstance(best, Mapping):
        lines.append(f"<p>Best snapshot: step {_text(best.get('step'))}, score {_text(best.get('score'))}.</p>")
    return "\n".join(lines) + "</header>\n"


def _warnings(log: Sequence[Line], snapshots: Sequence[Line], status: Line) -> str:
    """Why it failed, and what the guard says of each snapshot past the grace that a young generator gets."""
    # Not at the top: the trainer writes reports, and so imports this module.
    from training.measure.guard import CollapseError, Guard
    from training.trainer import GRACE_SHARE, GRACE_STEPS

    told = []
    if status.get("reason"):
        told.append(f"<li><b>{_text(status.get('state'))}</b>: {_text(status['reason'])}</li>")
    steps = status.get("steps", 0)
    grace = max(GRACE_STEPS, GRACE_SHARE * (steps if _finite(steps) else 0))
    found = []
    for snapshot in snapshots:
        if snapshot["step"] < grace:
            continue
        gaps = [line.get("logit_gap") for line in log if line["step"] <= snapshot["step"]]
        scores = {name: value for name, value in snapshot.items() if name not in ("step", "images")}
        try:
            reasons = Guard().check(scores, logit_gap=gaps[-1] if gaps else None)
        except CollapseError as error:
            reasons = [str(error)]
        except (KeyError, TypeError):
            continue  # of a version that measured other things
        found += [f"<li>step {_text(snapshot['step'])}: {escape(reason)}</li>" for reason in reasons]
    told += found[-ROWS:]
    return f'<ul class="warning">{"".join(told)}</ul>' if told else _dim("None.")


def _curves(log: Sequence[Line], epochs: Sequence[Line]) -> str:
    charts = [
        _chart("Losses", log, ("loss_d", "loss_g", "wasserstein")),
        _chart("Answers of the discriminator", log, ("d_real", "d_fake_before", "d_fake_after")),
        _chart("Mean losses of each epoch", epochs, ("loss_d", "loss_g")),
        _chart("Logit gap", log, ("logit_gap",)),
        _chart("Speed", log, ("images_per_second",)),
    ]
    drawn = "".join(charts)
    return f'<div class="grid">{drawn}</div>' if drawn else _dim("Nothing is logged yet.")


def _metrics(snapshots: Sequence[Line]) -> str:
    names: list[str] = []
    for snapshot in snapshots:
        names += [n for n, v in snapshot.items() if n not in ("step", "images", *names) and _finite(v)]
    if not names:
        return _dim("No snapshot is taken yet.")
    # The score is a copy of the metric that it chooses by.
    twin = any(all(s.get(n) == s.get("score") for s in snapshots) for n in names if n != "score")
    charts = "".join(_chart(_title(n), snapshots, (n,), dots=True) for n in names if not (twin and n == "score"))
    best = min((s["score"] for s in snapshots if _finite(s.get("score"))), default=None)
    head = "".join(f'<th scope="col">{escape(n.replace("_", " "))}</th>' for n in ("step", *names))
    rows = []
    for snapshot in _spread(snapshots, ROWS):
        mark = ' class="best"' if best is not None and snapshot.get("score") == best else ""
        cells = "".join(f"<td>{_text(snapshot[n]) if n in snapshot else ''}</td>" for n in names)
        rows.append(f'<tr{mark}><th scope="row">{_text(snapshot["step"])}</th>{cells}</tr>')
    table = (
        '<div class="scroll" tabindex="0" role="region" aria-label="Metrics of each snapshot"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    return f'<div class="grid">{charts}</div>{table}'


_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 420, 220, 52, 26, 24


def _chart(title: str, lines: Sequence[Line], names: Sequence[str], *, dots: bool = False) -> str:
    """An SVG of some measurements over steps; nothing where none of them was taken."""
    series = [(n, [(line["step"], line[n]) for line in lines if _finite(line.get(n))]) for n in names]
    series = [(name, points) for name, points in series if points]
    if not series:
        return ""
    xs = [x for _, points in series for x, _ in points]
    ys = [y for _, points in series for _, y in points]
    low, high, ticks = _axis(min(ys), max(ys))
    place_x, place_y = _scale(min(xs), max(xs), _LEFT, _WIDTH - 10), _scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    drawn = []
    for tick in ticks:
        y = place_y(tick)
        drawn.append(
            f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>'
        )
    for x, anchor in ((min(xs), "start"), (max(xs), "end")):
        drawn.append(f'<text x="{place_x(x):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">step {_text(x)}</text>')
    told, across = [], _LEFT
    for number, (name, points) in enumerate(series):
        places = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in points)
        drawn.append(f'<polyline class="s{number}" points="{places}"/>')
        if dots or len(points) == 1:
            drawn += [f'<circle class="s{number}" r="2" cx="{place_x(x):.1f}" cy="{place_y(y):.1f}"/>'
                      for x, y in _spread(points, 60)]  # fmt: skip
        if len(series) > 1:
            drawn.append(
                f'<line class="key s{number}" x1="{across}" x2="{across + 18}" y1="10" y2="10"/>'
                f'<text x="{across + 22}" y="14">{_title(name)}</text>'
            )
            across += 34 + 6 * len(_TITLES.get(name, name))
        told.append(f"{_title(name)} goes from {points[0][1]:.4g} to {points[-1][1]:.4g}")
    label = f"{title}: {'; '.join(told)}."
    return (
        f'<figure><figcaption>{title}</figcaption><svg role="img" aria-label="{label}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}">{"".join(drawn)}</svg></figure>'
    )


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


def _samples(run: Path, config: Line) -> str:
    kinds = (("fresh", "Fresh noise"), ("same-noise", "The same noise in every row"))
    found = [(told, sorted((run / "samples").glob(f"{kind}-*.png"))) for kind, told in kinds]
    # Two thirds for fresh noise where there are both kinds.
    shares = (SHEETS * 2 // 3, SHEETS // 3) if found[1][1] else (SHEETS, 0)
    chosen = [
        (told, path) for (told, paths), share in zip(found, shares, strict=True) for path in _spread(paths, share)
    ]
    if not chosen:
        return _dim("No sheet is drawn yet.")
    raw_classes = config.get("classes")
    classes = _text(raw_classes) if raw_classes else ""
    rows = f", one row a class: {classes}" if classes and found[1][1] else ""
    left, omitted = SHEET_BYTES, 0
    drawn: dict[str, list[str]] = {told: [] for _, told in kinds}
    # The last sheets say most, so they are the last to go where the sheets are too large for one page.
    for told, path in sorted(chosen, key=lambda pair: _step(pair[1]), reverse=True):
        content = path.read_bytes()
        if len(content) > left:
            omitted += 1
            continue
        left -= len(content)
        uri = base64.b64encode(content).decode()
        caption = f"{told}, step {_step(path)}"
        drawn[told].append(
            f'<figure><figcaption>{caption}</figcaption><img alt="Generated images. {caption}{rows}" '
            f'src="data:image/png;base64,{uri}"></figure>'
        )
    note = _dim(f"{omitted} more in the folder samples: too large for this page.") if omitted else ""
    legend = f"<p>Rows from top to bottom: {classes}.</p>" if rows else ""
    figures = "".join(figure for kind in drawn.values() for figure in kind)
    return f'{legend}<div class="grid">{figures}</div>{note}'


def _step(sheet: Path) -> int:
    number = sheet.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report of a run and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m training.report", description="Write report.html of a run.")
    parser.add_argument("run", type=Path, help="the run's folder, such as runs/mnist-cgan")
    try:
        print(write(parser.parse_args(argv).run))
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
