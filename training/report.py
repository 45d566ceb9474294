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
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ganserve import files
from training import charts
from training.charts import Line, finite, spread, title
from training.command import ends
from training.measure.guard import CollapseError, Guard
from training.run import grace

SHEETS = 12
SHEET_BYTES = 4_000_000
ROWS = 40

_STYLE = charts.STYLE + """
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


def write(run: Path) -> Path:
    """Write ``report.html`` of a run, finished or not; returns its path.

    Raises:
        FileNotFoundError: the folder holds no ``config.json`` and so is no run.
    """
    config, status = _document(run / "config.json"), _document(run / "status.json")
    if not config:
        raise FileNotFoundError(f"{run} is no run: it holds no config.json")
    log, epochs = charts.lines(run / "log.jsonl"), charts.lines(run / "epochs.jsonl")
    snapshots = charts.lines(run / "snapshots.jsonl")
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


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}\n</section>\n"


def _dim(text: str) -> str:
    return f'<p class="dim">{text}</p>'


def _pairs(values: Mapping[str, Any]) -> str:
    rows = "".join(f'<tr><th scope="row">{title(k)}</th><td>{_text(v)}</td></tr>' for k, v in values.items())
    return f"<table>{rows}</table>"


def _head(title: str, config: Line, status: Line) -> str:
    state = _text(status.get("state", "not started"))
    step, steps = status.get("step", 0), status.get("steps", 0)
    share = f" ({step / steps:.0%})" if finite(step) and finite(steps) and steps else ""
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
    told = []
    if status.get("reason"):
        told.append(f"<li><b>{_text(status.get('state'))}</b>: {_text(status['reason'])}</li>")
    steps = status.get("steps", 0)
    young = grace(steps if finite(steps) else 0)
    found = []
    for snapshot in snapshots:
        if snapshot["step"] < young:
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
        names += [n for n, v in snapshot.items() if n not in ("step", "images", *names) and finite(v)]
    if not names:
        return _dim("No snapshot is taken yet.")
    # The score is a copy of the metric that it chooses by.
    twin = any(all(s.get(n) == s.get("score") for s in snapshots) for n in names if n != "score")
    charts = "".join(_chart(title(n), snapshots, (n,), dots=True) for n in names if not (twin and n == "score"))
    best = min((s["score"] for s in snapshots if finite(s.get("score"))), default=None)
    head = "".join(f'<th scope="col">{escape(n.replace("_", " "))}</th>' for n in ("step", *names))
    rows = []
    for snapshot in spread(snapshots, ROWS):
        mark = ' class="best"' if best is not None and snapshot.get("score") == best else ""
        cells = "".join(f"<td>{_text(snapshot[n]) if n in snapshot else ''}</td>" for n in names)
        rows.append(f'<tr{mark}><th scope="row">{_text(snapshot["step"])}</th>{cells}</tr>')
    table = (
        '<div class="scroll" tabindex="0" role="region" aria-label="Metrics of each snapshot"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    return f'<div class="grid">{charts}</div>{table}'


def _chart(told: str, measured: Sequence[Line], names: Sequence[str], *, dots: bool = False) -> str:
    """A captioned chart; nothing where none of the measurements was taken."""
    label, drawn = charts.drawing(told, measured, names, dots=dots)
    if not drawn:
        return ""
    return (
        f'<figure><figcaption>{told}</figcaption><svg role="img" aria-label="{label}" '
        f'viewBox="0 0 {charts.WIDTH} {charts.HEIGHT}">{drawn}</svg></figure>'
    )


def _samples(run: Path, config: Line) -> str:
    kinds = (("fresh", "Fresh noise"), ("same-noise", "The same noise in every row"))
    found = [(told, sorted((run / "samples").glob(f"{kind}-*.png"))) for kind, told in kinds]
    # Two thirds for fresh noise where there are both kinds.
    shares = (SHEETS * 2 // 3, SHEETS // 3) if found[1][1] else (SHEETS, 0)
    chosen = [
        (told, path) for (told, paths), share in zip(found, shares, strict=True) for path in spread(paths, share)
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


@ends
def main(argv: Sequence[str] | None = None) -> int:
    """Write the report of a run and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m training.report", description="Write report.html of a run.")
    parser.add_argument("run", type=Path, help="the run's folder, such as runs/mnist-cgan")
    print(write(parser.parse_args(argv).run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
