"""What the mark costs: bytes and microseconds of each kind of picture and of each format of rows, with it and without.

    python -m benchmarks.marks          # writes marks.md beside this file

Time is the thread's CPU time, the median of rounds in which both sides alternate.
"""

from __future__ import annotations

import io
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganserve import encode, marks, png
from ganserve.address import Address, Layout
from ganserve.generator import Generator
from ganserve.images import Images
from ganserve.repository import Repository
from service.datasets import parquet
from service.datasets.formats import FORMATS, writer
from service.datasets.span import Span

HERE = Path(__file__).parent
MODELS = HERE.parent / "models"
ROUNDS, ROWS = 41, 1000

Made = Callable[[], bytes]


def main() -> int:
    """Measure and write the table."""
    lines = [
        "# What the mark costs", "",
        f"An XMP packet of {len(marks.XMP)} bytes, with the program's name {len(marks.PNG)} bytes of a PNG, the same",
        "in each; the address comes to these. Bytes and microseconds of CPU time, median of "
        f"{ROUNDS} rounds in which", "both sides alternate.", "",
        "| what | bytes without | with | more | microseconds without | with |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for model in ("mnist-projgan", "cifar10-projgan"):
        images = Generator(MODELS / model).generate(n=256, seed=5)
        for n in (1, 16, 256):
            lines.append(told(f"PNG, {n} of {model}", *pngs(images[:n])))
        for n in (1, 16):
            lines.append(told(f"WebP, {n} of {model}", *webps(images[:n])))
        lines += [told(f"NPZ, 16 of {model}", *npzs(images[:16]))]
        lines += [streamed(model, form) for form in FORMATS]
    lines += [
        "", f"Rows of {ROWS} images are those of `/datasets/synthetic`, in which a picture carries the packet itself",
        "only where it adds no tenth; the fields of each row have it always, in the zip the comment of each entry.", "",
        f"Processor: {processor()}. Made by `python -m benchmarks.marks`.",
    ]  # fmt: skip
    (HERE / "marks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


def _laid(images: Images) -> tuple[NDArray[np.uint8], Address]:
    single = len(images) == 1
    layout = Layout(1, 0, 1) if single else Layout(None, 2, 1)
    sheet = encode.grid(images.images, layout.columns, layout.padding, 1)
    given = (images.model, images.version, images.latent_recipe, images.graph, images.labels, images.seeds, layout)
    return sheet, Address(*given)


def pngs(images: Images) -> tuple[Made, Made]:
    """With the text chunks that there were before, and with all."""
    sheet, address = _laid(images)
    return lambda: png.encode(sheet, address.text()), lambda: marks.picture(sheet, address)


def webps(images: Images) -> tuple[Made, Made]:
    """Without metadata, and with it."""
    sheet, address = _laid(images)

    def bare() -> bytes:
        # As the encoder did before there were marks.
        buffer = io.BytesIO()
        picture = Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet)
        picture.save(buffer, "WEBP", lossless=True, quality=20, method=0)
        return buffer.getvalue()

    return bare, lambda: encode.webp(sheet, address)


def npzs(images: Images) -> tuple[Made, Made]:
    """Without the arrays of text, and with them."""
    address = _laid(images)[1]
    given = (images.images, images.labels.tolist(), images.seeds.tolist())

    def bare() -> bytes:
        kept, encode.MARK_ARRAYS = encode.MARK_ARRAYS, {}
        try:
            return encode.npz(*given)
        finally:
            encode.MARK_ARRAYS = kept

    return bare, lambda: encode.npz(*given, (), address)


def streamed(model: str, form: str) -> str:
    """A row of the table for a data set's format."""
    repository = Repository(MODELS)
    card = repository.card(model, repository.live(model) or 1)
    images = Generator(MODELS / model).generate(n=ROWS, seed=0).images
    span = Span(card, 0, 0, ROWS, balanced=True)

    def whole() -> bytes:
        made = writer(form, span)  # type: ignore[arg-type]
        parts = [*made.head(), made.add(made.prepare(0, images)), *made.tail()]
        return b"".join(parts)

    def bare() -> bytes:
        with ExitStack() as without:
            # What each format wrote before: no packet, no fields.
            without.enter_context(mock.patch.object(marks, "PNG", bytes(10**9)))
            without.enter_context(mock.patch.object(marks, "FIELDS", {}))
            without.enter_context(mock.patch.object(marks, "SOURCE_TYPE", ""))
            without.enter_context(mock.patch.object(parquet, "TEXTS", ()))
            without.enter_context(mock.patch.object(encode, "MARK_ARRAYS", {}))
            return whole()

    return told(f"{form}, {ROWS} of {model}", bare, whole, rounds=7)


def processor() -> str:
    """Its name, where the system tells one."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def told(what: str, without: Made, with_it: Made, rounds: int = ROUNDS) -> str:
    """A row of the table."""
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for times, make in zip(spent, (without, with_it), strict=True):
            begun = time.thread_time()
            make()
            times.append((time.thread_time() - begun) * 1e6)
    before, after = len(without()), len(with_it())
    first, second = (statistics.median(times) for times in spent)
    return f"| {what} | {before} | {after} | {(after - before) / before:.1%} | {first:.0f} | {second:.0f} |"


if __name__ == "__main__":
    raise SystemExit(main())
