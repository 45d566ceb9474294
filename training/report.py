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

from ganserve import charts, files, markup
from ganserve.charts import Line, finite, spread, title
from training.command import ends
from training.measure.guard import CollapseError, Guard
from training.run import grace

# What is told of the best snapshot besides its score.
FOLLOWED = ("label_accuracy", "frechet_ratio", "recall", "coverage")
SHEETS = 12
SHEET_BYTES = 4_000_000


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
    name = escape(run.resolve().name)
    parts = [
        _head(name, config, status),
        markup.section("Warnings", _warnings(log, snapshots, status)),
        markup.section("Curves", markup.curves(log, epochs)),
        markup.section("Metrics over time", markup.metrics(snapshots)),
        markup.section("Samples over time", _samples(run, config)),
        markup.section("Last measurement", markup.pairs(log[-1]) if log else markup.dim("Nothing is logged yet.")),
        markup.section("Configuration", markup.pairs(config)),
    ]
    page = markup.page(f"{name} - training report", parts)
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


def _head(name: str, config: Line, status: Line) -> str:
    state = markup.text(status.get("state", "not started"))
    step, steps = status.get("step", 0), status.get("steps", 0)
    share = f" ({step / steps:.0%})" if finite(step) and finite(steps) and steps else ""
    lines = [
        f"<header><h1>{name}</h1>",
        f"<p>Recipe <b>{markup.text(config.get('recipe'))}</b> on <b>{markup.text(config.get('dataset'))}</b>: "
        f"{markup.text(config.get('size'))} pixels, {markup.text(config.get('channels'))} channel(s).</p>",
        f'<p><span class="state">{state}</span> at step {markup.text(step)} of {markup.text(steps)}{share}, '
        f"{markup.text(status.get('images', 0))} images seen{_left(status)}.</p>",
    ]
    best = status.get("best")
    if isinstance(best, Mapping):
        step, score = (markup.text(best.get(key)) for key in ("step", "score"))
        told = "".join(f", {title(key)} {best[key]:.3g}" for key in FOLLOWED if finite(best.get(key)))
        lines.append(f"<p>Best snapshot: step {step}, score {score}{told}. It is the one that is exported.</p>")
    if status.get("ended_early"):
        lines.append("<p>The run was ended early, as asked.</p>")
    return "\n".join(lines) + "</header>\n"


def _left(status: Line) -> str:
    """The time that a running training still takes, by its pace of late."""
    left = status.get("seconds_left")
    if status.get("state") != "running" or left is None or not finite(left):
        return ""
    minutes = round(left / 60)
    return (
        f", about {minutes // 60} h {minutes % 60} min left" if minutes >= 60 else f", about {max(1, minutes)} min left"
    )


def _warnings(log: Sequence[Line], snapshots: Sequence[Line], status: Line) -> str:
    """Why it failed, and what the guard says of each snapshot past the grace that a young generator gets."""
    told = []
    if status.get("reason"):
        told.append(f"<li><b>{markup.text(status.get('state'))}</b>: {markup.text(status['reason'])}</li>")
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
        found += [f"<li>step {markup.text(snapshot['step'])}: {escape(reason)}</li>" for reason in reasons]
    told += found[-markup.ROWS :]
    return f'<ul class="warning">{"".join(told)}</ul>' if told else markup.dim("None.")


def _samples(run: Path, config: Line) -> str:
    kinds = (("fresh", "Fresh noise"), ("same-noise", "The same noise in every row"))
    found = [(told, sorted((run / "samples").glob(f"{kind}-*.png"))) for kind, told in kinds]
    # Two thirds for fresh noise where there are both kinds.
    shares = (SHEETS * 2 // 3, SHEETS // 3) if found[1][1] else (SHEETS, 0)
    chosen = [(told, path) for (told, paths), share in zip(found, shares, strict=True) for path in spread(paths, share)]
    if not chosen:
        return markup.dim("No sheet is drawn yet.")
    raw_classes = config.get("classes")
    classes = markup.text(raw_classes) if raw_classes else ""
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
    note = markup.dim(f"{omitted} more in the folder samples: too large for this page.") if omitted else ""
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
