"""What every way of generating returns: pixels, with where each image stands."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganserve import encode, errors, labels, marks
from ganserve.address import GRAPH_DIGITS, Address, Layout

# A notebook shows as many, each at least this many pixels high.
SHOWN = 64
SHOWN_HEIGHT = 56


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one version of a model.

    Attributes:
        images: uint8 [n, h, w, c].
        labels: class indices, int64 [n]; -1 for a model without classes.
        seeds: uint64 [n].
        class_names: the model's classes: ``class_names[labels[0]]`` is the class of the first image.
        model: its name.
        version: its number.
        latent_recipe: how a seed becomes a latent vector.
        graph: sha256 of the version's ``model.onnx``; empty where it is not known.
        truncation: hundredths by which latents are scaled; None: as they are.
    """

    images: NDArray[np.uint8] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    seeds: NDArray[np.uint64] = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    model: str
    version: int
    latent_recipe: str = field(repr=False)
    graph: str = field(default="", repr=False)
    truncation: int | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | int | NDArray[Any]) -> Images:
        """Some of the images, as numpy picks rows; one by its number is a set of one."""
        if isinstance(rows, int | np.integer):
            rows = np.array([range(len(self))[rows]])
        return replace(self, images=self.images[rows], labels=self.labels[rows], seeds=self.seeds[rows])

    def __repr__(self) -> str:
        n, height, width, channels = self.images.shape
        return f"<{n} images {height} x {width} x {channels} of {self.model} version {self.version}>"

    @property
    def addresses(self) -> list[str]:
        """Where each image stands for ever: its path below the address of any server that has the model."""
        place = f"/images/{self.model}/{self.version}"
        pairs = zip(self.labels.tolist(), self.seeds.tolist(), strict=True)
        stand = [labels.in_path(label, self.class_names) for label in range(len(self.class_names))]
        end = "" if self.truncation is None else f"?truncation={self.truncation / 100:g}"
        return [f"{place}/{'-' if label < 0 else stand[label]}/{seed}.png{end}" for label, seed in pairs]

    def grid(self, columns: int | None = None, padding: int = 2, scale: int = 1) -> Image.Image:
        """All images on one sheet, row by row, ``scale`` times as large, ``padding`` pixels of black around each."""
        sheet = self._sheet(columns, padding, scale)
        return Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet)

    def save(self, path: str | Path, *, columns: int | None = None, padding: int = 2, scale: int = 1) -> Path:
        """Write a file of the kind that its name says: ``.png`` or ``.webp`` a grid, ``.zip`` one PNG an image with a
        manifest, ``.npz`` the arrays, ``.json`` base64 PNGs. The layout is for grids.

        Raises:
            errors.Invalid: a name that says none of these.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind in (".png", ".webp"):
            sheet = self._sheet(columns, padding, scale)
            address = self._address(Layout(columns, padding, scale))
            content = marks.picture(sheet, address) if kind == ".png" else encode.webp(sheet, address)
        else:
            content = self._document(kind)
        path.write_bytes(content)
        return path

    def _sheet(self, columns: int | None, padding: int, scale: int) -> NDArray[np.uint8]:
        """Raises errors.Invalid for a layout that is none, or no images."""
        if not len(self):
            raise errors.Invalid("there are no images: a grid has at least one")
        if (columns is not None and columns < 1) or padding < 0 or scale < 1:
            raise errors.Invalid(
                f"columns {columns}, padding {padding}, scale {scale}: expected at least 1, 0 and 1"
            )
        return encode.grid(self.images, columns, padding, scale)

    def _document(self, kind: str) -> bytes:
        indices = None if len(self) and self.labels[0] < 0 else self.labels.tolist()
        seeds = self.seeds.tolist()
        if kind == ".npz":
            address = self._address(Layout()) if len(self) else None
            return encode.npz(self.images, indices, seeds, self.class_names, address)
        if kind not in (".zip", ".json"):
            raise errors.Invalid(f"{kind or 'no suffix'} is no kind of file: expected .png, .webp, .zip, .npz or .json")
        write = encode.zip_archive if kind == ".zip" else encode.json_document
        meta: dict[str, Any] = {"model": self.model, "version": self.version, "latent_recipe": self.latent_recipe}
        if self.graph:
            meta["graph"] = self.graph[:GRAPH_DIGITS]
        if self.truncation is not None:
            meta["truncation"] = self.truncation / 100
        return write(self.images, indices, seeds, self.class_names, meta)

    def _address(self, layout: Layout) -> Address:
        """Where all of them stand, in this layout."""
        made_by = (self.model, self.version, self.latent_recipe, self.graph)
        return Address(*made_by, np.maximum(self.labels, 0), self.seeds, layout, self.truncation)

    def _repr_png_(self) -> bytes | None:
        """The first images as a grid, for notebooks."""
        if not len(self):
            return None
        first = self[:SHOWN]
        layout = Layout(padding=2, scale=-(-SHOWN_HEIGHT // first.images.shape[1]))
        return marks.picture(encode.grid(first.images, scale=layout.scale), first._address(layout))

    def _repr_html_(self) -> str:
        """The first images with what they are, for notebooks."""
        content = self._repr_png_()
        if content is None:
            return "<p>no images</p>"
        shown = f" (the first {SHOWN})" if len(self) > SHOWN else ""
        classes = dict.fromkeys(self.class_names[label] for label in self.labels.tolist() if label >= 0)
        named = f"; {', '.join(list(classes)[:10])}{', ...' if len(classes) > 10 else ''}" if classes else ""
        seeds = f"; seed {self.seeds[0]} to {self.seeds[-1]}" if len(self) > 1 else f"; seed {self.seeds[0]}"
        told = html.escape(f"{self.model} version {self.version}: {len(self)} images{shown}{named}{seeds}")
        source = base64.b64encode(content).decode("ascii")
        return (
            f'<figure style="margin:0"><img src="data:image/png;base64,{source}" alt="{told}">'
            f"<figcaption>{told}</figcaption></figure>"
        )
