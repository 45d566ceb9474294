"""Parts of a report as markup: tables, curves, sections. What comes from outside is escaped here, always.

Reports of runs are made of them, and those of published versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ganserve import charts
from ganserve.charts import Line, finite, spread, title

ROWS = 40

STYLE = charts.STYLE + """
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


def text(value: object) -> str:
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


def section(title: str, content: str) -> str:
    """Markup under a heading; both are markup."""
    return f"<section><h2>{title}</h2>\n{content}\n</section>\n"


def dim(text: str) -> str:
    """A remark, which is markup."""
    return f'<p class="dim">{text}</p>'


def pairs(values: Mapping[str, Any]) -> str:
    """A table of names and values, as they are."""
    rows = "".join(f'<tr><th scope="row">{title(k)}</th><td>{text(v)}</td></tr>' for k, v in values.items())
    return f"<table>{rows}</table>"


def curves(log: Sequence[Line], epochs: Sequence[Line]) -> str:
    """What a run has logged over its steps, as charts."""
    drawn = [
        _chart("Losses", log, ("loss_d", "loss_g", "wasserstein")),
        _chart("Answers of the discriminator", log, ("d_real", "d_fake_before", "d_fake_after")),
        _chart("Mean losses of each epoch", epochs, ("loss_d", "loss_g")),
        _chart("Logit gap", log, ("logit_gap",)),
        _chart("Speed", log, ("images_per_second",)),
    ]
    shown = "".join(drawn)
    return f'<div class="grid">{shown}</div>' if shown else dim("Nothing is logged yet.")


def metrics(snapshots: Sequence[Line]) -> str:
    """What was measured at snapshots, as charts and a table."""
    names: list[str] = []
    for snapshot in snapshots:
        names += [n for n, v in snapshot.items() if n not in ("step", "images", *names) and finite(v)]
    if not names:
        return dim("No snapshot is taken yet.")
    # The score is a copy of the metric that it chooses by.
    twin = any(all(s.get(n) == s.get("score") for s in snapshots) for n in names if n != "score")
    drawn = "".join(_chart(title(n), snapshots, (n,), dots=True) for n in names if not (twin and n == "score"))
    best = min((s["score"] for s in snapshots if finite(s.get("score"))), default=None)
    head = "".join(f'<th scope="col">{escape(n.replace("_", " "))}</th>' for n in ("step", *names))
    rows = []
    for snapshot in spread(snapshots, ROWS):
        mark = ' class="best"' if best is not None and snapshot.get("score") == best else ""
        cells = "".join(f"<td>{text(snapshot[n]) if n in snapshot else ''}</td>" for n in names)
        rows.append(f'<tr{mark}><th scope="row">{text(snapshot["step"])}</th>{cells}</tr>')
    table = (
        '<div class="scroll" tabindex="0" role="region" aria-label="Metrics of each snapshot"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    return f'<div class="grid">{drawn}</div>{table}'


def _chart(told: str, measured: Sequence[Line], names: Sequence[str], *, dots: bool = False) -> str:
    """A captioned chart; nothing where none of the measurements was taken."""
    label, drawn = charts.drawing(told, measured, names, dots=dots)
    if not drawn:
        return ""
    return (
        f'<figure><figcaption>{told}</figcaption><svg role="img" aria-label="{label}" '
        f'viewBox="0 0 {charts.WIDTH} {charts.HEIGHT}">{drawn}</svg></figure>'
    )


def page(title: str, sections: Iterable[str], *, policy: str = "") -> str:
    """A whole document, self-contained; ``title`` and ``sections`` are markup. ``policy`` is its content security
    policy, for where it is kept as a file too."""
    guarded = f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">' if policy else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{guarded}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{''.join(sections)}</main></body></html>\n"
    )
