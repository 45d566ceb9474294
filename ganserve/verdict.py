"""What is found of a picture that was made again at its address, and how addresses are written for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote, urlencode

import numpy as np

from ganserve import labels
from ganserve.address import Address

if TYPE_CHECKING:
    from ganserve.card import ModelCard

UNMARKED = (
    "the picture carries no address: give it, as model, version, label and seed, and for a grid n, columns, padding "
    "and scale"
)
_PATH = re.compile(r"/images/([^/?]+)/([0-9]+)/(.+)/([0-9]+)\.png(?:\?(.*))?")


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        verdict: ``match``, ``differs``, or ``unmarked``: the picture carries no address, and none was given.
        address: where the picture was made again, as a path of the service.
        differing_pixels: how many pixels are not those of the address.
        exact: every pixel is the address's own; a match without that is of a float version, whose pixels may be a grey
            level apart on another processor.
        note: what else is to be said.
    """

    verdict: Literal["match", "differs", "unmarked"]
    address: str | None = None
    differing_pixels: int | None = None
    exact: bool | None = None
    note: str | None = None

    def __bool__(self) -> bool:
        return self.verdict == "match"


def path(address: Address, card: ModelCard) -> str:
    """Where a picture stands, below the address of any server that has the model."""
    laid, n = address.layout, len(address.seeds)
    end = "" if address.truncation is None else f"truncation={address.truncation / 100:g}"
    stand = [labels.in_path(label, card.classes) for label in address.labels.tolist()] if card.conditional else ["-"]
    if n == 1 and (laid.padding, laid.scale) == (0, 1):
        place = f"/images/{quote(card.name)}/{card.version}/{stand[0]}/{address.seed}.png"
        return f"{place}?{end}" if end else place
    parts = [f"model={card.name}", f"version={card.version}"]
    turn = labels.rows(None, n, card)
    if not np.array_equal(turn, address.labels):
        same = len(set(stand)) == 1
        parts += [f"label={label}" for label in (stand[:1] if same else stand)]
    parts += [f"seeds={address.seed}"] if "," in address.seed else [f"n={n}", f"seed={address.seed}"]
    parts += [f"columns={laid.columns}"] if laid.columns is not None and n > 1 else []
    parts += [f"padding={laid.padding}", f"scale={laid.scale}", *([end] if end else [])]
    return f"/generate?{'&'.join(parts)}"


def query_of(address: str) -> str:
    """The query of an address that is given as a path, such as ``/images/MODEL/VERSION/LABEL/SEED.png``, or as one."""
    if (found := _PATH.fullmatch(address)) is not None:
        model, version, label, seed = (unquote(part) for part in found.groups()[:4])
        told = urlencode({"model": model, "version": version, "label": label, "seed": seed, "padding": 0})
        return f"{told}&{found[5]}" if found[5] else told
    return address.removeprefix("/generate?")
