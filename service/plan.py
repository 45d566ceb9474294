"""A request made definite: which rows of which version, how they are encoded, and what is told of them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganserve import encode, labels, marks
from ganserve.address import GRAPH_DIGITS, LABEL, SEED, TRUNCATION, Address, Layout, hundredths
from ganserve.card import ModelCard
from ganserve.encode import WEBP_SIDE, Pixels
from ganserve.latents import MAX_SEED, consecutive
from ganserve.settings import Settings
from service.http.answers import ENCODERS, describe, weak
from service.http.errors import Invalid
from service.inference.rows import Rows
from service.schema import Format, GenerateRequest

LONGEST_SEED_HEADER = 1024
PICTURES = ("png", "webp")


@dataclass(frozen=True)
class Plan:
    """What to generate and how to answer.

    Attributes:
        maker: where the networks run, where that shows: providers agree within a few of 255, not in every byte; empty
            for an exact version.
        seeded: the seeds were named, so that the answer is a pure function of the request.
        versioned: the version was named, so that it is the same for ever.
    """

    card: ModelCard
    address: Address
    format: Format
    maker: str
    seeded: bool
    versioned: bool

    @property
    def rows(self) -> Rows:
        """What the batcher takes."""
        address = self.address
        return Rows(address.seeds, address.labels if self.card.conditional else None, None, address.truncation)

    @property
    def etag(self) -> str:
        """The answer is a pure function of what goes into its entity tag: strong where every engine gives its bytes."""
        # Names are told inside some answers, and stand for indices of a card that is published once.
        form = self.format if labels.plain(self.card.classes) else f"{self.format}|names"
        return weak(f'"{self.address.tag(f"{ENCODERS}|{self.maker}", form)}"', self.maker)

    def headers(self, *, private: bool = False) -> dict[str, str]:
        """What every answer tells of its making; ``private`` where an answer is for those with a token only."""
        tag = self.etag if self.seeded else None
        told = describe(self.card, tag, versioned=self.versioned, private=private)
        told["Vary"] = "Accept"
        seeds = self.address.seed
        if len(seeds) <= LONGEST_SEED_HEADER:
            told[SEED] = seeds
        if self.address.truncation is not None:
            told[TRUNCATION] = f"{self.address.truncation / 100:g}"
        if self.card.conditional and (names := labels.header(self.address.labels.tolist(), self.card.classes)):
            told[LABEL] = names
        return told

    def encode(self, images: Pixels) -> bytes:
        """The body of the answer, of images uint8 [n, h, w, c]."""
        layout = self.address.layout
        if self.format in PICTURES:
            sheet = encode.grid(images, layout.columns, layout.padding, layout.scale)
            return marks.picture(sheet, self.address) if self.format == "png" else encode.webp(sheet, self.address)
        indices = self.address.labels.tolist() if self.card.conditional else None
        seeds = self.address.seeds.tolist()
        if layout.scale > 1:
            images = images.repeat(layout.scale, axis=1).repeat(layout.scale, axis=2)
        if self.format == "npz":
            return encode.npz(images, indices, seeds, self.card.classes, self.address)
        meta: dict[str, Any] = {
            "model": self.card.name,
            "version": self.card.version,
            "latent_recipe": self.card.latent_recipe,
            "graph": self.card.sha256[:GRAPH_DIGITS],
        }
        if self.address.truncation is not None:
            meta["truncation"] = self.address.truncation / 100
        document = encode.zip_archive if self.format == "zip" else encode.json_document
        return document(images, indices, seeds, self.card.classes, meta)


@dataclass(frozen=True)
class Bounds:
    """How much one request may ask for: images, and pixels of their grid."""

    images: int
    pixels: int

    @classmethod
    def of(cls, settings: Settings) -> Bounds:
        """Those that are set."""
        return cls(settings.image_limit, settings.max_pixels)


def plan(asked: GenerateRequest, card: ModelCard, form: Format, maker: str, most: Bounds) -> Plan:
    """The plan of a request for the version of ``card``, as ``form``.

    Raises:
        Invalid: fields that exclude each other, or more images or pixels than are allowed.
        UnknownLabel: a label that the model does not have.
    """
    n = _count(asked, most.images)
    seeds = _seeds(asked, n)
    # The tiles of the other formats are not laid out, so these shall not change their entity tag.
    pictured = form in PICTURES
    layout = Layout(asked.columns if pictured else None, asked.padding if pictured else 0, asked.scale)
    truncation = None if asked.truncation is None else hundredths(asked.truncation)
    address = Address.of(card, labels.rows(asked.label, n, card), seeds, layout, truncation)
    made = Plan(
        card=card,
        address=address,
        format=form,
        maker=maker,
        seeded=asked.seed is not None or asked.seeds is not None,
        versioned=asked.version is not None,
    )
    _check_pixels(made, most.pixels)
    return made


def single(card: ModelCard, label: int, seed: int, maker: str, truncation: int | None = None) -> Plan:
    """The plan of one image at its address: a PNG without a border."""
    place = (np.array([label], np.int64), np.array([seed], np.uint64))
    address = Address.of(card, *place, Layout(columns=1), truncation)
    return Plan(card=card, address=address, format="png", maker=maker, seeded=True, versioned=True)


def _count(asked: GenerateRequest, most: int) -> int:
    """How many images."""
    if asked.seed is not None and asked.seeds is not None:
        raise Invalid("seed and seeds exclude each other: give one of them")
    if asked.seeds is not None and asked.n is not None and asked.n != len(asked.seeds):
        raise Invalid(f"n is {asked.n} but {len(asked.seeds)} seeds are given: leave n out, or make them agree")
    listed = asked.label if isinstance(asked.label, list) else []
    n = asked.n or len(asked.seeds or listed) or 1
    if n > most:
        raise Invalid(f"{n} images are too many for one request: at most {most}")
    if len(listed) > n:
        raise Invalid(f"{len(listed)} labels for {n} images: give at most as many labels as images")
    return n


def _seeds(asked: GenerateRequest, n: int) -> NDArray[np.uint64]:
    """uint64 [n]: those named, those from the one named on, or from one drawn on."""
    if asked.seeds is not None:
        return np.asarray(asked.seeds, np.uint64)
    return consecutive(secrets.randbelow(MAX_SEED) if asked.seed is None else asked.seed, n)


def _check_pixels(made: Plan, most: int) -> None:
    shape = made.card.image
    width, height = made.address.layout.size(len(made.address.seeds), shape.height, shape.width)
    if width * height > most:
        raise Invalid(f"the grid would be {width} x {height} pixels: at most {most}; lower n or scale")
    if made.format == "webp" and max(width, height) > WEBP_SIDE:
        raise Invalid(f"the grid would be {width} x {height}: WebP takes at most {WEBP_SIDE} a side; take png")
