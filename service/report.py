"""The report of a version: what its card says, how it was measured, its curves and its samples, as one page.

Everything in it comes from whoever trained the model, names of classes and notes too, so all of it is escaped, and the
page may run nothing and load nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ganserve import markup
from ganserve.card import ModelCard
from ganserve.charts import finite, title

# Measurements that are shown, the latest ones.
MEASURES = 5
CLASSES = 200
_STYLE_HASH = base64.b64encode(hashlib.sha256(markup.STYLE.encode()).digest()).decode()
# The one style sheet that stands inside, and pictures that do.
POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; base-uri 'none'; form-action 'none'"

HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def page(
    card: ModelCard,
    measures: Sequence[Mapping[str, Any]],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    samples: bytes | None,
) -> bytes:
    """The report in HTML, self-contained.

    Args:
        measures: those beside the version, oldest first.
        curves: lines of ``log``, ``epochs`` and ``snapshots``, as a run keeps them; empty where they are not known.
        samples: the version's sheet, a PNG.
    """
    name = escape(f"{card.name} version {card.version}")
    parts = [
        f"<header><h1>{name}</h1><p>Recipe <b>{markup.text(card.recipe)}</b> on <b>{markup.text(card.dataset)}</b>, "
        f"after {markup.text(card.source)}.</p></header>\n",
        markup.section("Samples", _samples(card, samples)),
        markup.section("Figures", markup.pairs(_figures(card))),
        markup.section("How good it is", _measured(card.metrics, measures)),
    ]
    if curves:
        parts.append(markup.section("Curves", markup.curves(curves.get("log", ()), curves.get("epochs", ()))))
        if snapshots := curves.get("snapshots"):
            parts.append(markup.section("Metrics over time", markup.metrics(snapshots)))
    else:
        parts.append(markup.section("Curves", markup.dim("None are kept with this version.")))
    if card.notes:
        notes = "".join(f"<li>{markup.text(note)}</li>" for note in card.notes)
        parts.append(markup.section("Notes", f"<ul>{notes}</ul>"))
    parts.append(markup.section("Training", markup.pairs(card.training) if card.training else markup.dim("Not told.")))
    return markup.page(f"{name} - report", parts, policy=POLICY).encode()


def _figures(card: ModelCard) -> dict[str, Any]:
    shape = card.image
    return {
        "image": f"{shape.width} x {shape.height}, {shape.channels} channel{'s' if shape.channels > 1 else ''}",
        "classes": card.classes[:CLASSES] if card.conditional else "none",
        "parameters": f"{card.parameters:,}",
        "multiply-adds an image": "not told" if card.macs is None else f"{card.macs:,}",
        "file": f"{card.file_bytes:,} bytes, ONNX opset {card.opset}",
        "latents": f"{card.z} of {card.latent_recipe}",
        "the same bytes everywhere": "yes, proven where it is loaded" if card.exact else "no: float32",
        "published": card.created_at.isoformat(timespec="minutes"),
        "sha256 of the graph": card.sha256,
    }


def _measured(published: Mapping[str, Any], measures: Sequence[Mapping[str, Any]]) -> str:
    """A table for each of the last measurements, the latest first."""
    told = [("Measured since", measure) for measure in reversed(measures[-MEASURES:])]
    if published:
        told.append(("Measured when it was published", published))
    drawn = [_table(what, measure) for what, measure in told]
    return "".join(drawn) or markup.dim("Not measured.")


def _table(what: str, measure: Mapping[str, Any]) -> str:
    said = [str(measure[name]) for name in ("dataset", "split") if isinstance(measure.get(name), str)]
    if finite(measure.get("images")):
        said.append(f"{measure['images']:,} images")
    rows = []
    for name, value in measure.items():
        if not finite(value) or name == "images" or name.endswith("_real"):
            continue
        real = measure.get(f"{name}_real")
        cells = f"<td>{markup.text(value)}</td><td>{markup.text(real) if finite(real) else ''}</td>"
        rows.append(f'<tr><th scope="row">{title(name)}</th>{cells}</tr>')
    if not rows:
        return ""
    head = '<tr><th scope="col">metric</th><th scope="col">this model</th><th scope="col">real data</th></tr>'
    caption = escape(f"{what}{': ' if said else ''}{', '.join(said)}")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _samples(card: ModelCard, content: bytes | None) -> str:
    if content is None:
        return markup.dim("The version has no sheet of samples.")
    rows = f"One row a class, from top to bottom: {markup.text(card.classes[:CLASSES])}." if card.conditional else ""
    source = base64.b64encode(content).decode()
    alt = escape(f"Samples of {card.name} version {card.version}")
    legend = f"<p>{rows}</p>" if rows else ""
    return f'{legend}<figure><img alt="{alt}" src="data:image/png;base64,{source}"></figure>'
